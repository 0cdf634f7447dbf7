"""`motionbooth bench training --model wan`: the time and memory that fine-tuning needs beyond the plain transformer.

As bench training, on the random transformer of bench sampling: pictures (one latent frame each), then a clip of five
latent frames, as Wan's prior-preservation clips have.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from statistics import median

import msgspec
import torch
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.bench.random_wan import TOKENS, random_network, random_wan
from motionbooth.control.boxes import Grid
from motionbooth.finetuning.dataset import TrainingData
from motionbooth.finetuning.finetune import set_trainable
from motionbooth.finetuning.trainer import Trainer
from motionbooth.models.settings import TrainSettings
from motionbooth.models.wan.base import WanBase
from rich.progress import Progress

from motionbooth_lab.bench.memory import peak_bytes
from motionbooth_lab.bench.midsize import CELL_PX
from motionbooth_lab.bench.sampling import alternate, median_ratio
from motionbooth_lab.bench.sampling_wan import FRAMES, LATENTS, MIDSIZE
from motionbooth_lab.bench.training import Batches, forward_and_backward, in_fresh_process

PICTURES = 5

Network = Mapping[str, int]


def bench_training_wan(rounds: int, latent_size: Grid = LATENTS, network: Network = MIDSIZE) -> BenchResult:
    """Run the bench. Each round takes about a minute on one core."""
    torch.set_num_threads(1)
    trainer, plain = wan_trainer(network, "full", latent_size), random_network(**network)
    batches = random_batches(trainer.data)
    seconds = alternate({"ours": trainer.take_step, "theirs": partial(forward_and_backward, plain, batches)}, rounds)
    del trainer, plain
    with Progress(transient=True) as progress:
        progress.add_task("memory", total=None)
        full, lora = (
            in_fresh_process(peak_bytes, partial(two_steps, network, method, latent_size))
            for method in ("full", "lora")
        )
    return BenchResult(
        "training-wan",
        [
            Measure("iteration_ratio", median_ratio(seconds, "ours", "theirs"), "trainer / forward + backward alone"),
            Measure("lora_memory_ratio", lora / full, "LoRA + checkpointing / full"),
            Measure("trainer_seconds", median(seconds["ours"]), "CPU s"),
            Measure("baseline_seconds", median(seconds["theirs"]), "CPU s"),
            Measure("full_memory", full / 1e6, "MB"),
            Measure("lora_memory", lora / 1e6, "MB"),
            Measure("latent_cells", latent_size[0] * latent_size[1], "of a frame"),
        ],
    )


def wan_trainer(network: Network, method: str, latent_size: Grid) -> Trainer:
    """Wan's settings, but full fine-tuning keeps its activations, as a machine that can hold it would."""
    base = random_wan(random_network(**network), latent_size, FRAMES)
    settings = base.settings.lora if method == "lora" else without_checkpointing(base.settings.full)
    data = random_data(base)
    set_trainable(base, settings, method, seed=0)
    return Trainer(base, settings, data, seed=0)


def without_checkpointing(settings: TrainSettings) -> TrainSettings:
    return msgspec.structs.replace(settings, gradient_checkpointing=False)


def two_steps(network: Network, method: str, latent_size: Grid) -> None:
    """Two, because the optimizer allocates its state in the first one."""
    torch.set_num_threads(1)
    trainer = wan_trainer(network, method, latent_size)
    for _ in range(2):
        trainer.take_step()


def random_data(base: WanBase) -> TrainingData:
    """PICTURES pictures with a subject in the middle, and a clip."""
    generator = torch.Generator().manual_seed(0)
    channels, frames, height, width = base.latent_shape
    text = torch.randn(1, TOKENS.length, base.network.config.text_dim, generator=generator)
    masks = torch.zeros(PICTURES, 1, height * CELL_PX, width * CELL_PX)
    masks[..., height * 2 : height * 6, width * 2 : width * 6] = 1
    return TrainingData(
        mean=torch.randn(PICTURES, channels, 1, height, width, generator=generator),
        std=torch.full((PICTURES, channels, 1, height, width), 0.1),
        masks=masks,
        text=text,
        positions=TOKENS.subjects[0],
        clips=torch.randn(1, channels, frames, height, width, generator=generator),
        clip_text=text,
    )


def random_batches(data: TrainingData) -> Batches:
    """Of the trainer's sizes."""
    samples, texts = [data.mean, data.clips], [data.text.expand(PICTURES, -1, -1), data.clip_text]
    times = [torch.full((len(sample),), 600.0) for sample in samples]
    return Batches(samples, times, texts, [torch.randn_like(sample) for sample in samples])
