"""Brings modules to the device for as long as they work, and keeps their weights in main memory otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import chain
from typing import Any

import torch
from diffusers import Transformer2DModel
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from motionbooth.models.lavie import blocks as lavie

LAYERS = (
    *(ResnetBlock2D, TemporalConvLayer, Transformer2DModel, TransformerTemporalModel),
    *(lavie.ResnetBlock, lavie.Transformer, WanTransformerBlock),
)
"""The layers of the networks. None contains another."""


def layers_of(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, LAYERS)]


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers, each once."""
    return chain(module.parameters(), module.buffers())


def bytes_of(module: nn.Module) -> int:
    return sum(map(_bytes_of_tensor, tensors_of(module)))


def _bytes_of_tensor(tensor: Tensor) -> int:
    """Those of a quantized one are its parts', not those of the precision that it stands for."""
    if not is_traceable_wrapper_subclass(tensor):
        return tensor.nbytes
    return sum(getattr(tensor, name).nbytes for name in tensor.__tensor_flatten__()[0])


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """All floating-point weights to `dtype` (in place)."""
    for tensor in tensors_of(module):
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


@contextmanager
def visiting(module: nn.Module, device: torch.device) -> Iterator[None]:
    """A context with copies of the module's weights on the device. They are dropped after it, not copied back."""
    home = [(tensor, tensor.data) for tensor in tensors_of(module)]
    try:
        for tensor, data in home:
            tensor.data = data.to(device, non_blocking=True, copy=True)
        yield
    finally:
        for tensor, data in home:
            tensor.data = data


def let_layers_visit(network: nn.Module, device: torch.device) -> None:
    """Keep the layers of `network` where they are, and bring each to the device while it computes (in place).

    All else moves to the device. The processors of its attention stay in effect, and so do LoRAs added later.
    """
    layers = layers_of(network)
    inside = {id(tensor) for layer in layers for tensor in tensors_of(layer)}
    for tensor in tensors_of(network):
        if id(tensor) not in inside:
            tensor.data = tensor.data.to(device)
    for layer in layers:
        layer.forward = _visiting(layer, layer.forward, device)


def _visiting(layer: nn.Module, forward: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    @wraps(forward)
    def compute(*args: Any, **kwargs: Any) -> Any:
        with visiting(layer, device):
            return forward(*args, **kwargs)

    return compute
