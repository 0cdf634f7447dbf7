"""`motionbooth bench real-size`: run a network of Zeroscope's size on a CPU with 24 GB of memory.

The weights (1.4 billion, float32) and the input are random; nothing is downloaded. The bench takes one controlled
denoising step (boxes, shift, guidance) and one training step of a LoRA subject (pictures, a clip, all losses, gradient
checkpointing), and measures the time and the peak memory of the process. The VAE and the text encoder, which are small
in comparison and run before and after, are left out.
"""

from __future__ import annotations

import ctypes
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec
import torch
from diffusers import DDIMScheduler, UNet3DConditionModel
from motionbooth_protocol.motion import Box, CameraPath
from rich.progress import Progress
from torch import Tensor, nn

from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.control.boxes import AttentionControl, Grid
from motionbooth.control.camera import random_pick
from motionbooth.control.plan import StepPlan, plan_steps
from motionbooth.control.prompt import PromptTokens
from motionbooth.control.settings import ControlSettings
from motionbooth.finetuning.dataset import TrainingData
from motionbooth.finetuning.trainable import set_trainable
from motionbooth.finetuning.trainer import Trainer
from motionbooth.generation.sampling import SamplingInputs, denoise
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.settings import BaseSettings
from motionbooth.models.sources import MODELS, source_named
from motionbooth.models.unet_base import UNet, use_channels_last

AnyModule = TypeVar("AnyModule", bound=nn.Module)

LATENTS: Grid = (40, 72)
PICTURES = 5
GUIDANCE = 7.5
TOKENS = PromptTokens(length=77, content=range(1, 9), subjects=((2, 3),))
"""CLIP's tokens of "a red dog on the green grass ."."""

M_MMAP_THRESHOLD, LARGE_BLOCK = -3, 1 << 20  # of mallopt(3); bytes


@dataclass(frozen=True)
class Step:
    """Input of a denoising step: latents (1, 4, F, h, w) and text embeddings (1, 77, D) with and without the prompt."""

    latents: Tensor
    conditional: Tensor
    unconditional: Tensor


def bench_real_size(frames: int) -> BenchResult:
    """Run the bench with clips of this many frames (Zeroscope: 24). Torch chooses the number of threads."""
    free_large_blocks()
    with Progress(transient=True) as progress:
        stage = progress.add_task("creating random weights", total=3)
        base = random_base(zeroscope_unet(), LATENTS, frames)
        loaded = peak_gb()
        progress.update(stage, advance=1, description="denoising step")
        step = random_step(LATENTS, frames, base.network.config.cross_attention_dim)
        sampling = seconds_of(lambda: our_steps(base, step, [busy_plan(LATENTS, frames)]))
        sampled = peak_gb()
        progress.update(stage, advance=1, description="training step")
        trainer = lora_trainer(base, random_text(TOKENS.length, base.network.config.cross_attention_dim))
        training = seconds_of(trainer.take_step)
    return BenchResult(
        "real-size",
        [
            Measure("weights_peak_gb", loaded, "GB"),
            Measure("sampling_peak_gb", sampled, "GB"),
            Measure("peak_gb", peak_gb(), "GB"),
            Measure("sampling_step_seconds", sampling, "s"),
            Measure("training_step_seconds", training, "s"),
            Measure("frames", frames, "per clip"),
        ],
    )


def zeroscope_unet(device: str = "cpu", dtype: torch.dtype = torch.float32, **config: Any) -> UNet3DConditionModel:
    """A UNet of Zeroscope's configuration, which is the default of UNet3DConditionModel, with random weights."""
    return random_module(lambda: UNet3DConditionModel(sample_size=32, **config), device, dtype)


@torch.no_grad()
def random_module(create: Callable[[], AnyModule], device: str, dtype: torch.dtype) -> AnyModule:
    """A module of diffusers, created in place. Every weight is a small random value, the same in every run on the same
    kind of device, so that the outputs stay finite.

    As in a module that diffusers loads, some of its own modules are in float32 whatever `dtype` is. Buffers are left
    undefined.
    """
    with torch.device("meta"):
        module = create()
    exact = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    for name, parameter in module.named_parameters():
        if exact.isdisjoint(name.split(".")):
            parameter.data = parameter.data.to(dtype)
    return fill(module.to_empty(device=device))


