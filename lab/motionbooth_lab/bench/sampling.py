"""`motionbooth bench sampling`: the time and memory that control adds to a denoising step.

The bench compares one step of ours (boxes, shift, guidance) with the same step of diffusers' own loop, on a random UNet
of medium size with the same weights, tensors and memory layout (channels_last for 2-D convolutions, whose own gain is
`channels_last_gain`). It takes our most expensive step: every measured step shifts the latents, so the boxes move and
all attention biases are rebuilt, and it amplifies, too. In a real run most steps do neither and reuse the biases.

`step_ratio` and `step_memory_ratio` are ours over diffusers'. `unet_ratio` is ours over a bare call of the UNet without
sampler and guidance. The overhead of control is: an additive bias in each text cross-attention (-inf cannot be encoded
in extra channels of q and k, kernels without a mask don't support it, and a copy to keep the unconditional half free of
a mask would cost more); building the biases for each grid, dominated by the finest; and gathering rows to fill the area
that the shift uncovers. The rest is the same in both loops: doubling the batch, guidance and the scheduler.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import UNet3DConditionModel
from motionbooth.bench.diffusers_loops import unet_steps
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.bench.real_size import Step, busy_plan, our_steps, random_step
from motionbooth.control.boxes import Grid
from motionbooth.models.unet_base import use_channels_last
from torch import Tensor

from motionbooth_lab.bench.memory import peak_bytes
from motionbooth_lab.bench.midsize import FRAMES, TEXT_WIDTH, midsize_base, midsize_unet

LATENTS: Grid = (20, 36)
"""A quarter of the number of Zeroscope's cells."""

Work = Callable[[], Any]


def bench_sampling(latent_size: Grid, rounds: int) -> BenchResult:
    """Time `rounds` steps of each kind in turn, after a warm-up step. The ratios are medians over the rounds.

    Runs on one thread and counts CPU seconds, to be less sensitive to other load.
    """
    torch.set_num_threads(1)
    base, plain = midsize_base(latent_size), midsize_unet()
    theirs = in_channels_last(plain)
    step, plan = random_step(latent_size, FRAMES, TEXT_WIDTH), busy_plan(latent_size, FRAMES)
    scheduler = base.scheduler
    works: dict[str, Work] = {
        "ours": lambda: our_steps(base, step, [plan]),
        "theirs": lambda: unet_steps(theirs, scheduler, step, 1),
        "unet": lambda: bare_unet(theirs, step),
        "plain": lambda: unet_steps(plain, scheduler, step, 1),
    }
    seconds = alternate(works, rounds)
    # Two steps each: in the second one the biases of the first are still allocated.
    memory = peak_bytes(lambda: our_steps(base, step, [plan] * 2)) / peak_bytes(
        lambda: unet_steps(theirs, scheduler, step, 2)
    )
    return BenchResult(
        "sampling",
        [
            Measure("step_ratio", median_ratio(seconds, "ours", "theirs"), "ours / diffusers'"),
            Measure("step_memory_ratio", memory, "ours / diffusers'"),
            Measure("unet_ratio", median_ratio(seconds, "ours", "unet"), "ours / the bare UNet"),
            Measure("channels_last_gain", median_ratio(seconds, "plain", "theirs"), "plain layout / channels last"),
            Measure("step_seconds", statistics.median(seconds["ours"]), "CPU s"),
            Measure("diffusers_step_seconds", statistics.median(seconds["theirs"]), "CPU s"),
            Measure("latent_cells", latent_size[0] * latent_size[1], "of a frame"),
        ],
    )


# The loops


@torch.no_grad()
def bare_unet(unet: UNet3DConditionModel, step: Step) -> Tensor:
    """Only the UNet call, for the conditional and unconditional half."""
    text = torch.cat([step.unconditional, step.conditional])
    return unet(torch.cat([step.latents] * 2), torch.tensor(1), text).sample


def alternate(works: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each function in each round. Every other round runs them in the opposite order."""
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds):
        for name in sorted(works, reverse=bool(number % 2)):
            started = time.process_time()
            works[name]()
            seconds[name].append(time.process_time() - started)
    return seconds


def median_ratio(seconds: dict[str, list[float]], over: str, under: str) -> float:
    """Median of the ratios of each round: a temporary slowdown affects both sides of a round."""
    return statistics.median(a / b for a, b in zip(seconds[over], seconds[under], strict=True))


def in_channels_last(unet: UNet3DConditionModel) -> UNet3DConditionModel:
    """A copy of the UNet in the faster channels_last layout."""
    other = copy.deepcopy(unet)
    use_channels_last(other)
    return other
