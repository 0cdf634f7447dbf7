"""The memory that a base model needs under each plan, and the first plan that fits, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.motion import Box
from torch import Tensor

from motionbooth.control.boxes import BoxControl
from motionbooth.control.prompt import PromptTokens
from motionbooth.models.base import TILE_PX, Base
from motionbooth.models.memory.configurations import PUBLISHED, Configs
from motionbooth.models.memory.dry_run import peak_of
from motionbooth.models.memory.moving import bytes_of, layers_of
from motionbooth.models.memory.plans import PLANS, Plan
from motionbooth.models.memory.quantizing import quantize
from motionbooth.models.parts import part_classes, read_json
from motionbooth.models.registry import family_of
from motionbooth.models.sources import MODELS, Source, source_named, sources
from motionbooth.models.unet_base import CLASSES
from motionbooth.models.wan.base import WanBase
from motionbooth.models.wan.folder import check_index

SPARE_SHARE, SPARE_BYTES = 0.08, 300_000_000
"""Of the free memory, left for what the estimate does not see: the kernels' workspaces and fragmentation."""

DRIVER_BYTES = 600_000_000
"""What the driver and torch's kernels take of a card before any tensor is on it."""


@dataclass(frozen=True)
class Estimate:
    """The peak of a job's tensors on the device under a plan, in bytes."""

    plan: Plan
    resident: int
    """Weights that are always there."""
    working: int
    """What the most demanding stage adds: the weights that come for it, and its activations."""

    @property
    def peak(self) -> int:
        return self.resident + self.working


def known_source(name: str) -> Source:
    """A model on this machine, or a published one that is not here. Raises NotFound."""
    if name in PUBLISHED and name not in sources():
        return Source(name, Path(), MODELS / f"{name}.json")
    return source_named(name)


def estimates(source: Source, dtype: torch.dtype | None = None, plans: Sequence[Plan] = PLANS) -> Iterator[Estimate]:
    """One for each plan, from the fastest to the smallest, computed as they are asked for.

    `dtype`: of the weights; by default half precision, as on a GPU. Raises InvalidInput if a configuration is missing.
    """
    configs = configs_of(source)
    family = family_of(configs)
    base: Base = family.without_weights(source, configs, dtype or family.half)
    decoding: dict[bool, int] = {}
    for plan in plans:
        base = base.arranged(plan)
        if plan.quantized:
            quantize(base.network, base.device)
        if plan.tiled not in decoding:
            decoding[plan.tiled] = decoding_bytes(base, plan.tiled)
        yield Estimate(plan, resident_bytes(base), _working_bytes(base, decoding[plan.tiled]))


def chosen_plan(source: Source, free: int | None, dtype: torch.dtype | None = None) -> Estimate:
    """The fastest plan that fits `free` bytes. Raises InvalidInput if none does."""
    smallest = None
    for smallest in estimates(source, dtype):
        if free is None or fits(smallest.peak, free):
            return smallest
    assert smallest is not None
    raise InvalidInput(
        "{model} needs {needed:.1f} GB of a card's memory even with the smallest memory plan ({plan}), and {free:.1f} "
        "GB are free. Use a smaller model, close other programs that use the card, or compute on the CPU "
        "(--device cpu).",
        model=source.settings.title,
        needed=needed_bytes(smallest.peak) / 1e9,
        plan=smallest.plan.name,
        free=free / 1e9 if free is not None else 0.0,
    )


def fit_line(source: Source, gigabytes: float) -> str:
    """How a model fits a card of so much memory, in one line. Raises InvalidInput if it does not."""
    found = chosen_plan(source, card_bytes(gigabytes))
    return (
        f"{source.settings.title} on a card with {gigabytes:g} GB generates with the memory plan {found.plan.name} "
        f"({found.plan.summary}), {found.peak / 1e9:.1f} GB at most."
    )


