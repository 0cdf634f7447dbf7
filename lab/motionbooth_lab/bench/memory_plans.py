"""`motionbooth bench memory`: what each memory plan is predicted to need, and what it then needs, on a CPU.

The base is of medium size with random weights (midsize.py), written to disk and loaded under each plan as a job loads
it. The prediction is made before that, from the configurations alone.

The CPU stands for a card. Measured are the weights that the plan keeps on the device, summed over the loaded tensors,
and the peak of what torch's allocator hands out while a clip is generated: activations, and the copies of weights that
come for a moment, which the plan makes on a CPU, too. Not in it: what is not torch's (the kernels' own buffers, the
process), and what the host keeps for the device. `memory_plan_error` is the largest deviation, predicted / measured.

`offload_step_ratio` is a denoising step whose layers come one by one over the same step with all layers in place. Here
a layer comes by a copy within main memory; over a card's bus it takes longer, and the step itself is shorter.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import msgspec
import torch
from motionbooth.bench.gpu.precision import pan_spec
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.control.boxes import Grid
from motionbooth.generation.sampling import generate_clip
from motionbooth.models.base import Base
from motionbooth.models.memory.estimate import denoise_once, estimates, resident_bytes
from motionbooth.models.memory.plans import CHUNKED, OFFLOADED, Plan
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source
from motionbooth.models.unet_base import UNetBase
from rich.progress import Progress

from motionbooth_lab.bench.memory import peak_bytes
from motionbooth_lab.bench.midsize import midsize_base

LATENTS: Grid = (20, 36)
ROUNDS = 3


def bench_memory(latent_size: Grid = LATENTS) -> BenchResult:
    """Four plans on one thread."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="motionbooth-bench-") as folder, Progress(transient=True) as progress:
        stage = progress.add_task("writing random weights", total=None)
        source = save_base(midsize_base(latent_size), Path(folder))
        measures, ratios = [], []
        for estimate in estimates(source, torch.float32):
            plan = estimate.plan
            progress.update(stage, description=f"plan {plan.name}")
            measured = measured_peak(source, plan)
            ratios.append(estimate.peak / measured)
            measures += [
                Measure(f"{plan.name}_predicted_mb", estimate.peak / 1e6, "MB"),
                Measure(f"{plan.name}_measured_mb", measured / 1e6, "MB"),
            ]
        progress.update(stage, description="time of a step")
        ratio = offload_step_ratio(source)
    worst = max(ratios, key=lambda each: abs(each - 1))
    return BenchResult(
        "memory",
        [
            Measure("memory_plan_error", worst, "predicted / measured, farthest from 1"),
            Measure("offload_step_ratio", ratio, "offloaded / chunked, on this CPU"),
            *measures,
        ],
    )


def measured_peak(source: Source, plan: Plan) -> int:
    """Bytes on the device while a controlled clip of two steps is generated; see above."""
    base = load_base(source, "cpu", torch.float32, plan=plan)
    spec = msgspec.structs.replace(pan_spec(base.settings), num_inference_steps=2)
    return resident_bytes(base) + peak_bytes(lambda: generate_clip(base, spec))


def offload_step_ratio(source: Source) -> float:
    """Median over the rounds, of CPU seconds."""
    bases = [load_base(source, "cpu", torch.float32, plan=plan) for plan in (CHUNKED, OFFLOADED)]
    rounds = [[_cpu_seconds(base) for base in bases] for _ in range(ROUNDS)]
    return statistics.median(offloaded / chunked for chunked, offloaded in rounds)


@torch.no_grad()
def _cpu_seconds(base: Base) -> float:
    began = time.process_time()
    denoise_once(base)
    return time.process_time() - began


def save_base(base: UNetBase, folder: Path) -> Source:
    """Write a base as a diffusers folder."""
    parts = {"unet": base.network, "vae": base.vae, "text_encoder": base.text_encoder, "tokenizer": base.tokenizer}
    for name, part in {**parts, "scheduler": base.scheduler}.items():
        part.save_pretrained(folder / name)
    kinds = {name: ["diffusers", type(part).__name__] for name, part in parts.items()}
    kinds["tokenizer"] = ["transformers", "CLIPTokenizer"]
    (folder / "model_index.json").write_bytes(msgspec.json.encode(kinds))
    settings = folder / "motionbooth.json"
    settings.write_bytes(msgspec.json.encode(base.settings))
    return Source("midsize", folder, settings)
