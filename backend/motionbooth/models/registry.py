"""Loads a base model of either family from its diffusers folder."""

from __future__ import annotations

import torch

from motionbooth.models.base import Base
from motionbooth.models.parts import read_json
from motionbooth.models.sources import Source
from motionbooth.models.unet_base import UNetBase
from motionbooth.models.wan.base import WanBase


def load_base(
    source: Source, device: str | None = None, dtype: torch.dtype | None = None, *, training: bool = False
) -> Base:
    """Load all parts; by default in half precision on the GPU if there is one, otherwise in float32 on the CPU.

    `training`: in float32, as half precision would lose steps of the size that training takes; but on a GPU the text
    encoder, which is not trained and may be larger than the network, in half precision. Raises InvalidInput if the
    folder is not a base model, or if a file is missing or corrupt.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu" and source.settings.cpu_threads:
        torch.set_num_threads(source.settings.cpu_threads)
    index = read_json(source.folder / "model_index.json")
    family: type[UNetBase | WanBase] = WanBase if "transformer" in index else UNetBase
    default = family.half if device.startswith("cuda") else torch.float32
    if training:
        return family.load(source, index, device, torch.float32, default)
    return family.load(source, index, device, dtype or default, dtype or default)
