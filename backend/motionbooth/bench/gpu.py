"""`motionbooth bench gpu`: what this machine's GPU makes of the product, in a few minutes and without a download.

Three parts, each of which can be run alone:

- precision: the bundled models in float32, float16 and bfloat16: how alike the clips are (PSNR), and the losses of a
  short training, and how far a resumed one ends from it.
- zeroscope, wan-1.3b: networks of the published sizes with random weights: the time of a controlled step, over that of
  diffusers' own loop and over a step without boxes, one training step of a LoRA, and the memory that each needs. The
  text encoder and the VAE, which run before and after, are left out.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import torch
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from rich.progress import Progress
from torch import Tensor

from motionbooth.bench.diffusers_loops import unet_steps, wan_steps
from motionbooth.bench.measures import BenchResult, Measure, write_json
from motionbooth.bench.random_wan import LATENTS as WAN_LATENTS
from motionbooth.bench.random_wan import PUBLISHED, busy_wan_plan, random_network, random_wan, wan_step
from motionbooth.bench.random_wan import TOKENS as WAN_TOKENS
from motionbooth.bench.real_size import (
    LATENTS,
    TOKENS,
    Step,
    busy_plan,
    lora_trainer,
    our_steps,
    random_base,
    random_step,
    random_text,
    zeroscope_unet,
)
from motionbooth.control.plan import StepPlan
from motionbooth.finetuning.trainer import Trainer
from motionbooth.generation.sampling import generate_clip
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import source_named

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
STEPS = 20
"""Of the short training."""

ROUNDS = 5
TRAINED_FRAMES = 17
"""Of Wan's clips in training, as in its prior-preservation clips."""


def bench_gpu(parts: Sequence[str] = (), json_file: Path | None = None) -> BenchResult:
    """Run these parts, by default all. What is measured is written to `json_file` after each part.

    Raises InvalidInput without a CUDA or ROCm device, or for an unknown part.
    """
    if unknown := set(parts) - set(PARTS):
        raise InvalidInput("There is no part {part}. The parts are {parts}.", part=min(unknown), parts=", ".join(PARTS))
    if not torch.cuda.is_available():
        raise InvalidInput("This bench needs a GPU, and torch finds none here. `motionbooth doctor` says more.")
    measures = [Measure("gpu_memory_gb", torch.cuda.get_device_properties(0).total_memory / 1e9, "GB")]
    with Progress(transient=True) as progress:
        for part in parts or PARTS:
            stage = progress.add_task(part, total=None)
            measures += PARTS[part]("cuda")
            progress.remove_task(stage)
            write_json(BenchResult("gpu", measures), json_file)
    return BenchResult("gpu", measures)


def bench_precision(device: str) -> list[Measure]:
    """The bundled models in half precision, compared with float32."""
    measures = []
    for name in ("toybox", "wantoy"):
        exact = clip_of(load_base(source_named(name), "cpu", torch.float32))
        clips = {"float32": clip_of(load_base(source_named(name), device, torch.float32))}
        clips |= {half: clip_of(load_base(source_named(name), device, dtype)) for half, dtype in HALVES.items()}
        measures += [Measure(f"{name}_{kind}_db", psnr(clip, exact), "dB, CPU") for kind, clip in clips.items()]
        for kind in ("float32", *HALVES):
            ratio, distance = short_training(name, device, kind)
            measures.append(Measure(f"{name}_{kind}_loss_ratio", ratio, "last losses / first"))
            measures.append(Measure(f"{name}_{kind}_resume_distance", distance, "of the weights' norm"))
    return measures


def bench_zeroscope(device: str) -> list[Measure]:
    """Zeroscope's UNet in float16: 24 frames of 576 x 320 pixels."""
    base = on_device(random_base(zeroscope_unet(), LATENTS, 24), device, torch.float16)
    width = base.network.config.cross_attention_dim
    step = random_step(LATENTS, 24, width)
    plan = busy_plan(LATENTS, 24)
    plain = base.network, base.scheduler
    measures = sampling_measures("zeroscope", base, step, plan, lambda given: unet_steps(*plain, given, 1))
    return measures + training_measures("zeroscope", base, random_text(TOKENS.length, width))


def bench_wan(device: str) -> list[Measure]:
    """Wan 2.1 T2V 1.3B's transformer in bfloat16: 81 frames of 832 x 480 pixels, 17 in training."""
    base = on_device(random_wan(random_network(**PUBLISHED), WAN_LATENTS, 81), device, torch.bfloat16)
    step, plan = wan_step(base), busy_wan_plan(WAN_LATENTS, 81)
    network = base.network
    measures = sampling_measures("wan_1_3b", base, step, plan, lambda given: wan_steps(network, given, 1))
    text = random_text(WAN_TOKENS.length, network.config.text_dim)
    return measures + training_measures("wan_1_3b", base.of_length(TRAINED_FRAMES), text)


PARTS: Mapping[str, Callable[[str], list[Measure]]] = {
    "precision": bench_precision,
    "zeroscope": bench_zeroscope,
    "wan-1.3b": bench_wan,
}


# Precision


