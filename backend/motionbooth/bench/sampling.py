"""`motionbooth bench sampling`: what control costs in a denoising step, in time and in memory.

One step of ours (boxes, shift, guidance) against the same step of diffusers' own loop, on one random UNet of middle
size and the same tensors: its weights are shared, so is their layout (channels_last for 2-D convolutions; what that
gains by itself is `channels_last_gain`). Ours is taken at its dearest: every measured step moves the latents, so that
the boxes move and every bias is built anew, and amplifies too; in a real run most steps do neither, and keep the
biases of the step before.

`step_ratio` and `step_memory_ratio` are ours over diffusers'. `unet_ratio` is ours over a bare call of the UNet,
without sampler, guidance, or anything of ours. What is left between them: fused attention reads one additive bias in
each text cross-attention (-inf cannot ride on extra channels of q and k, and a kernel without a mask knows no -inf; to
keep the unconditional half mask-free would cost a copy that is dearer); the biases are built, once for each grid, of
which the finest is nearly all; rows are gathered into the holes that the shift leaves. The rest is the loop's own, in
diffusers' as in ours: doubling the batch, the guidance, the sampler's arithmetic.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet3DConditionModel
from motionbooth_protocol.motion import Box, CameraPath
from torch import Tensor

from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.bench.memory import peak_bytes
from motionbooth.bench.midsize import FRAMES, TEXT_WIDTH, midsize_base, midsize_unet
from motionbooth.control.boxes import Grid
from motionbooth.control.camera import random_pick
from motionbooth.control.plan import StepPlan, plan_steps
from motionbooth.control.prompt import PromptTokens
from motionbooth.control.settings import ControlSettings
from motionbooth.generation.sampling import denoise
from motionbooth.models.registry import Base, lay_channels_last

LATENTS: Grid = (20, 36)
"""A quarter of Zeroscope's cells."""

GUIDANCE = 7.5
TOKENS = PromptTokens(length=77, content=range(1, 9), subjects=((2, 3),))
"""Of "a red dog on the green grass .", CLIP's tokens."""

Work = Callable[[], Any]


@dataclass(frozen=True)
class Step:
    """What a denoising step starts from: latents (1, 4, F, h, w), and the text embeddings (1, 77, D) of both halves."""

    latents: Tensor
    conditional: Tensor
    unconditional: Tensor


def bench_sampling(latent_size: Grid, rounds: int) -> BenchResult:
    """`rounds` of each kind of step in turn, after one that is not counted; the ratios are medians over the rounds.

    On one thread, in CPU seconds, so that what else the machine does counts less.
    """
    torch.set_num_threads(1)
    base, plain = midsize_base(latent_size), midsize_unet()
    theirs = laid_out(plain)
    step, plan = random_step(latent_size), busy_plan(latent_size)
    scheduler = base.scheduler
    works: dict[str, Work] = {
        "ours": lambda: our_steps(base, step, [plan]),
        "theirs": lambda: diffusers_steps(theirs, scheduler, step, 1),
        "unet": lambda: bare_unet(theirs, step),
        "plain": lambda: diffusers_steps(plain, scheduler, step, 1),
    }
    seconds = alternate(works, rounds)
    # Two steps each: in the second one the biases of the first are still held.
    memory = peak_bytes(lambda: our_steps(base, step, [plan] * 2)) / peak_bytes(
        lambda: diffusers_steps(theirs, scheduler, step, 2)
    )
    return BenchResult(
        "sampling",
        [
            Measure("step_ratio", _median_ratio(seconds, "ours", "theirs"), "ours / diffusers'"),
            Measure("step_memory_ratio", memory, "ours / diffusers'"),
            Measure("unet_ratio", _median_ratio(seconds, "ours", "unet"), "ours / the bare UNet"),
            Measure("channels_last_gain", _median_ratio(seconds, "plain", "theirs"), "plain layout / channels last"),
            Measure("step_seconds", statistics.median(seconds["ours"]), "CPU s"),
            Measure("diffusers_step_seconds", statistics.median(seconds["theirs"]), "CPU s"),
            Measure("latent_cells", latent_size[0] * latent_size[1], "of a frame"),
        ],
    )


# Both sides


@torch.no_grad()
def diffusers_steps(unet: UNet3DConditionModel, scheduler: Any, step: Step, count: int) -> Tensor:
    """The loop of diffusers' TextToVideoSDPipeline.__call__ over `count` steps, as it stands there."""
    text = torch.cat([step.unconditional, step.conditional])
    scheduler.set_timesteps(count)
    latents = step.latents * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        model_input = scheduler.scale_model_input(torch.cat([latents] * 2), t)
        noise = unet(model_input, t, encoder_hidden_states=text, cross_attention_kwargs=None, return_dict=False)[0]
        without_text, with_text = noise.chunk(2)
        noise = without_text + GUIDANCE * (with_text - without_text)
        batch, channels, frames, width, height = latents.shape
        latents = latents.permute(0, 2, 1, 3, 4).reshape(batch * frames, channels, width, height)
        noise = noise.permute(0, 2, 1, 3, 4).reshape(batch * frames, channels, width, height)
        latents = scheduler.step(noise, t, latents).prev_sample
        latents = latents[None, :].reshape(batch, frames, channels, width, height).permute(0, 2, 1, 3, 4)
    return latents


def our_steps(base: Base, step: Step, plans: list[StepPlan]) -> Tensor:
    """The product's own loop, one step for each plan."""
    pick = random_pick(torch.Generator().manual_seed(0))
    return denoise(
        base, step.latents, step.conditional, step.unconditional, GUIDANCE, plans, pick, lambda done, steps: None
    )


@torch.no_grad()
def bare_unet(unet: UNet3DConditionModel, step: Step) -> Tensor:
    """The UNet of both halves, and nothing else."""
    text = torch.cat([step.unconditional, step.conditional])
    return unet(torch.cat([step.latents] * 2), torch.tensor(1), text).sample


def alternate(works: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each work in each round; one after the other, every other round in the opposite order."""
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name in sorted(works, reverse=bool(number % 2)):
            started = time.process_time()
            works[name]()
            seconds[name].append(time.process_time() - started)
    return seconds


def _median_ratio(seconds: dict[str, list[float]], over: str, under: str) -> float:
    """Of the rounds' own ratios: what slows the machine for a while slows both sides of a round."""
    return statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))


# What they run on


def laid_out(unet: UNet3DConditionModel) -> UNet3DConditionModel:
    """Another UNet of the same weights, in the layout that is quick."""
    other = copy.deepcopy(unet)
    lay_channels_last(other)
    return other


def random_step(latent_size: Grid) -> Step:
    generator = torch.Generator().manual_seed(1)
    text = torch.randn(2, 1, 77, TEXT_WIDTH, generator=generator)
    return Step(torch.randn(1, 4, FRAMES, *latent_size, generator=generator), *text)


def busy_plan(latent_size: Grid, frames: int = FRAMES) -> StepPlan:
    """A step in which everything acts: a box that moves, amplified, and half of a pan of a quarter of the frame."""
    track = [Box(0.1 + 0.02 * f, 0.2, 0.5 + 0.02 * f, 0.7) for f in range(frames)]
    settings = ControlSettings(alpha=7.5, amplify_until=1, shift_from=0, shift_until=1)
    camera = CameraPath.straight(0.25, 0.1, frames)
    return plan_steps(settings, 2, latent_size, camera, [track], TOKENS)[0]
