"""The network of Wan 2.2 A14B: one transformer for high noise levels and one for low ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn


class Experts(nn.Module):
    """Called like one transformer; each sample goes to the expert of its time. Named as in the published folder."""

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
        """latents (B, C, F, h, w), time (B,), text (B, tokens, D) -> an object with `sample`, (B, C, F, h, w)."""
        high = time >= self.boundary
        if high.all() or not high.any():
            return (self.transformer if high[0] else self.transformer_2)(latents, time, text)
        sample = torch.empty_like(latents)
        for expert, own in ((self.transformer, high), (self.transformer_2, ~high)):
            sample[own] = expert(latents[own], time[own], text[own]).sample.to(sample)
        return SimpleNamespace(sample=sample)
