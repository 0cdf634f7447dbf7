"""The network of Wan 2.2 A14B: one transformer for high noise levels and one for low ones."""

from __future__ import annotations

from typing import Any

from diffusers import WanTransformer3DModel
from torch import Tensor, nn


class Experts(nn.Module):
    """Called like one transformer; a batch goes to the expert of its times. Named as in the published folder."""

    def __init__(
        self, transformer: WanTransformer3DModel, transformer_2: WanTransformer3DModel, boundary: float
    ) -> None:
        """`boundary`: the lowest time (0..1000) of the first one."""
        super().__init__()
        self.transformer, self.transformer_2, self.boundary = transformer, transformer_2, boundary

    @property
    def config(self) -> Any:
        return self.transformer.config

    def forward(self, latents: Tensor, time: Tensor, text: Tensor) -> Any:
        """latents (B, C, F, h, w), time (B,) of one expert, text (B, tokens, D) -> an object with `sample`, as latents.

        One expert, because the box control's rows are those of the whole batch.
        """
        high = time >= self.boundary
        if high.any() and not high.all():
            raise ValueError(f"times on both sides of {self.boundary}: {time.tolist()}")
        return (self.transformer if high[0] else self.transformer_2)(latents, time, text)


class FirstOfExperts(Experts):
    """For a dry run, whose times have no values: the first expert computes. Both have the same size."""

    def forward(self, latents: Tensor, time: Tensor, text: Tensor) -> Any:
        return self.transformer(latents, time, text)
