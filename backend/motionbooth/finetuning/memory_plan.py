"""Memory plans of a training, from the fastest to the smallest, and the first that fits a card, before loading."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec

import msgspec
import torch
from motionbooth_protocol.errors import InvalidInput

from motionbooth.finetuning.trainable import set_trainable
from motionbooth.finetuning.trainer import clip_loss, image_loss
from motionbooth.models.base import Base, NoisyBatch
from motionbooth.models.memory.device import free_bytes
from motionbooth.models.memory.dry_run import peak_of
from motionbooth.models.memory.estimate import (
    card_bytes,
    configs_of,
    decoding_bytes,
    denoise_once,
    fits,
    needed_bytes,
    resident_bytes,
    text_shape,
)
from motionbooth.models.memory.moving import bytes_of, cast_weights
from motionbooth.models.memory.options import can_quantize, check_can_quantize
from motionbooth.models.memory.plans import ALL, Plan
from motionbooth.models.memory.quantizing import quantize
from motionbooth.models.registry import family_of
from motionbooth.models.settings import TrainSettings
from motionbooth.models.sources import Source


@dataclass(frozen=True)
class TrainingPlan:
    """Where the parts are during a training, and what it does to need less."""

    name: str
    summary: str
    """For people."""
    parts: Plan
    checkpointing: bool = False
    """Activations are computed again in the backward pass, and samples are decoded in tiles."""
    half: bool = False
    """The network's weights that are not trained are in half precision: for a LoRA."""
    eight_bit: bool = False
    """AdamW keeps its moments in 8 bits, with bitsandbytes: for full fine-tuning, where they are most of the memory."""

    def applied_to(self, settings: TrainSettings) -> TrainSettings:
        return msgspec.structs.replace(
            settings,
            gradient_checkpointing=settings.gradient_checkpointing or self.checkpointing,
            optimizer="adamw8bit" if self.eight_bit else settings.optimizer,
        )

    @property
    def quantized(self) -> bool:
        """The frozen weights of the network's layers are in 8 bits: for a LoRA."""
        return self.parts.quantized


_AWAY = Plan("parked", "", text="visit", vae_visits=True)
_AWAY_ON_CPU = Plan("checkpointed", "", text="cpu", vae_visits=True, in_turn=True)
TRAINING_PLANS = (
    TrainingPlan("all", "all parts stay on the card", ALL),
    TrainingPlan("parked", "the text encoder and the autoencoder come to encode the pictures only", _AWAY),
    TrainingPlan("checkpointed", "gradient checkpointing, and the text encoder on the CPU", _AWAY_ON_CPU, True),
    TrainingPlan("half", "as checkpointed, and frozen weights in half precision", _AWAY_ON_CPU, True, half=True),
    TrainingPlan("8bit", "as checkpointed, and AdamW in 8 bits", _AWAY_ON_CPU, True, eight_bit=True),
    TrainingPlan(
        "quantized",
        "as half, and frozen weights in 8 bits, which changes them a little",
        replace(_AWAY_ON_CPU, name="quantized", quantized=True),
        True,
        half=True,
    ),
)


def plans_for(method: str, settings: TrainSettings) -> list[TrainingPlan]:
    """Those that make sense for "lora" or "full" and are possible here."""
    halves = method == "lora" and settings.precision != "float32"
    eights = method == "full" and find_spec("bitsandbytes") is not None
    possible = [plan for plan in TRAINING_PLANS if (not plan.half or halves) and (not plan.eight_bit or eights)]
    return [plan for plan in possible if not plan.quantized or can_quantize()]


def training_plan(
    source: Source, settings: TrainSettings, method: str, device: str, memory: str = "auto"
) -> TrainingPlan:
    """The plan of this name, or the fastest that fits the device; on a CPU, "all". Raises InvalidInput."""
    possible = plans_for(method, settings)
    if memory == "quantized":
        check_can_quantize()
    if memory != "auto":
        for plan in possible:
            if plan.name == memory:
                return plan
        raise InvalidInput(
            "The memory plan {plan} is not possible for this training, only: {plans}. 8bit is for full fine-tuning and "
            "needs the package bitsandbytes; half and quantized are for a LoRA.",
            plan=memory,
            plans=", ".join(plan.name for plan in possible),
        )
    free = free_bytes(device)
    return TRAINING_PLANS[0] if free is None else chosen_training_plan(source, settings, method, free)[0]


