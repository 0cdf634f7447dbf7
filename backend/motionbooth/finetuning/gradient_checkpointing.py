"""Gradient checkpointing: the network's layers drop their activations and recompute them in the backward pass.

diffusers' UNet3DConditionModel does not offer it, and other networks' own would record the attention twice. Single
layers are wrapped, not blocks of a UNet: in memory at once are each layer's input and the activations of one layer.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from motionbooth.control.boxes import AttentionControl
from motionbooth.models.memory.moving import layers_of


def enable_gradient_checkpointing(network: nn.Module, control: AttentionControl) -> None:
    """Checkpoint all layers of `network` (in place). Its outputs and gradients stay the same.

    It must be in eval mode: the random state of a dropout is not restored for the recomputation.
    """
    for layer in layers_of(network):
        layer.forward = _checkpointed(layer.forward, control)


def _checkpointed(forward: Callable[..., Any], control: AttentionControl) -> Callable[..., Any]:
    @wraps(forward)
    def compute(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(
            forward,
            *args,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), control.recording_as_now()),
            **kwargs,
        )

    return compute
