"""LoRAs of other programs, added to a base as a style beside the shot's subjects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import Style
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from motionbooth.models.base import Base

_DOWN, _UP, _ALPHA = ".lora_A.weight", ".lora_B.weight", ".lora_alpha"
_OTHER_KINDS = ("dora_scale", "lora_magnitude_vector", "lora_mid", "hada_", "lokr_")
"""Parts of the names of weights that plain LoRAs do not have."""


@torch.no_grad()
def add_style(base: Base, path: Path, style: Style) -> None:
    """Add the LoRA's products to the weights of `base` (in place), `style.strength` times. Biases in it are ignored.

    Raises InvalidInput if the file is no LoRA, or one of another network or of another size of this one.
    """
    state, alphas = _read(path)
    layers = {name.removesuffix(_DOWN) for name in state if name.endswith(_DOWN)}
    used: set[str] = set()
    for names, module in _named_layers(base):
        layer = next((layer for layer in names if layer in layers), None)
        if layer is None or not isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d):
            continue
        # A convolution's up part is 1 x 1, so its product is that of matrices, too.
        down, up = (torch.atleast_2d(state[layer + end].float()).flatten(1) for end in (_DOWN, _UP))
        rank = len(down)
        alpha = state.get(f"{layer}.alpha", torch.tensor(alphas.get(layer.partition(".")[0], rank)))
        shapes = len(up), down.shape[1], up.shape[1]
        if shapes != (*module.weight.flatten(1).shape, rank) or not rank or alpha.numel() != 1:
            raise _other_model(path, base)
        factor = alpha.item() / rank
        module.weight += (style.strength * factor * (up @ down)).reshape(module.weight.shape).to(module.weight)
        used.add(layer)
    base.forget_embeddings()
    if used != layers or not used:
        raise _other_model(path, base)


def _named_layers(base: Base) -> Iterator[tuple[list[str], nn.Module]]:
    """The layers of the network and of the text encoder, with the names that LoRAs have for them."""
    for name, module in base.network.named_modules():
        yield base.foreign_layers(name), module
    for name, module in base.text_encoder.named_modules():
        yield base.foreign_text_layers(name), module


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The weights, with the names of their ends unified, and the alpha of each part of the base that the header names.

    A layer's own is among the weights. Without either it is the rank.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
            header = (file.metadata() or {}).get("lora_adapter_metadata", "{}")
        adapter = msgspec.json.decode(header, type=dict[str, Any])
        alphas = {key.removesuffix(_ALPHA): adapter[key] for key in adapter if key.endswith(_ALPHA)}
        alphas = msgspec.convert(alphas, dict[str, float])
        state = {key.replace(".lora_down.", ".lora_A.").replace(".lora_up.", ".lora_B."): state[key] for key in state}
        if any(name.endswith(_DOWN) and name.removesuffix(_DOWN) + _UP not in state for name in state):
            raise ValueError(f"{path.name} lacks the other half of a layer")
    except (SafetensorError, OSError, ValueError) as error:
        raise InvalidInput(
            "The style {path} is not a LoRA in a safetensors file.", code="not_a_lora", path=path.name
        ) from error
    if any(part in name for name in state for part in _OTHER_KINDS):
        raise InvalidInput(
            "The style {path} is a DoRA, LoHa, LoKr or LoCon with a core matrix. Only plain LoRAs can be used.",
            path=path.name,
        )
    return state, alphas


def _other_model(path: Path, base: Base) -> InvalidInput:
    return InvalidInput(
        "The style {path} is a LoRA of another model, or of another size of it, than {model}. "
        "Choose one that was made for it.",
        path=path.name,
        model=base.settings.title,
    )
