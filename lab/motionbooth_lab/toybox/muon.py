"""Muon (Jordan et al. 2024): momentum whose matrices are orthogonalized, usable in a CUDA graph.

torch.optim.Muon takes no convolutions, and its learning rate would be a constant of a captured graph.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz iteration: a quintic that moves singular values of up to 1 near 1."""

RMS = 0.2
"""Root mean square of an update, about AdamW's, so that both take the same learning rate (Liu et al. 2025)."""


def takes(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon suits this parameter: a hidden layer's weight, no embedding, not the first or last layer."""
    return parameter.dim() >= 2 and not any(part in name for part in ("embedding.weight", "conv_in.", "conv_out."))


class Muon:
    """The optimizer of float32 `parameters` of two or more dimensions. A convolution counts as one matrix.

    A parameter without a gradient is left as it is.
    """

    def __init__(self, parameters: Sequence[Tensor], weight_decay: float) -> None:
        self._decay = weight_decay
        self._momentum = [torch.zeros_like(parameter) for parameter in parameters]
        self._alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter, momentum in zip(parameters, self._momentum, strict=True):
            self._alike[parameter.shape].append((parameter, momentum))

    @torch.no_grad()
    def step(self, rate: Tensor) -> None:
        """Take a step with the learning rate `rate`, a tensor of one value."""
        for shape, pairs in self._alike.items():
            used = [(parameter, momentum) for parameter, momentum in pairs if parameter.grad is not None]
            if not used:
                continue
            parameters, momenta = [parameter for parameter, _ in used], [momentum for _, momentum in used]
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
            ahead = torch.stack(torch._foreach_lerp(gradients, momenta, MOMENTUM)).flatten(2)
            scale = rate * RMS * max(ahead.shape[1:]) ** 0.5
            updates = (scale * orthogonalized(ahead)).unflatten(2, shape[1:])
            torch._foreach_mul_(parameters, 1 - rate * self._decay)
            torch._foreach_sub_(parameters, list(updates.unbind()))

    def state(self) -> list[Tensor]:
        """The momentum, to be given to `restore`."""
        return self._momentum

    def restore(self, state: Sequence[Tensor]) -> None:
        for own, value in zip(self._momentum, state, strict=True):
            own.copy_(value)


def orthogonalized(matrices: Tensor) -> Tensor:
    """The matrices (N, m, n) with their singular values moved near 1, by Newton-Schulz iterations in bfloat16."""
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if is_tall else matrices).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if is_tall else x).to(matrices.dtype)
