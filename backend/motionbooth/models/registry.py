"""Loads a base model of either family from its diffusers folder."""

from __future__ import annotations

from collections.abc import Container

import torch

from motionbooth.models.base import Base
from motionbooth.models.memory.device import default_device
from motionbooth.models.memory.plans import ALL, Plan
from motionbooth.models.parts import read_json
from motionbooth.models.sources import Source
from motionbooth.models.unet_base import UNetBase
from motionbooth.models.wan.base import WanBase


def load_base(
    source: Source,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    *,
    training: bool = False,
    plan: Plan = ALL,
    network_dtype: torch.dtype = torch.float32,
) -> Base:
    """Load all parts; by default in half precision on the GPU if there is one, otherwise in float32 on the CPU.

    `plan` says which parts stay in main memory. Pass one that fits the device; see memory/estimate.py.

    `training`: in float32, as half precision would lose steps of the size that training takes; but on a GPU the text
    encoder, which is not trained and may be larger than the network, in half precision. `network_dtype`: then the
    network's, if only a LoRA is trained. Raises InvalidInput if the
    folder is not a base model, or if a file is missing or corrupt.
    """
    device = device or default_device()
    if device == "cpu" and source.settings.cpu_threads:
        torch.set_num_threads(source.settings.cpu_threads)
    index = read_json(source.folder / "model_index.json")
    family = family_of(index)
    default = default_dtype(family, device)
    if training:
        return family.load(source, index, device, torch.float32, default, plan, network_dtype)
    text_dtype = torch.bfloat16 if dtype == torch.float16 and family is WanBase else dtype  # UMT5 overflows in float16
    return family.load(source, index, device, dtype or default, text_dtype or default, plan)


def family_of(parts: Container[str]) -> type[UNetBase | WanBase]:
    """The family of a base, by the names of its parts."""
    return WanBase if "transformer" in parts else UNetBase


def default_dtype(family: type[UNetBase | WanBase], device: str) -> torch.dtype:
    return torch.float32 if device == "cpu" else family.half
