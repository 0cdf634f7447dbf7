"""Gradient checkpointing: the UNet's layers forget what they computed, and compute it again when its gradient is due.

diffusers' UNet3DConditionModel has none of its own. Wrapped are single layers, not its blocks: what is left at once is
each layer's input and the inside of one layer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Any

import torch
from diffusers import Transformer2DModel
from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import nn
from torch.utils.checkpoint import checkpoint

from motionbooth.control.boxes import AttentionControl
from motionbooth.models.lavie import blocks as lavie

LAYERS = (
    *(ResnetBlock2D, TemporalConvLayer, Transformer2DModel, TransformerTemporalModel),
    *(lavie.ResnetBlock, lavie.Transformer),
)


def recompute_layers(unet: nn.Module, control: AttentionControl) -> None:
    """Let all layers of `unet` compute twice (in place). Nothing that it answers changes, nor any gradient.

    The UNet must be in eval mode: the random states of a dropout are not kept for the second time.
    """
    for module in unet.modules():
        if isinstance(module, LAYERS):
            module.forward = _twice(module.forward, control)  # type: ignore[method-assign]


def _twice(forward: Callable[..., Any], control: AttentionControl) -> Callable[..., Any]:
    @wraps(forward)
    def compute(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(
            forward,
            *args,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), control.watching_as_now()),
            **kwargs,
        )

    return compute
