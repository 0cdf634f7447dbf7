"""In-betweens: the frames between the model's, where the clip has a higher rate, by an interpolation network.

The network is a TorchScript file in the form in which FILM (Reda et al., 2022) is published for PyTorch,
`film_net_fp32.pt`: called with two frames (B, 3, H, W), 0..1, and a time (B, 1), 0..1 between them. It is program code,
so it is only ever the choice of who runs the backend.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.text import Text
from motionbooth_protocol.wording import in_words
from numpy.typing import NDArray
from torch import Tensor

MULTIPLE = 64
"""FILM needs sides that are multiples of this many pixels; the frames' edges are repeated up to there."""


class Interpolator:
    """An interpolation network, on the CPU until it is moved."""

    def __init__(self, path: Path) -> None:
        """Raises InvalidInput if the file is no TorchScript, or its network does not take two frames and a time."""
        self.path = path
        try:
            with warnings.catch_warnings():
                # Deprecated, and still the only form in which such networks are published.
                warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", FutureWarning)
                self._network: Any = torch.jit.load(str(path), map_location="cpu").eval()
        except (OSError, RuntimeError, ValueError) as error:
            raise InvalidInput(
                "The interpolation network {path} cannot be read ({problem}). Name a TorchScript file, such as "
                "film_net_fp32.pt.",
                path=path,
                problem=in_words(error) if isinstance(error, OSError) else Text("it is not TorchScript"),
            ) from error
        self._device = torch.device("cpu")
        self._check()

    def to(self, device: torch.device) -> None:
        self._network, self._device = self._network.to(device), device

    def _check(self) -> None:
        black, white = torch.zeros(1, 3, MULTIPLE, MULTIPLE), torch.ones(1, 3, MULTIPLE, MULTIPLE)
        try:
            found = self._between(black, white, 0.5)
        except (RuntimeError, TypeError) as error:
            raise InvalidInput(
                "The network {path} does not interpolate: it must take two frames (B, 3, H, W) and a time (B, 1), as "
                "film_net_fp32.pt does.",
                path=self.path,
            ) from error
        if not isinstance(found, Tensor) or found.shape != black.shape:
            raise InvalidInput(
                "The network {path} does not interpolate: from two frames and a time it must make one frame of the "
                "same size.",
                path=self.path,
            )

    @torch.no_grad()
    def _between(self, one: Tensor, other: Tensor, time: float) -> Tensor:
        pair = (each.to(self._device) for each in (one, other))
        return self._network(*pair, torch.full((1, 1), time, device=self._device))

    def between(self, one: NDArray[np.float32], other: NDArray[np.float32], time: float) -> NDArray[np.float32]:
        """The frame (H, W, 3) at `time` (0..1) between two, 0..1."""
        height, width = one.shape[:2]
        edges = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        start, end = (F.pad(torch.from_numpy(each).permute(2, 0, 1)[None], edges, "replicate") for each in (one, other))
        made = self._between(start, end, time)[0, :, :height, :width]
        return np.asarray(made.clamp(0, 1).permute(1, 2, 0).float().cpu())
