"""Learning a subject: pictures under the region and attention losses, ordinary clips under the preservation loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

from ..control.boxes import level_grids
from ..models.registry import Base
from ..models.settings import TrainSettings
from ..sampling import shared_noise
from .dataset import SubjectData
from .losses import mask_cells, preservation_loss, stca_loss, subject_attention, subject_region_loss

ACCUMULATED = 2  # one optimiser step = one image batch + one clip, their gradients averaged


class OnLoss(Protocol):
    def __call__(self, step: int, steps: int, note: str) -> None: ...


@dataclass(frozen=True)
class Noisy:
    """Latents at random times: what the UNet is given, (B, C, F, h, w), and what it should answer."""

    sample: Tensor
    timesteps: Tensor
    target: Tensor


def add_noise(schedule: DDPMScheduler, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Noisy:
    """Forward diffusion, with the target that this base predicts: the noise, or the velocity."""
    sample = schedule.add_noise(latents, noise, timesteps)
    if schedule.config.prediction_type == "v_prediction":
        return Noisy(sample, timesteps, schedule.get_velocity(latents, noise, timesteps))
    return Noisy(sample, timesteps, noise)


def image_loss(
    base: Base, settings: TrainSettings, noisy: Noisy, text: Tensor, masks: Tensor, positions: tuple[int, ...]
) -> Tensor:
    """Subject region loss and STCA loss of one batch of pictures (F = 1) with masks (B, 1, H, W)."""
    latent_size = (noisy.sample.shape[-2], noisy.sample.shape[-1])
    grid = level_grids(latent_size, levels=3)[-1]  # two halvings: (H / 32, W / 32) where a cell is 8 pixels
    base.control.watch(positions, grid)
    predicted = base.unet(noisy.sample, noisy.timesteps, text.expand(len(masks), -1, -1)).sample
    attention = subject_attention(base.control.unwatch(), settings.stca_reduce)
    region = subject_region_loss(predicted, noisy.target, mask_cells(masks, latent_size))
    return settings.subject_weight * region + settings.stca_weight * stca_loss(attention, masks, grid)


def clip_loss(base: Base, settings: TrainSettings, noisy: Noisy, text: Tensor) -> Tensor:
    """Preservation loss of ordinary clips."""
    predicted = base.unet(noisy.sample, noisy.timesteps, text).sample
    return settings.preservation_weight * preservation_loss(predicted, noisy.target)


class Trainer:
    """One subject's training: takes a step at a time, and can be written down between any two of them.

    All chance comes from one generator on the CPU, so a run that was broken off and resumed ends with the same
    weights. The UNet stays in eval mode: its temporal dropout would draw from elsewhere.
    """

    def __init__(self, base: Base, settings: TrainSettings, data: SubjectData, seed: int) -> None:
        self.base, self.settings, self.data = base, settings, data
        self.step = 0
        self._schedule = DDPMScheduler.from_config(base.scheduler.config)
        self._generator = torch.Generator().manual_seed(seed)
        self._learned: dict[str, nn.Parameter] = {
            name: parameter for name, parameter in base.unet.named_parameters() if parameter.requires_grad
        }
        self._optimizer = torch.optim.AdamW(
            self._learned.values(), lr=settings.learning_rate, eps=1e-8, weight_decay=settings.weight_decay
        )

    def take_step(self) -> float:
        """One optimiser step. Returns the mean of the losses."""
        losses = [loss / ACCUMULATED for loss in self._backward_each()]
        nn.utils.clip_grad_norm_(self._learned.values(), self.settings.gradient_clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.step += 1
        return sum(losses)

    def _backward_each(self) -> Iterator[float]:
        for loss in self._losses():
            (loss / ACCUMULATED).backward()
            yield loss.item()

    def _losses(self) -> Iterator[Tensor]:
        """Lazily, so that one graph is freed before the next is made."""
        data, settings = self.data, self.settings
        chosen = self._permutation(len(data.mean))[: settings.image_batch]
        latents = data.mean[chosen] + data.std[chosen] * self._normal(data.mean[chosen].shape)
        noisy = self._at_random_times(latents, self._normal(latents.shape))
        yield image_loss(self.base, settings, noisy, data.text, data.masks[chosen], data.positions)
        if len(data.clips):
            chosen = self._permutation(len(data.clips))[:1]
            noise = shared_noise(data.clips[chosen].shape, self.base.settings.shared_noise, self._generator)
            noisy = self._at_random_times(data.clips[chosen], noise.to(data.clips))
            yield clip_loss(self.base, settings, noisy, data.clip_text[chosen])

    def _at_random_times(self, latents: Tensor, noise: Tensor) -> Noisy:
        count = self._schedule.config.num_train_timesteps
        timesteps = torch.randint(count, (len(latents),), generator=self._generator).to(latents.device)
        return add_noise(self._schedule, latents, noise, timesteps)

    def _normal(self, shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self.data.mean)

    def _permutation(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self._generator).to(self.data.mean.device)

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on, at once or not at all."""
        state = {
            "step": self.step,
            "learned": {name: parameter.detach() for name, parameter in self._learned.items()},
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
        }
        scratch = path.with_name(path.name + ".part")
        torch.save(state, scratch)
        scratch.replace(path)

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        state: dict[str, Any] = torch.load(path, map_location=self.base.device, weights_only=True)
        with torch.no_grad():
            for name, value in state["learned"].items():
                self._learned[name].copy_(value)
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"].cpu())
        self.step = state["step"]


def learn(trainer: Trainer, checkpoint: Path, on_loss: OnLoss) -> None:
    """Train to the end, from `checkpoint` where there is one, and leave it behind while on the way."""
    settings = trainer.settings
    if checkpoint.exists():
        trainer.load(checkpoint)
    while trainer.step < settings.steps:
        loss = trainer.take_step()
        if trainer.step % settings.checkpoint_every == 0 and trainer.step < settings.steps:
            trainer.save(checkpoint)
        on_loss(trainer.step, settings.steps, f"loss {loss:.3f}")