def smaller_training_plan(plan: TrainingPlan, method: str, settings: TrainSettings, device: str) -> TrainingPlan | None:
    """The next plan, from whose checkpoints a training can go on; None after the smallest.

    On the CPU, where all parts are in main memory anyway, only gradient checkpointing saves memory.
    """
    possible = [each for each in plans_for(method, settings) if each.eight_bit == plan.eight_bit]
    later = possible[possible.index(plan) + 1 :]
    if device == "cpu":
        later = [each for each in later if each.checkpointing and not plan.checkpointing]
    return later[0] if later else None


def training_fit_line(source: Source, gigabytes: float) -> str:
    """How training by the model's own method fits a card of so much memory, in one line."""
    settings = source.settings.lora if source.settings.method == "lora" else source.settings.full
    try:
        plan, peak = chosen_training_plan(source, settings, source.settings.method, card_bytes(gigabytes))
    except InvalidInput as error:
        return str(error)
    return f"Trains with the memory plan {plan.name} ({plan.summary}), {peak / 1e9:.1f} GB at most."


def chosen_training_plan(source: Source, settings: TrainSettings, method: str, free: int) -> tuple[TrainingPlan, int]:
    """The fastest plan that fits `free` bytes, and its peak. Raises InvalidInput if none does."""
    plan, peak = TRAINING_PLANS[0], 0
    for plan, peak in training_peaks(source, settings, method):
        if fits(peak, free):
            return plan, peak
    raise InvalidInput(
        "Training on {model} needs {needed:.1f} GB of a card's memory even with the smallest memory plan ({plan}), and "
        "{free:.1f} GB are free. Train on a smaller model or a larger card.",
        model=source.settings.title,
        needed=needed_bytes(peak) / 1e9,
        plan=plan.name,
        free=free / 1e9,
    )


def training_peaks(source: Source, settings: TrainSettings, method: str) -> Iterator[tuple[TrainingPlan, int]]:
    """Each possible plan with the peak of its tensors on a GPU in bytes, computed as they are asked for."""
    configs = configs_of(source)
    half = getattr(torch, settings.precision)
    for plan in plans_for(method, settings):
        base: Base = family_of(configs).without_weights(source, configs, torch.float32)
        cast_weights(base.text_encoder, family_of(configs).half)
        if plan.half:
            cast_weights(base.network, half)
        base = base.arranged(plan.parts)
        if plan.quantized:
            quantize(base.network, base.device)
        yield plan, _peak(base, plan.applied_to(settings), method, plan.checkpointing)


def _peak(base: Base, settings: TrainSettings, method: str, tiled: bool) -> int:
    """The most that is on the device while texts and pictures are encoded, clips are generated, a step is taken, or a
    sample is decoded, `tiled` or not."""
    autocast = None if settings.precision == "float32" else getattr(torch, settings.precision)
    text = bytes_of(base.text_encoder) if base.plan.text == "visit" else 0
    vae = bytes_of(base.vae) if base.plan.vae_visits else 0
    clip = base.of_length(settings.clip_frames)
    with torch.no_grad():
        picture = torch.zeros(1, 3, base.settings.height, base.settings.width, device=base.device)
        encoding, denoising = peak_of(lambda: base.encode(picture)), peak_of(lambda: denoise_once(clip), autocast)
        before = resident_bytes(base) + max(text, encoding + vae, denoising)
        if tiled:
            base.tile_vae()
        sample = decoding_bytes(clip, tiled) + vae
    set_trainable(base, settings, method, seed=0)
    trained = [parameter for parameter in base.network.parameters() if parameter.requires_grad]
    weights = sum(parameter.nbytes for parameter in trained)
    moments = weights // 2 if settings.optimizer == "adamw8bit" else 2 * weights
    average = weights if settings.ema_decay else 0
    step = peak_of(lambda: _step(clip, settings), autocast)
    return max(before, resident_bytes(base) + moments + average + max(step, sample))


def _step(base: Base, settings: TrainSettings) -> None:
    """Both batches of a step, with gradients."""
    channels, frames, height, width = base.latent_shape
    tokens, depth = text_shape(base)
    text = torch.zeros(1, tokens, depth, device=base.device)
    masks = torch.zeros(settings.image_batch, 1, base.settings.height, base.settings.width, device=base.device)

    def noise(batch: int, length: int) -> NoisyBatch:
        latents = torch.zeros(batch, channels, length, height, width, device=base.device)
        return NoisyBatch(latents, torch.zeros(batch, device=base.device), torch.zeros_like(latents))

    pictures = image_loss(base, settings, noise(settings.image_batch, 1), text, masks, (2, 3)).total
    torch.autograd.backward(pictures)
    base.control.clear()
    if settings.prior_preservation != "nothing":
        del pictures
        torch.autograd.backward(clip_loss(base, settings, noise(1, frames), text).total)