def card_bytes(gigabytes: float) -> int:
    """What is free on a card that is sold with so many GB: gibibytes, without the driver's own."""
    return max(0, int(gigabytes * 2**30) - DRIVER_BYTES)


def fits(peak: int, free: int) -> bool:
    return needed_bytes(peak) <= free


def needed_bytes(peak: int) -> float:
    """The free memory that a peak of tensors needs."""
    return peak / (1 - SPARE_SHARE) + SPARE_BYTES


def configs_of(source: Source) -> Configs:
    """The configuration of each part, from its folder or as published. Raises InvalidInput, as loading does."""
    if not source.present and source.name in PUBLISHED:
        return PUBLISHED[source.name]
    index = read_json(source.folder / "model_index.json")
    if family_of(index) is WanBase:
        check_index(source.folder, index)
    else:
        part_classes(source.folder, index, CLASSES)
    parts = [name for name in ("unet", "transformer", "transformer_2", "vae", "text_encoder") if index.get(name)]
    return {name: read_json(source.folder / name / "config.json") for name in parts if index[name][0]}


def resident_bytes(base: Base) -> int:
    """Bytes of the weights that are on the device all the time."""
    network = bytes_of(base.network)
    if base.plan.layers_visit:
        network -= sum(map(bytes_of, layers_of(base.network)))
    vae = 0 if base.plan.vae_visits else bytes_of(base.vae)
    return network + vae + (bytes_of(base.text_encoder) if base.plan.text == "device" else 0)


@torch.no_grad()
def _working_bytes(base: Base, decoding: int) -> int:
    """The most that one stage of a generate job adds to the resident weights. `base` is on "meta"."""
    text = bytes_of(base.text_encoder) if base.plan.text == "visit" else 0
    visitor = bytes_of(base.vae) if base.plan.vae_visits else 0
    return max(text, peak_of(lambda: denoise_once(base)), decoding + visitor)


def denoise_once(base: Base) -> None:
    """One guided prediction with a box, as in the first step of a shot."""
    device = base.device
    tokens, width = text_shape(base)
    latents = _latents(base, 1, *base.latent_shape)
    text = torch.zeros(2, 1, tokens, width, dtype=base.dtype, device=device)
    boxes = [[Box(0.3, 0.3, 0.7, 0.7)] * latents.shape[2]]
    control = BoxControl(boxes, PromptTokens(tokens, range(1, 9), ((2, 3),)), 1.0, True, base.settings.control.suppress)
    scale = max(base.settings.guidance_scale, 1.01)
    base.predict(latents, torch.tensor(500, device=device), text[0], text[1], scale, control)
    base.control.clear()


@torch.no_grad()
def decoding_bytes(base: Base, tiled: bool) -> int:
    """What decoding allocates: one frame, or one clip of a base that encodes several frames together.

    `tiled`: whether the VAE of `base` works in tiles.
    """
    channels, frames, height, width = base.latent_shape
    if base.temporal == 1:
        return peak_of(lambda: base.to_pixels(_latents(base, channels, 1, height, width)))
    side = TILE_PX // base.cell
    if not tiled or max(height, width) <= side:
        return peak_of(lambda: base.to_pixels(_latents(base, channels, frames, height, width)))
    # A dry run of all tiles would take a minute: one tile, the results of all (their overlaps double them at most),
    # and the clip that they are joined to.
    tile = peak_of(lambda: base.to_pixels(_latents(base, channels, frames, min(height, side), min(width, side))))
    clip = base.settings.frames * 3 * base.settings.height * base.settings.width * base.vae.dtype.itemsize
    return tile + 3 * clip


def _latents(base: Base, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=base.latent_dtype, device=base.device)


def text_shape(base: Base) -> tuple[int, int]:
    """Tokens of a prompt and width of their embeddings."""
    config = base.network.config
    words = getattr(base.text_encoder, "config", None)
    tokens = base.settings.max_sequence_length or getattr(words, "max_position_embeddings", None)
    return tokens or 512, config.text_dim if "text_dim" in config else config.cross_attention_dim
