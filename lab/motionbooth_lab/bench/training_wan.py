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
from motionbooth.bench.real_size import PICTURES, random_text, random_training_data
from motionbooth.control.boxes import Grid
from motionbooth.finetuning.dataset import TrainingData
from motionbooth.finetuning.trainable import set_trainable
from motionbooth.finetuning.trainer import Trainer
from motionbooth.models.settings import TrainSettings
from rich.progress import Progress

from motionbooth_lab.bench.memory import peak_bytes
from motionbooth_lab.bench.sampling import alternate, median_ratio
from motionbooth_lab.bench.sampling_wan import FRAMES, LATENTS, MIDSIZE
from motionbooth_lab.bench.training import Batches, forward_and_backward, in_fresh_process

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
    data = random_training_data(base, random_text(TOKENS.length, base.network.config.text_dim), TOKENS.subjects[0])
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


def random_batches(data: TrainingData) -> Batches:
    """Of the trainer's sizes."""
    samples, texts = [data.mean, data.clips], [data.text.expand(PICTURES, -1, -1), data.clip_text]
    times = [torch.full((len(sample),), 600.0) for sample in samples]
    return Batches(samples, times, texts, [torch.randn_like(sample) for sample in samples])
