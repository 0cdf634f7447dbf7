"""Checks of a Wan folder, so that another variant is refused with a sentence instead of a wrong clip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motionbooth_protocol.errors import InvalidInput

from motionbooth.models.base import Base

PIPELINE = "WanPipeline"


def check_index(folder: Path, index: Mapping[str, Any]) -> list[str]:
    """The names of the transformers, one or two. Raises InvalidInput for another variant, or a missing expert."""
    kind = index.get("_class_name")
    if kind != PIPELINE or index.get("expand_timesteps"):
        raise InvalidInput(
            "The base model in {folder} is a {found}, which starts from pictures or other videos. Only Wan's "
            "text-to-video models can be used: T2V 1.3B and 14B of Wan 2.1, T2V A14B of Wan 2.2.",
            folder=folder,
            found=kind if kind != PIPELINE else "TI2V model",
        )
    needed = ["transformer"] if index.get("boundary_ratio") is None else ["transformer", "transformer_2"]
    for name in needed:
        if not (folder / name / "config.json").is_file():
            raise InvalidInput(
                "The base model in {folder} lacks its {part}. Fetch the model again.", folder=folder, part=name
            )
    return needed


def check_network(folder: Path, network: Any, vae: Any) -> None:
    """Raises InvalidInput if the transformer takes a picture beside the noise, by its configuration and the VAE's."""
    if network.image_dim is not None or network.in_channels != vae.z_dim:
        raise InvalidInput(
            "The transformer in {folder} takes {found} channels instead of {expected}, or a picture: it is of an "
            "image-to-video model. Fetch one of Wan's text-to-video models.",
            folder=folder,
            found=network.in_channels,
            expected=vae.z_dim,
        )


def check_settings(base: Base) -> None:
    """Raises InvalidInput if the clips' frames or size do not fit the network's grid."""
    settings, side = base.settings, base.cell * base.patch
    for frames in (settings.frames, settings.lora.clip_frames or 1, settings.full.clip_frames or 1):
        _check_frames(base, frames)
    if settings.width % side or settings.height % side:
        raise InvalidInput(
            "{path} asks for {width} x {height} pixels, but the sizes of this model are multiples of {side}.",
            path=base.source.settings_file,
            width=settings.width,
            height=settings.height,
            side=side,
        )


def _check_frames(base: Base, frames: int) -> None:
    if (frames - 1) % base.temporal:
        raise InvalidInput(
            "{path} asks for {frames} frames, but this model generates 1 + a multiple of {group}: {lower} or {higher}.",
            path=base.source.settings_file,
            frames=frames,
            group=base.temporal,
            lower=(frames - 1) // base.temporal * base.temporal + 1,
            higher=((frames - 1) // base.temporal + 1) * base.temporal + 1,
        )
