"""Previews of a clip while it is sampled: decoded estimates of the clean latents."""

from __future__ import annotations

import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from einops import rearrange
from motionbooth_protocol.limits import PREVIEW_BYTES
from numpy.typing import NDArray
from torch import Tensor

from motionbooth.generation.sampling import decode
from motionbooth.models.base import Base

COST_SHARE = 0.01  # largest share of the sampling time; the first preview is exempt
_FRAME_WIDTH = 256  # pixels
_QUALITIES = (85, 60, 30, 10)  # of JPEG, tried in this order until the picture is small enough

ShowPreview = Callable[[bytes, int, int], None]  # JPEG, its width and height in pixels


class Previewer:
    """An OnEstimate that shows the first, middle and last frame of an estimate, side by side.

    After each preview it waits long enough to cost no more than COST_SHARE of the time. It does not affect the clip.
    """

    def __init__(self, base: Base, show: ShowPreview) -> None:
        self._base = base
        self._show = show
        self._not_before = float("-inf")

    def __call__(self, estimate: Tensor) -> None:
        """`estimate`: clean latents (B, C, F, h, w), of which the first clip is shown."""
        if time.monotonic() < self._not_before:
            return
        if estimate.device.type != "cpu":
            torch.accelerator.synchronize()  # the step that is still running is not the preview's cost
        began = time.monotonic()
        frames = estimate.shape[2]
        chosen = sorted({0, frames // 2, frames - 1})
        stills = rearrange(estimate[:1, :, chosen], "1 c f h w -> f c 1 h w")  # each as a clip of one frame
        strip = np.concatenate([clip[0].numpy() for clip in decode(self._base, stills)], axis=1)  # (H, 3W, 3)
        picture = resized_to(strip, _FRAME_WIDTH * len(chosen))
        self._show(as_jpeg(picture), picture.shape[1], picture.shape[0])
        now = time.monotonic()
        self._not_before = now + (now - began) / COST_SHARE


def resized_to(picture: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """The picture (H, W, 3), downscaled to `width` pixels if it is wider; the aspect stays."""
    height, found, _ = picture.shape
    if found <= width:
        return picture
    size = (width, max(1, round(height * width / found)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def as_jpeg(picture: NDArray[np.uint8]) -> bytes:
    """RGB uint8 (H, W, 3) as a JPEG of at most PREVIEW_BYTES. Raises ValueError if no quality is low enough."""
    for quality in _QUALITIES:
        _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(data) <= PREVIEW_BYTES:
            return data.tobytes()
    raise ValueError(f"a picture of {picture.shape[1]} x {picture.shape[0]} pixels does not fit {PREVIEW_BYTES} bytes")
