"""`motionbooth bench real-size --model wan-1.3b`: one controlled denoising step of Wan 2.1 T2V 1.3B's transformer.

The weights (1.4 billion, float32) and the input are random; nothing is downloaded. The frame is 832 x 480 pixels. The
text encoder and the VAE, which run before and after, are left out.
"""

from __future__ import annotations

from rich.progress import Progress

from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.bench.random_wan import LATENTS, PUBLISHED, controlled_steps, random_network, random_wan
from motionbooth.bench.real_size import free_large_blocks, peak_gb, seconds_of


def bench_real_wan(frames: int) -> BenchResult:
    """Run the bench with clips of this many frames, 1 + a multiple of 4. Torch chooses the number of threads."""
    free_large_blocks()
    with Progress(transient=True) as progress:
        stage = progress.add_task("creating random weights", total=2)
        base = random_wan(random_network(**PUBLISHED), LATENTS, frames)
        loaded = peak_gb()
        progress.update(stage, advance=1, description="denoising step")
        sampling = seconds_of(lambda: controlled_steps(base, 1))
    return BenchResult(
        "real-size-wan-1.3b",
        [
            Measure("weights_peak_gb", loaded, "GB"),
            Measure("peak_gb", peak_gb(), "GB"),
            Measure("sampling_step_seconds", sampling, "s"),
            Measure("frames", frames, "per clip"),
        ],
    )
