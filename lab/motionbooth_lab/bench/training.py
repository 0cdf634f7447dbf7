"""`motionbooth bench training`: the time and memory that fine-tuning needs beyond the plain network.

Iterations of our trainer and of the baseline alternate in one process with one thread; each ratio is the ratio of two
medians. Times are CPU seconds of the process, so other load doesn't count. Memory is torch's peak allocation for
tensors including weights, gradients and optimizer state, but without the kernels' scratch memory. This is the figure
that matters on a GPU. On a CPU, the C library's allocator keeps more.
"""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import median

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet3DConditionModel
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.control.boxes import Grid
from motionbooth.finetuning.dataset import encode_clips, encode_training_data
from motionbooth.finetuning.gradient_checkpointing import enable_gradient_checkpointing
from motionbooth.finetuning.trainer import Trainer
from motionbooth.models.base import Base
from motionbooth.models.settings import TrainSettings
from motionbooth.models.subject_weights import add_lora
from motionbooth.models.unet_base import use_channels_last
from motionbooth.pictures.images import TrainingPicture
from motionbooth_protocol.jobs import Picture, SubjectSpec
from rich.progress import Progress
from torch import Tensor

from motionbooth_lab.bench.memory import peak_bytes
from motionbooth_lab.bench.midsize import CELL_PX, FRAMES, TEXT_TOKENS, TEXT_WIDTH, midsize_base, midsize_unet

LATENTS: Grid = (20, 36)
"""A quarter of the number of Zeroscope's cells. 40 x 72 takes five times as long and more memory."""

PICTURES = 5
ASIDES, ASIDE_ROUNDS = ("recomputing", "plain_layout"), 3
"""Measured less often, because they take more than half of the time and have no target."""

SUBJECT = SubjectSpec("Rex", "sks", "dog", [Picture("0" * 64)])


@dataclass(frozen=True)
class Batches:
    """Input of the baseline: a batch of noisy pictures and a noisy clip, with timesteps, texts and targets."""

    samples: Sequence[Tensor]
    timesteps: Sequence[Tensor]
    texts: Sequence[Tensor]
    targets: Sequence[Tensor]


def bench_training(rounds: int, latent_size: Grid = LATENTS) -> BenchResult:
    """Run the bench. With the smaller latents each round takes about a minute and a half on one core."""
    with Progress(transient=True) as progress:
        bar = progress.add_task("training", total=rounds + 1)

        def done() -> None:
            progress.advance(bar)

        torch.set_num_threads(1)
        times = time_iterations(rounds, latent_size, done)
        full, lora = (in_fresh_process(peak_bytes, partial(train, latent_size)) for train in (train_full, train_lora))
    middle = {name: median(seconds) for name, seconds in times.items()}
    return BenchResult(
        "training",
        [
            Measure("iteration_ratio", middle["trainer"] / middle["baseline"], "trainer / forward + backward alone"),
            Measure("caching_gain", 1 + middle["encoding"] / middle["trainer"], "without cached encodings / with"),
            Measure("lora_memory_ratio", lora / full, "LoRA + checkpointing / full"),
            Measure("recomputing_ratio", middle["recomputing"] / middle["trainer"], "LoRA + checkpointing / full"),
            Measure("channels_last_gain", middle["plain_layout"] / middle["baseline"], "plain layout / channels last"),
            Measure("trainer_seconds", middle["trainer"], "CPU s"),
            Measure("baseline_seconds", middle["baseline"], "CPU s"),
            Measure("full_memory", full / 1e6, "MB"),
            Measure("lora_memory", lora / 1e6, "MB"),
            Measure("latent_cells", latent_size[0] * latent_size[1], "of a frame"),
        ],
    )


def time_iterations(rounds: int, latent_size: Grid, done: Callable[[], None]) -> dict[str, list[float]]:
    """CPU seconds of each kind of iteration over `rounds` alternating rounds, after a warm-up round."""
    trainer, lora = full_trainer(latent_size), lora_trainer(latent_size)
    plain, rearranged = midsize_unet(), midsize_unet()
    use_channels_last(rearranged)
    batches = random_batches(latent_size)
    pictures, clip = random_pictures(latent_size), random_pictures(latent_size, FRAMES)
    kinds: dict[str, Callable[[], object]] = {
        "trainer": trainer.take_step,
        "baseline": partial(forward_and_backward, rearranged, batches),
        "encoding": partial(encode_all, trainer.base, pictures, clip),
        "recomputing": lora.take_step,
        "plain_layout": partial(forward_and_backward, plain, batches),
    }
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds + 1):
        for kind, iterate in kinds.items():
            if kind in ASIDES and number > ASIDE_ROUNDS:
                continue
            started = time.process_time()
            iterate()
            if number > 0:
                times[kind].append(time.process_time() - started)
        done()
    return times