@torch.no_grad()
def fill(module: AnyModule) -> AnyModule:
    """Set every weight to a small random value."""
    parameters = list(module.parameters())
    generator = torch.Generator(parameters[0].device).manual_seed(0)
    for parameter in parameters:
        parameter.normal_(std=0.02, generator=generator)
    use_channels_last(module)
    return module.eval().requires_grad_(False)


def random_base(unet: UNet, latent_size: Grid, frames: int) -> Base:
    """A base model with this UNet and Zeroscope's settings. Its other parts, which are not used, are toybox's."""
    base = load_base(source_named("toybox"), "cpu")
    height, width = (cells * base.cell for cells in latent_size)
    settings = BaseSettings.read(MODELS / "zeroscope.json")
    return replace(
        base,
        network=unet,
        control=AttentionControl.install(unet),
        settings=msgspec.structs.replace(settings, frames=frames, height=height, width=width),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
    )


def random_step(latent_size: Grid, frames: int, text_width: int) -> Step:
    generator = torch.Generator().manual_seed(1)
    text = torch.randn(2, 1, 77, text_width, generator=generator)
    return Step(torch.randn(1, 4, frames, *latent_size, generator=generator), *text)


def busy_plan(
    latent_size: Grid,
    frames: int,
    tokens: PromptTokens = TOKENS,
    patch: int = 1,
    temporal: int = 1,
    camera: CameraPath | None = None,
) -> StepPlan:
    """A step with all controls active: a moving box, amplified, and half of the camera's move.

    `camera`: by default, a pan by a quarter of the frame.
    """
    track = [Box(0.1 + 0.02 * f, 0.2, 0.5 + 0.02 * f, 0.7) for f in range(frames)]
    settings = ControlSettings(alpha=7.5, amplify_until=1, shift_from=0, shift_until=1)
    camera = camera or CameraPath.straight(0.25, 0.1, frames)
    return plan_steps(settings, 2, latent_size, camera, [track], tokens, patch=patch, temporal=temporal)[0]


def our_steps(base: Base, step: Step, plans: list[StepPlan]) -> Tensor:
    """Our sampling loop, one step per plan."""
    pick = random_pick(torch.Generator().manual_seed(0))
    return denoise(base, SamplingInputs(step.latents, step.conditional, step.unconditional, GUIDANCE, plans, pick))


def lora_trainer(base: Base, text: Tensor, positions: tuple[int, ...] = TOKENS.subjects[0]) -> Trainer:
    """A trainer of a LoRA with the base's settings, on pictures and a clip of noise.

    `text` (1, tokens, D): of all captions. `positions`: the subject's tokens in it.
    """
    set_trainable(base, base.settings.lora, "lora", seed=0)
    return Trainer(base, base.settings.lora, random_training_data(base, text, positions), seed=0)


def random_training_data(base: Base, text: Tensor, positions: tuple[int, ...]) -> TrainingData:
    """PICTURES pictures with a subject in the middle, and a clip, on the base's device."""
    generator = torch.Generator().manual_seed(2)
    channels, frames, rows, columns = base.latent_shape
    height, width = base.settings.height, base.settings.width
    masks = torch.zeros(PICTURES, 1, height, width)
    masks[..., height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = 1
    mean = torch.randn(PICTURES, channels, 1, rows, columns, generator=generator).to(base.device)
    return TrainingData(
        mean=mean,
        std=torch.full_like(mean, 0.1),
        masks=masks.to(base.device),
        text=text.to(base.device),
        positions=torch.tensor([positions]),
        clips=torch.randn(1, channels, frames, rows, columns, generator=generator).to(base.device),
        clip_text=text.to(base.device),
    )


def random_text(tokens: int, width: int) -> Tensor:
    """Text embeddings (1, tokens, width)."""
    return torch.randn(1, tokens, width, generator=torch.Generator().manual_seed(3))


def free_large_blocks() -> None:
    """Make glibc return large freed blocks to the system; otherwise fragmentation of its heap inflates the peak."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


def peak_gb() -> float:
    """Peak resident memory of this process so far, in units of 10^9 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
