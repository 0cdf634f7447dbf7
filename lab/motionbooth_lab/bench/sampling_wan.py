"""`motionbooth bench sampling --model wan`: what control adds to a denoising step of Wan.

As bench sampling, on a random transformer of medium width and Wan's own 512 text tokens, against the step of diffusers'
WanPipeline. The overhead of control is the bias of every token of the clip to every token of the text, which is built
in each measured step because the boxes move, and a gather of the latents and of what UniPC remembers.

`unipc_shift_cosine` compares two clips of the bundled model with the same pan, boxes and seed, one sampled by UniPC and
one by Euler: the cosine of their latents, a mean over SEEDS.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from motionbooth.bench.diffusers_loops import wan_steps
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.bench.random_wan import busy_wan_plan, random_network, random_wan, wan_sampler, wan_step
from motionbooth.bench.real_size import our_steps
from motionbooth.control.boxes import Grid
from motionbooth.generation.sampling import SamplingInputs, denoise, plan_shot
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import source_named
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack

from motionbooth_lab.bench.memory import peak_bytes
from motionbooth_lab.bench.sampling import alternate, median_ratio

MIDSIZE = {"num_attention_heads": 8, "attention_head_dim": 128, "text_dim": 512, "ffn_dim": 5968, "num_layers": 4}
"""Two thirds of the 1.3B's width, and its proportions."""
LATENTS: Grid = (18, 36)
FRAMES = 17
SEEDS = range(3)


def bench_sampling_wan(latent_size: Grid, rounds: int) -> BenchResult:
    """Time `rounds` steps of each kind in turn, after a warm-up step. The ratios are medians over the rounds."""
    torch.set_num_threads(1)
    base, plain = random_wan(random_network(**MIDSIZE), latent_size, FRAMES), random_network(**MIDSIZE)
    step, plan = wan_step(base), busy_wan_plan(latent_size, FRAMES)
    seconds = alternate(
        {"ours": lambda: our_steps(base, step, [plan]), "theirs": lambda: wan_steps(plain, step, 1)}, rounds
    )
    # Two steps each: in the second one the bias of the first is still allocated, and UniPC remembers.
    memory = peak_bytes(lambda: our_steps(base, step, [plan] * 2)) / peak_bytes(lambda: wan_steps(plain, step, 2))
    return BenchResult(
        "sampling-wan",
        [
            Measure("step_ratio", median_ratio(seconds, "ours", "theirs"), "ours / WanPipeline's"),
            Measure("step_memory_ratio", memory, "ours / WanPipeline's"),
            Measure("step_seconds", statistics.median(seconds["ours"]), "CPU s"),
            Measure("pipeline_step_seconds", statistics.median(seconds["theirs"]), "CPU s"),
            Measure("unipc_shift_cosine", unipc_shift_cosine(load_base(source_named("wantoy"), "cpu")), "-1..1"),
            Measure("latent_cells", latent_size[0] * latent_size[1], "of a frame"),
        ],
    )


def unipc_shift_cosine(base: Base) -> float:
    """How alike the latents of a panning clip are under UniPC and under Euler."""
    shift = base.scheduler.config.get("shift") or base.scheduler.config.get("flow_shift")
    unipc = wan_sampler()
    unipc.register_to_config(flow_shift=shift)
    samplers: list[Any] = [FlowMatchEulerDiscreteScheduler(shift=shift), unipc]
    frames = base.settings.frames
    track = SubjectTrack("dog", "dog", [Box(0.3, 0.3, 0.7, 0.8)] * frames)
    shot = Shot("pan", 1, 24, 24, 96, 64, CameraPath.straight(0.3, 0, frames), [track])
    spec = GenerateSpec(shot, "a red dog on the grass", model=base.source.name)
    cosines = []
    for seed in SEEDS:
        ends = []
        for base.scheduler in samplers:
            inputs = SamplingInputs.from_prompts(base, [spec.prompt], [""], [seed], plan_shot(base, spec))
            ends.append(denoise(base, inputs).flatten())
        cosines.append(float(torch.cosine_similarity(ends[0], ends[1], dim=0)))
    return statistics.mean(cosines)