def forward_and_backward(unet: UNet3DConditionModel, batches: Batches) -> None:
    """The baseline: diffusers' own UNet on the same two batches with a mean squared error and gradients of all weights.

    There is no random noise, no mask, no attention loss and no optimizer.
    """
    unet.requires_grad_(True)
    for sample, timesteps, text, target in zip(
        batches.samples, batches.timesteps, batches.texts, batches.targets, strict=True
    ):
        F.mse_loss(unet(sample, timesteps, text).sample, target).backward()
    unet.zero_grad()


def encode_all(base: Base, pictures: Sequence[TrainingPicture], clip: Sequence[TrainingPicture]) -> None:
    """The extra work of an iteration without cached encodings: encode the pictures, the clip and both prompts."""
    encode_clips(base, np.stack([picture.rgb[None] for picture in pictures]))
    encode_clips(base, np.stack([frame.rgb[None] for frame in clip]))
    base.embed([SUBJECT.prompt])
    base.embed(["a cat sleeping on a sofa"])


def full_trainer(latent_size: Grid) -> Trainer:
    """Full fine-tuning with Zeroscope's settings."""
    base = midsize_base(latent_size)
    base.network.requires_grad_(True)
    return _trainer(base, base.settings.full, latent_size)


def lora_trainer(latent_size: Grid) -> Trainer:
    """A LoRA with gradient checkpointing, otherwise with Zeroscope's settings."""
    base = midsize_base(latent_size)
    settings = msgspec.structs.replace(base.settings.lora, gradient_checkpointing=True)
    add_lora(base.network, settings.rank, settings.target_modules, seed=0)
    enable_gradient_checkpointing(base.network, base.control)
    return _trainer(base, settings, latent_size)


def in_fresh_process(function: Callable[[Callable[[], None]], int], work: Callable[[], None]) -> int:
    """Call it in a new process, which shares no memory with this one."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, work).result()


def train_full(latent_size: Grid) -> None:
    """Two steps: the optimizer allocates its state in the first one."""
    _two_steps(full_trainer(latent_size))


def train_lora(latent_size: Grid) -> None:
    """Like `train_full`, for a LoRA with gradient checkpointing."""
    _two_steps(lora_trainer(latent_size))


def _two_steps(trainer: Trainer) -> None:
    torch.set_num_threads(1)
    for _ in range(2):
        trainer.take_step()


def _trainer(base: Base, settings: TrainSettings, latent_size: Grid) -> Trainer:
    clips = torch.randn(2, 4, FRAMES, *latent_size, generator=torch.Generator().manual_seed(0))
    captions = ["a cat sleeping on a sofa", "a boat sailing on a calm lake"]
    data = encode_training_data(base, SUBJECT, random_pictures(latent_size), clips, captions)
    return Trainer(base, settings, data, seed=0)


def random_pictures(latent_size: Grid, count: int = PICTURES) -> list[TrainingPicture]:
    """Pictures of noise with a subject in the middle."""
    height, width = latent_size[0] * CELL_PX, latent_size[1] * CELL_PX
    mask = np.zeros((height, width), np.float32)
    mask[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] = 1
    rng = np.random.default_rng(0)
    return [TrainingPicture(rng.integers(0, 256, (height, width, 3), np.uint8), mask) for _ in range(count)]


def random_batches(latent_size: Grid) -> Batches:
    """Batches of the trainer's sizes: PICTURES pictures, then one clip."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(PICTURES, 4, 1, *latent_size), (1, 4, FRAMES, *latent_size)]
    return Batches(
        [torch.randn(shape, generator=generator) for shape in shapes],
        [torch.randint(1000, shape[:1], generator=generator) for shape in shapes],
        [torch.randn(shape[0], TEXT_TOKENS, TEXT_WIDTH, generator=generator) for shape in shapes],
        [torch.randn(shape, generator=generator) for shape in shapes],
    )
