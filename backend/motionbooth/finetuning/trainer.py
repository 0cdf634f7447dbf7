"""The training loop: pictures with the region and attention losses, then clips with the prior-preservation loss."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from diffusers.training_utils import EMAModel
from motionbooth_protocol.errors import InvalidInput, JobFailed
from msgspec import Struct, structs
from torch import Tensor, nn

from motionbooth.control.boxes import BoxControl
from motionbooth.finetuning.dataset import TrainingData
from motionbooth.finetuning.losses import (
    mask_cells,
    prior_loss,
    stca_loss,
    subject_attention,
    subject_region_loss,
)
from motionbooth.generation.sampling import shared_noise
from motionbooth.models.base import Base, NoisyBatch
from motionbooth.models.settings import TrainSettings

_log = logging.getLogger("motionbooth.jobs")
PHASES = 2  # each step averages the gradients of pictures and of clips


class StepLosses(Struct, frozen=True):
    """The losses of one optimizer step."""

    total: float
    """The weighted sum that is minimized."""
    region: float
    """The picture loss, unweighted, like the following."""
    attention: float | None = None
    """The STCA loss; None if the step had none."""
    preservation: float | None = None
    """The prior-preservation loss; None if the step had none."""


class OnTrainingStep(Protocol):
    def __call__(self, step: int, steps: int, losses: StepLosses) -> None:
        """`step` of `steps` are done. An exception that it raises ends the training; its last checkpoint stays."""


@dataclass(frozen=True)
class Loss:
    """The loss of one batch."""

    total: Tensor
    """The weighted sum, with gradients."""
    parts: dict[str, Tensor]
    """Its unweighted terms without gradients, named as in StepLosses."""


def image_loss(
    base: Base,
    settings: TrainSettings,
    noisy: NoisyBatch,
    text: Tensor,
    masks: Tensor,
    positions: Sequence[int] | Tensor,
    edited: int = 0,
) -> Loss:
    """Region loss and STCA loss of one batch of pictures (F = 1) with masks (B, 1, H, W).

    text (B, tokens, D), or (1, tokens, D) for all. `positions`: the subject's tokens (B, k), or (k) or (1, k) for all.
    The first `edited` pictures have no STCA loss.
    """
    has_stca = settings.stca_weight > 0 and edited < len(masks)
    latent_size = (noisy.sample.shape[-2], noisy.sample.shape[-1])
    grid = base.attention_grid(latent_size)
    if has_stca:
        base.control.record(positions, grid)
    with autocast(base, settings):
        predicted = base.network(noisy.sample, noisy.times, text.expand(len(masks), -1, -1)).sample.to(noisy.target)
    layers = base.control.stop_recording()
    if settings.loss_region == "subject":
        grow = settings.pasting.grow_cells if settings.pasting else 0
        region = subject_region_loss(predicted, noisy.target, mask_cells(masks, latent_size, grow))
    else:
        region = F.mse_loss(predicted, noisy.target)
    total, parts = settings.subject_weight * region, {"region": region.detach()}
    if has_stca:
        attention = subject_attention(layers, settings.stca_reduce).to(noisy.target)
        loss = stca_loss(attention[edited:], masks[edited:], grid)
        total, parts = total + settings.stca_weight * loss, {**parts, "attention": loss.detach()}
    return Loss(total, parts)


def clip_loss(base: Base, settings: TrainSettings, noisy: NoisyBatch, text: Tensor) -> Loss:
    """Prior-preservation loss of a batch of clips; text (B, tokens, D)."""
    with autocast(base, settings):
        predicted = base.network(noisy.sample, noisy.times, text).sample.to(noisy.target)
    loss = prior_loss(predicted, noisy.target)
    return Loss(settings.prior_loss_weight * loss, {"preservation": loss.detach()})


def learning_rate(settings: TrainSettings, step: int) -> float:
    """The learning rate of a step, counted from 0."""
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    done = step / settings.steps if settings.lr_schedule == "cosine" else 0.0
    return settings.learning_rate * rise * (0.5 + 0.5 * math.cos(math.pi * done))


def autocast(base: Base, settings: TrainSettings) -> AbstractContextManager[Any]:
    """The context of the network's computation: `settings.precision` on a GPU, the weights' own precision on a CPU.

    The losses are computed outside of it, in full precision.
    """
    if base.device.type in ("cpu", "meta") or settings.precision == "float32":
        return nullcontext()
    return torch.autocast(base.device.type, getattr(torch, settings.precision))


def adamw(weights: list[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimizer of `settings`. Raises InvalidInput if it is not installed."""
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adamw":
        # Fused: one pass over the weights instead of a dozen, without copies of them.
        return torch.optim.AdamW(weights, rate, eps=1e-8, weight_decay=decay, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise InvalidInput(
            "AdamW in 8 bits needs the package bitsandbytes, which is not installed. Install it, or train with the "
            "optimizer adamw."
        ) from error
    return AdamW8bit(weights, rate, eps=1e-8, weight_decay=decay)


class Trainer:
    """One subject's training, step by step; its state can be saved between any two steps.

    All randomness comes from one generator on the CPU, so an interrupted and resumed training ends with the same
    weights. The network stays in eval mode: its temporal dropout would draw from another generator.
    """

    def __init__(self, base: Base, settings: TrainSettings, data: TrainingData, seed: int) -> None:
        self.base, self.settings, self.data = base, settings, data
        self.step = 0
        self.history: list[StepLosses] = []
        self._generator = torch.Generator().manual_seed(seed)
        self._trainable: dict[str, nn.Parameter] = {
            name: parameter for name, parameter in base.network.named_parameters() if parameter.requires_grad
        }
        self._optimizer = adamw(list(self._trainable.values()), settings)
        self._ema = EMAModel(self._trainable.values(), settings.ema_decay) if settings.ema_decay else None
        # Float16 gradients are scaled up so that small ones do not underflow; disabled in other precisions.
        on_gpu = base.device.type != "cpu"
        self._scaler = torch.amp.GradScaler(base.device.type, enabled=on_gpu and settings.precision == "float16")

    def take_step(self) -> StepLosses:
        """One optimizer step. Returns its losses, averaged over its batches. Raises JobFailed for no number."""
        share = PHASES * self.settings.gradient_accumulation
        total, parts = 0.0, {"region": 0.0}
        for loss in self._losses():
            self._scaler.scale(loss.total / share).backward()
            total += loss.total.item() / share
            for name, part in loss.parts.items():
                parts[name] = parts.get(name, 0.0) + part.item() / self.settings.gradient_accumulation
        if not math.isfinite(total) and not self._scaler.is_enabled():  # which leaves such a step out
            raise JobFailed(
                "The loss is not a number in step {step} of the training. Train again with a lower learning rate.",
                step=self.step + 1,
            )
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self.settings, self.step)
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self._trainable.values(), self.settings.max_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        if self._ema is not None:
            self._ema.step(self._trainable.values())
        self.step += 1
        self.history.append(StepLosses(total, **parts))
        return self.history[-1]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """A context in which the network has the averaged weights, if TrainSettings.ema_decay asks for them."""
        if self._ema is None:
            yield
            return
        self._ema.store(self._trainable.values())
        self._ema.copy_to(self._trainable.values())
        try:
            yield
        finally:
            self._ema.restore(self._trainable.values())

    def _losses(self) -> Iterator[Loss]:
        """Lazily, so that one graph is freed before the next is built."""
        for _ in range(self.settings.gradient_accumulation):
            yield self._picture_loss()
            self.base.control.clear()  # only now: gradient checkpointing may have recomputed layers with the edit
            if len(self.data.clips):
                yield self._clip_loss()

    def _picture_loss(self) -> Loss:
        data, settings = self.data, self.settings
        chosen = self._permutation(len(data.mean))[: settings.image_batch]
        latents = data.mean[chosen] + data.std[chosen] * self._normal(data.mean[chosen].shape)
        noisy = self._at_random_times(latents, self._normal(latents.shape))
        text = data.text if len(data.text) == 1 else data.text[chosen]
        positions = data.positions if len(data.positions) == 1 else data.positions[chosen]
        edited = self._edit_attention(noisy, chosen)
        return image_loss(self.base, settings, noisy, text, data.masks[chosen], positions, edited)

    def _edit_attention(self, noisy: NoisyBatch, chosen: Tensor) -> int:
        """Edit the attention of a batch's first pictures to their own boxes, as sampling does. Returns their number."""
        pasting, control = self.settings.pasting, self.base.settings.control
        edited = round(pasting.box_share * len(chosen)) if pasting else 0
        if edited:
            count = self.base.scheduler.config.num_train_timesteps
            amplified = noisy.times >= (1 - control.amplify_until) * count
            controls: list[BoxControl | None] = [None] * len(chosen)
            for row in range(edited):
                controls[row] = replace(self.data.edits[int(chosen[row])], amplify=bool(amplified[row]))
            self.base.control.set_boxes(controls, (noisy.sample.shape[-2], noisy.sample.shape[-1]), frames=1)
        return edited

    def _clip_loss(self) -> Loss:
        data = self.data
        # Single pictures of the class come in batches as large as the subject's own.
        batch = self.settings.image_batch if data.clips.shape[2] == 1 else 1
        chosen = self._permutation(len(data.clips))[:batch]
        noise = shared_noise(data.clips[chosen].shape, self.base.settings.shared_noise, self._generator)
        noisy = self._at_random_times(data.clips[chosen], noise.to(data.clips))
        return clip_loss(self.base, self.settings, noisy, data.clip_text[chosen])

    def _at_random_times(self, latents: Tensor, noise: Tensor) -> NoisyBatch:
        return self.base.add_noise(latents, noise, self.base.random_times(len(latents), self._generator))

    def _normal(self, shape: torch.Size) -> Tensor:
        return torch.randn(shape, generator=self._generator).to(self.data.mean)

    def _permutation(self, count: int) -> Tensor:
        return torch.randperm(count, generator=self._generator).to(self.data.mean.device)

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on, atomically. Raises OSError."""
        state = {
            "step": self.step,
            "history": [structs.astuple(losses) for losses in self.history],
            "trainable": {name: parameter.detach() for name, parameter in self._trainable.items()},
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "generator": self._generator.get_state(),
            "ema": None if self._ema is None else self._ema.state_dict(),
        }
        scratch = path.with_name(path.name + ".part")
        try:
            with scratch.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())  # before the last checkpoint is replaced: the power may fail
            scratch.replace(path)
        except RuntimeError as error:  # torch's own, while it handles the file's
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
        finally:
            scratch.unlink(missing_ok=True)

    def load(self, path: Path) -> bool:
        """Restore what `save` wrote. Returns False, and changes nothing, if the file is corrupt."""
        with path.open("rb") as file:
            try:
                state: dict[str, Any] = torch.load(file, map_location=self.base.device, weights_only=True)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception:  # a corrupt file makes torch raise almost anything: OSError, KeyError, UnicodeDecodeError
                return False
        with torch.no_grad():
            for name, value in state["trainable"].items():
                self._trainable[name].copy_(value)
        moments: dict[str, Any] = next(iter(state["optimizer"]["state"].values()), {})
        if ("exp_avg" in moments) == (self.settings.optimizer == "adamw"):
            self._optimizer.load_state_dict(state["optimizer"])
        else:  # the memory plan is another one than before, and so is the optimizer: its moments begin anew
            _log.warning("The checkpoint is of another optimizer than %s, which starts anew.", self.settings.optimizer)
        if state["scaler"]:  # none from a CPU
            self._scaler.load_state_dict(state["scaler"])
        self._generator.set_state(state["generator"].cpu())
        if self._ema is not None:
            self._ema.load_state_dict(state["ema"])
        self.history = [StepLosses(*losses) for losses in state["history"]]
        self.step = state["step"]
        return True


def train(trainer: Trainer, checkpoint: Path, on_step: OnTrainingStep) -> None:
    """Train to the last step, resuming from `checkpoint` if there is one, and saving to it on the way."""
    settings = trainer.settings
    if checkpoint.exists() and not trainer.load(checkpoint):
        checkpoint.replace(checkpoint.with_suffix(".damaged"))  # it may be hours of work: delete nothing
    while trainer.step < settings.steps:
        losses = trainer.take_step()
        if trainer.step % settings.checkpoint_every == 0 and trainer.step < settings.steps:
            trainer.save(checkpoint)
        on_step(trainer.step, settings.steps, losses)
