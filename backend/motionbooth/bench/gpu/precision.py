"""The part `precision`: the bundled models in half precision on the card, beside float32."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from torch import Tensor, nn

from motionbooth.bench.gpu.part import Finding, attempted
from motionbooth.bench.measures import Measure
from motionbooth.bench.real_size import lora_trainer
from motionbooth.finetuning.trainer import Trainer
from motionbooth.generation.sampling import generate_clip
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.settings import BaseSettings
from motionbooth.models.sources import Source, source_named

PRECISIONS = ("float32", "float16", "bfloat16")
STEPS = 20
"""Of the short training."""


def bench_precision(device: torch.device, sources: Sequence[Source] = ()) -> Iterator[Finding]:
    """Clips and short trainings of these models, by default toybox and wantoy, in each precision."""
    for source in sources or (source_named("toybox"), source_named("wantoy")):
        yield from attempted(f"{source.name}'s clips", device, partial(clip_measures, source, device))
        yield from attempted(f"{source.name}'s trainings", device, partial(training_measures, source, device))


def clip_measures(source: Source, device: torch.device) -> Iterator[Finding]:
    """How alike the clips are: float32 here and on the CPU, and each half precision and float32 here."""
    on_cpu = clip_of(load_base(source, "cpu", torch.float32))
    exact = clip_of(load_base(source, device.type, torch.float32))
    yield Measure(f"{source.name}_float32_db", psnr(exact, on_cpu), "dB against the CPU")
    for kind in PRECISIONS[1:]:

        def half(kind: str = kind) -> Iterator[Finding]:
            clip = clip_of(load_base(source, device.type, getattr(torch, kind)))
            yield Measure(f"{source.name}_{kind}_db", psnr(clip, exact), "dB against float32")

        yield from attempted(f"a clip of {source.name} in {kind}", device, half)


def training_measures(source: Source, device: torch.device) -> Iterator[Finding]:
    """The losses in each precision, beside those in float32, and how exactly an interrupted training is resumed."""
    exact: list[float] = []
    for kind in PRECISIONS:

        def one(kind: str = kind) -> Iterator[Finding]:
            found, name = short_training(source, device, kind), f"{source.name}_{kind}"
            losses = np.array(found.losses)
            yield Measure(f"{name}_loss_ratio", float(losses[-5:].mean() / losses[:5].mean()), "last / first")
            if kind == "float32":
                exact.extend(losses)
            elif exact:
                off = np.abs(losses - exact).mean() / np.mean(exact)
                yield Measure(f"{name}_loss_difference", float(off), "of float32's losses")
            yield Measure(f"{name}_resume_distance", found.resumed, "of the weights' norm")
            yield Measure(f"{name}_repeat_distance", found.repeated, "of the weights' norm")
            if found.resumed and not found.repeated:
                yield f"a training of {source.name} in {kind} ends with other weights if it is resumed"

        yield from attempted(f"a training of {source.name} in {kind}", device, one)


# Clips


def clip_of(base: Base) -> np.ndarray:
    """A clip (F, H, W, 3) of `pan_spec`. Raises FloatingPointError."""
    with finite(base.network, base.vae.decoder):
        return generate_clip(base, pan_spec(base.settings)).numpy()


def pan_spec(settings: BaseSettings) -> GenerateSpec:
    """A dog whose box moves while the camera pans."""
    frames = settings.frames
    boxes: list[Box | None] = [Box(0.1 + 0.3 * f / frames, 0.3, 0.5 + 0.3 * f / frames, 0.8) for f in range(frames)]
    track = SubjectTrack("dog", "dog", boxes)
    shot = Shot("pan", 1, frames, settings.fps, 96, 64, CameraPath.straight(0.2, 0, frames), [track])
    return GenerateSpec(shot, "a red dog on the grass", seed=1)


@contextmanager
def finite(*modules: nn.Module) -> Iterator[None]:
    """A context in which a result that is no number raises FloatingPointError. The 8 bits of a clip would hide it."""

    def check(module: nn.Module, _: Any, result: Any) -> None:
        tensor = result if isinstance(result, Tensor) else result[0]
        if not tensor.isfinite().all():
            raise FloatingPointError(f"{type(module).__name__} returned values that are no finite numbers")

    hooks = [module.register_forward_hook(check) for module in modules]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def psnr(clip: np.ndarray, exact: np.ndarray) -> float:
    """Peak signal-to-noise ratio of a clip in 0..255, in dB; 100 for an equal one."""
    error = float(np.square(clip.astype(float) - exact).mean())
    return 100.0 if error == 0 else 10 * float(np.log10(255**2 / error))


# Trainings


@dataclass(frozen=True)
class ShortTraining:
    """`losses`: of STEPS steps. `resumed`: the distance between its weights and those of a training resumed from the
    middle of it, as a share of their norm. `repeated`: the same between two resumed ones, which is more than 0 where
    the card adds up in another order each time.
    """

    losses: list[float]
    resumed: float
    repeated: float


def short_training(source: Source, device: torch.device, precision: str) -> ShortTraining:
    """A LoRA on noise. Raises FloatingPointError for a loss that is no number."""

    def trainer() -> Trainer:
        base = load_base(source, device.type, torch.float32)
        settings = msgspec.structs.replace(base.settings.lora, precision=precision, learning_rate=1e-3, paste=None)
        base.settings = msgspec.structs.replace(base.settings, lora=settings)
        return lora_trainer(base, base.embed(["a dog"]), (2,))

    whole, resumed, again = trainer(), trainer(), trainer()
    half = STEPS // 2
    losses = [finite_loss(whole) for _ in range(half)]
    with tempfile.TemporaryDirectory(prefix="motionbooth-bench-") as folder:
        whole.save(Path(folder) / "state.pt")
        for other in (resumed, again):
            other.load(Path(folder) / "state.pt")
    losses += [finite_loss(whole) for _ in range(half)]
    for other in (resumed, again):
        for _ in range(half):
            other.take_step()
    return ShortTraining(losses, distance(whole, resumed), distance(resumed, again))


def finite_loss(trainer: Trainer) -> float:
    """The total loss of the next step. Raises FloatingPointError if it is no number."""
    loss = trainer.take_step().total
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss of step {trainer.step} is {loss}")
    return loss


def distance(one: Trainer, other: Trainer) -> float:
    """Between the trained weights of two trainings, as a share of the first one's norm."""
    first, second = (
        torch.cat([weight.detach().flatten() for weight in each.base.network.parameters() if weight.requires_grad])
        for each in (one, other)
    )
    return float((first - second).norm() / first.norm())
