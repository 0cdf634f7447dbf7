"""Weights of a network in 8 bits, by torchao: half the memory of half precision, and a slightly other clip."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motionbooth.models.memory.moving import layers_of


@torch.no_grad()
def quantize(network: nn.Module, device: torch.device) -> None:
    """Move `network` to the device, one module after the other, with its layers' linear weights in 8 bits (in place).

    Each row of a weight is rounded to 255 steps. Embeddings, convolutions, norms and biases stay as they are. LoRAs can
    be put on quantized layers, and full weights cannot be added to them.
    """
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    linear = {module for layer in layers_of(network) for module in layer.modules() if isinstance(module, nn.Linear)}
    config = Int8WeightOnlyConfig(set_inductor_config=False)
    quantize_(network, config, lambda module, _: module in linear, device=device)
    for module in linear:
        vars(module).pop("extra_repr", None)  # torchao's: a cycle, which would keep a dropped model on the card
        module.__class__ = _Dequantizing


class _Dequantizing(nn.Linear):
    """Computes with a weight's values: torchao multiplies with the integers first, which overflows float16."""

    def forward(self, inputs: Tensor) -> Tensor:
        return F.linear(inputs, self.weight.dequantize(), self.bias)
