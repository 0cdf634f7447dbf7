"""`motionbooth bench real-size --model wan-1.3b`: run Wan 2.1 T2V 1.3B's transformer on a CPU with 24 GB of memory.

The weights (1.4 billion) and the input are random; nothing is downloaded. The frame is 832 x 480 pixels. The bench
takes one controlled denoising step and one training step of a LoRA, as bench real-size does, both in bfloat16, as bench
gpu does. The text encoder and the VAE, which run before and after, are left out.
"""

from __future__ import annotations

import torch
from rich.progress import Progress

from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.bench.random_wan import LATENTS, PUBLISHED, TOKENS, controlled_steps, random_network, random_wan
from motionbooth.bench.real_size import free_large_blocks, lora_trainer, peak_gb, random_text, seconds_of
from motionbooth.finetuning.trainer import StepLosses
from motionbooth.models.wan.base import WanBase


def bench_real_wan(frames: int) -> BenchResult:
    """Run the bench with clips of this many frames, 1 + a multiple of 4. Torch chooses the number of threads."""
    free_large_blocks()
    with Progress(transient=True) as progress:
        stage = progress.add_task("creating random weights", total=3)
        base = random_wan(random_network(torch.bfloat16, **PUBLISHED), LATENTS, frames)
        loaded = peak_gb()
        progress.update(stage, advance=1, description="denoising step")
        sampling = seconds_of(lambda: controlled_steps(base, 1))
        sampled = peak_gb()
        progress.update(stage, advance=1, description="training step")
        training = seconds_of(lambda: training_step(base))
    return BenchResult(
        "real-size-wan-1.3b",
        [
            Measure("weights_peak_gb", loaded, "GB"),
            Measure("sampling_peak_gb", sampled, "GB"),
            Measure("peak_gb", peak_gb(), "GB"),
            Measure("sampling_step_seconds", sampling, "s"),
            Measure("training_step_seconds", training, "s"),
            Measure("frames", frames, "per clip"),
        ],
    )


def training_step(base: WanBase) -> StepLosses:
    """A step of a LoRA, with a text of Wan's length."""
    text = random_text(TOKENS.length, base.network.config.text_dim)
    trainer = lora_trainer(base, text, TOKENS.subjects[0])
    with torch.autocast("cpu", torch.bfloat16):  # the trainer itself uses it on a GPU only
        return trainer.take_step()