def clip_of(base: Base) -> np.ndarray:
    """A clip (F, H, W, 3) of a dog whose box moves while the camera pans."""
    frames = base.settings.frames
    boxes: list[Box | None] = [Box(0.1 + 0.3 * f / frames, 0.3, 0.5 + 0.3 * f / frames, 0.8) for f in range(frames)]
    track = SubjectTrack("dog", "dog", boxes)
    shot = Shot("pan", 1, frames, base.settings.fps, 96, 64, CameraPath.straight(0.2, 0, frames), [track])
    return generate_clip(base, GenerateSpec(shot, "a red dog on the grass", seed=1)).cpu().numpy()


def psnr(clip: np.ndarray, exact: np.ndarray) -> float:
    """Peak signal-to-noise ratio of a clip in 0..255, in dB; 100 for an equal one."""
    error = float(np.square(clip.astype(float) - exact).mean())
    return 100.0 if error == 0 else 10 * float(np.log10(255**2 / error))


def short_training(name: str, device: str, precision: str) -> tuple[float, float]:
    """STEPS steps of a LoRA on noise: last losses / first ones (means of five), and the distance between its weights
    and those of a training resumed in the middle, as a share of their norm. Raises FloatingPointError for a loss that
    is no number.
    """

    def trainer() -> Trainer:
        base = load_base(source_named(name), device, torch.float32)
        settings = msgspec.structs.replace(base.settings.lora, precision=precision, learning_rate=1e-3, paste=None)
        base.settings = msgspec.structs.replace(base.settings, lora=settings)
        return lora_trainer(base, base.embed(["a dog"]), (2,))

    whole, first, second = trainer(), trainer(), trainer()
    losses = [whole.take_step().total for _ in range(STEPS)]
    if not np.isfinite(losses).all():
        raise FloatingPointError(f"{name} in {precision}: losses {losses}")
    for _ in range(STEPS // 2):
        first.take_step()
    with tempfile.TemporaryDirectory(prefix="motionbooth-bench-") as folder:
        first.save(Path(folder) / "state.pt")
        second.load(Path(folder) / "state.pt")
    for _ in range(STEPS // 2):
        second.take_step()
    one, other = (trained_weights(each.base) for each in (whole, second))
    distance = float((one - other).norm() / one.norm())
    return float(np.mean(losses[-5:]) / np.mean(losses[:5])), distance


def trained_weights(base: Base) -> Tensor:
    """All trained weights in one row."""
    return torch.cat([weight.detach().flatten() for weight in base.network.parameters() if weight.requires_grad])


# Networks of the published sizes


AnyBase = TypeVar("AnyBase", bound=Base)


def on_device(base: AnyBase, device: str, dtype: torch.dtype) -> AnyBase:
    base.network.to(device, dtype)
    return replace(base, device=torch.device(device), dtype=dtype)


def sampling_measures(name: str, base: Base, step: Step, plan: StepPlan, plain: Callable[[Step], Any]) -> list[Measure]:
    """A controlled step, the same without boxes, and diffusers' step, in turn."""
    on_gpu = Step(
        step.latents.to(base.device, base.latent_dtype),
        step.conditional.to(base.device, base.dtype),
        step.unconditional.to(base.device, base.dtype),
    )
    works: dict[str, Callable[[], Any]] = {
        "ours": lambda: our_steps(base, on_gpu, [plan]),
        "unboxed": lambda: our_steps(base, on_gpu, [replace(plan, boxes=None)]),
        "theirs": lambda: plain(on_gpu),
    }
    peaks = {}
    for kind, work in works.items():
        torch.cuda.reset_peak_memory_stats()
        work()
        peaks[kind] = torch.cuda.max_memory_allocated() / 1e9
    seconds: dict[str, list[float]] = {kind: [] for kind in works}
    for _ in range(ROUNDS):
        for kind, work in works.items():
            seconds[kind].append(seconds_on_gpu(work))
    middle = {kind: statistics.median(each) for kind, each in seconds.items()}
    steps = base.settings.num_inference_steps
    return [
        Measure(f"{name}_step_seconds", middle["ours"], "s"),
        Measure(f"{name}_step_ratio", middle["ours"] / middle["theirs"], "ours / diffusers'"),
        Measure(f"{name}_box_ratio", middle["ours"] / middle["unboxed"], "with boxes / without"),
        Measure(f"{name}_peak_gb", peaks["ours"], "GB"),
        Measure(f"{name}_memory_ratio", peaks["ours"] / peaks["theirs"], "ours / diffusers'"),
        Measure(f"{name}_clips_an_hour", 3600 / (steps * middle["ours"]), f"of {steps} steps, denoising alone"),
    ]


def training_measures(name: str, base: Base, text: Tensor) -> list[Measure]:
    """A training step of a LoRA with the base's own settings, on float32 weights as in a job."""
    base.network.float()
    trainer = lora_trainer(replace(base, dtype=torch.float32), text)
    torch.cuda.reset_peak_memory_stats()
    trainer.take_step()  # the optimizer allocates its state in it
    seconds = statistics.median(seconds_on_gpu(trainer.take_step) for _ in range(3))
    return [
        Measure(f"{name}_training_step_seconds", seconds, "s"),
        Measure(f"{name}_training_peak_gb", torch.cuda.max_memory_allocated() / 1e9, "GB"),
    ]


def seconds_on_gpu(work: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began
