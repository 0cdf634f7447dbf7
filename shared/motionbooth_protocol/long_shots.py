"""Shots that last longer than a model's clip: how many frames they have, and the windows that the model sees of them.

"spread": the clip's frames are spread over the shot and held. "windows": the shot is sampled at the model's own frame
rate; at each step the model sees overlapping windows as long as its clip, and its predictions are averaged.
"""

from __future__ import annotations

import math
from typing import Literal

from .limits import MAX_FRAMES

LongShot = Literal["spread", "windows"]

STRETCH_LIMIT = 0.25
"""A shot is long if it lasts longer than the model's clip by more than this share of it."""
OVERLAP = 0.5
"""Smallest share of a window that the next one overlaps, rounded down to whole frames."""


def is_long(seconds: float, frames: int, fps: float) -> bool:
    """Whether a shot of this duration is longer than a model's clip of `frames` at `fps`."""
    return seconds > frames / fps * (1 + STRETCH_LIMIT)


def frames_at_rate(seconds: float, frames: int, fps: float, frame_step: int = 1) -> int:
    """The frames of a shot in windows, at the model's own rate: its clip's `frames` at least, at most MAX_FRAMES.

    They are 1 + a multiple of `frame_step`, as those of its clip are.
    """
    steps = min(round((seconds * fps - 1) / frame_step), (MAX_FRAMES - 1) // frame_step)
    return max(frames, 1 + steps * frame_step)


def windows_of(frames: int, own: int, frame_step: int = 1) -> list[range]:
    """The windows of a clip of `frames`, in latent frames of `frame_step` frames each; `own`: the model's frames.

    Evenly spaced, and as few as overlap enough. One if the clip is as long as the model's own.
    """
    whole, window = (1 + (count - 1) // frame_step for count in (frames, own))
    if whole <= window:
        return [range(whole)]
    stride = window - int(OVERLAP * window)
    gaps = math.ceil((whole - window) / stride)
    starts = [round(gap * (whole - window) / gaps) for gap in range(gaps + 1)]
    return [range(start, start + window) for start in starts]
