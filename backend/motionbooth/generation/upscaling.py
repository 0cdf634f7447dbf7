"""Upscaling: each frame enlarged by an image network, tile by tile.

The network is a safetensors file of any architecture that spandrel knows (ESRGAN and its successors). Needs the extra
`upscale`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from motionbooth_protocol.errors import InvalidInput
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file

TILE, MARGIN = 256, 16
"""Pixels of a tile's sides, and how far it sees beyond them, before the enlargement."""
MAX_SIDE = 8192
"""Pixels of a side of an enlarged frame, which H.264 can hold."""

Span = tuple[int, int, int, int]  # start and stop of a tile, and of what the network sees of it


class Upscaler:
    """An upscaling network, on the CPU until it is moved. `scale`: how many times wider and higher it makes a frame."""

    def __init__(self, path: Path) -> None:
        """Raises InvalidInput if spandrel is not installed, or the file is no upscaling network that it knows."""
        self.path = path
        try:
            from spandrel import ImageModelDescriptor, ModelLoader
        except ImportError as error:
            raise InvalidInput("Upscaling needs the package spandrel: pip install motionbooth[upscale].") from error
        try:
            found: Any = ModelLoader().load_from_state_dict(load_file(path))
        except (OSError, SafetensorError) as error:
            raise InvalidInput("The upscaler {path} cannot be read. Name a safetensors file.", path=path) from error
        except Exception as error:  # spandrel's own, and whatever an architecture raises for weights that it misjudges
            raise InvalidInput(
                "The upscaler {path} has an architecture that spandrel does not know. Name another one.", path=path
            ) from error
        if not isinstance(found, ImageModelDescriptor) or found.scale < 2 or found.input_channels != 3:
            raise InvalidInput("The network {path} does not enlarge color pictures. Name another one.", path=path)
        self._network: Any = found.eval()
        self._device = torch.device("cpu")
        self.scale = int(found.scale)

    def to(self, device: torch.device) -> None:
        self._network, self._device = self._network.to(device), device

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of an enlarged frame. Raises InvalidInput if it would be too large for a clip."""
        size = self.scale * width, self.scale * height
        if max(size) > MAX_SIDE:
            raise InvalidInput(
                "The upscaler {path} makes frames of {width} x {height} pixels, but a clip's may have {most} a side. "
                "Name one that enlarges less.",
                path=self.path,
                width=size[0],
                height=size[1],
                most=MAX_SIDE,
            )
        return size

    def enlarged(self, frame: NDArray[np.float32]) -> NDArray[np.float32]:
        """The frame (H, W, 3), 0..1, enlarged to (scale H, scale W, 3)."""
        height, width = frame.shape[:2]
        made = np.empty((height * self.scale, width * self.scale, 3), np.float32)
        for top, bottom, seen_top, seen_bottom in spans(height):
            for left, right, seen_left, seen_right in spans(width):
                tile = self._enlarge(frame[seen_top:seen_bottom, seen_left:seen_right])
                rows = slice((top - seen_top) * self.scale, (bottom - seen_top) * self.scale)
                columns = slice((left - seen_left) * self.scale, (right - seen_left) * self.scale)
                place = (slice(start * self.scale, stop * self.scale) for start, stop in ((top, bottom), (left, right)))
                made[tuple(place)] = tile[rows, columns]
        return made

    @torch.no_grad()
    def _enlarge(self, tile: NDArray[np.float32]) -> NDArray[np.float32]:
        given = torch.from_numpy(np.ascontiguousarray(tile)).permute(2, 0, 1)[None].to(self._device)
        return np.asarray(self._network(given)[0].clamp(0, 1).permute(1, 2, 0).float().cpu())


def spans(length: int) -> Iterator[Span]:
    """The tiles along a side of this length: as few as possible, of nearly the same size."""
    count = -(-length // TILE)
    edges = [length * number // count for number in range(count + 1)]
    for start, stop in pairwise(edges):
        yield start, stop, max(0, start - MARGIN), min(length, stop + MARGIN)
