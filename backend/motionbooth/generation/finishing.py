"""What is made of the model's frames after decoding: in-betweens up to the clip's rate, and larger frames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec
from numpy.typing import NDArray

from motionbooth.generation.in_betweens import Interpolator
from motionbooth.generation.upscaling import Upscaler
from motionbooth.generation.video import Frames, FrameSource
from motionbooth.models.post_processing import INTERPOLATOR, UPSCALER, named_file

Frame = NDArray[np.float32]  # (H, W, 3), RGB, 0..1


@dataclass(frozen=True)
class Finishing:
    """The networks that a clip's frames pass through; None for none."""

    interpolator: Interpolator | None = None
    upscaler: Upscaler | None = None

    @classmethod
    def of(cls, spec: GenerateSpec) -> Finishing:
        """Raises InvalidInput if a network cannot be loaded, or is asked for and not there."""
        interpolator, upscaler = named_file(INTERPOLATOR), named_file(UPSCALER)
        if spec.upscale and upscaler is None:
            raise InvalidInput(
                "This backend has no upscaler. Generate the shot without one, or start the backend with {variable} "
                "naming a safetensors file.",
                variable=UPSCALER,
            )
        return cls(
            None
            if spec.hold_frames or interpolator is None
            else _loaded_interpolator(interpolator, _state(interpolator)),
            _loaded_upscaler(upscaler, _state(upscaler)) if spec.upscale and upscaler is not None else None,
        )

    def frames(self, frames: Frames, exact: NDArray[np.float32], count: int) -> tuple[FrameSource, FrameSource]:
        """What is shown in a clip of `count` frames, and what is in its master: the frames themselves, or finished.

        `exact`: the frames, 0..1.
        """
        if self.interpolator is None and self.upscaler is None:
            return frames, exact
        finished = FinishedFrames(exact, count, self)
        return finished, finished

    def to(self, device: torch.device) -> None:
        """Move the networks."""
        for network in (self.interpolator, self.upscaler):
            if network is not None:
                network.to(device)

    def size_of(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a finished frame. Raises InvalidInput if it would be too large for a clip."""
        return (width, height) if self.upscaler is None else self.upscaler.size_of(width, height)


class FinishedFrames:
    """A clip's frames (F, H, W, 3), RGB, 0..1, each made when it is asked for: no memory for more than one.

    The last one is kept, because a frame that is held is asked for again and again.
    """

    def __init__(self, frames: NDArray[np.float32], count: int, finishing: Finishing) -> None:
        """`count`: the frames of the clip, evenly spaced from the model's first frame to its last."""
        self._frames, self._finishing = frames, finishing
        self._count = max(count, len(frames)) if finishing.interpolator is not None else len(frames)
        self._last: tuple[int, Frame] | None = None

    def __len__(self) -> int:
        return self._count

    @property
    def shape(self) -> tuple[int, int, int, int]:
        _, height, width, channels = self._frames.shape
        width, height = self._finishing.size_of(width, height)
        return len(self), height, width, channels

    def __getitem__(self, index: int) -> Frame:
        if self._last is None or self._last[0] != index:
            self._last = index, self._made(index)
        return self._last[1]

    def _made(self, index: int) -> Frame:
        gaps = max(len(self) - 1, 1)
        before, rest = divmod(int(index) * (len(self._frames) - 1), gaps)
        frame = self._frames[before]
        if rest and self._finishing.interpolator is not None:
            frame = self._finishing.interpolator.between(frame, self._frames[before + 1], rest / gaps)
        return frame if self._finishing.upscaler is None else self._finishing.upscaler.enlarged(frame)


def _state(path: Path) -> tuple[int, int] | None:
    """Its size and time: a network is loaded again after its file has changed, as the model's version says."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


@lru_cache(maxsize=1)
def _loaded_interpolator(path: Path, _: tuple[int, int] | None) -> Interpolator:
    return Interpolator(path)


@lru_cache(maxsize=1)
def _loaded_upscaler(path: Path, _: tuple[int, int] | None) -> Upscaler:
    return Upscaler(path)
