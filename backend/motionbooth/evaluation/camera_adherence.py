"""Camera obedience: the optical flow of everything but the subjects, against the flow that the camera's path asks for.

Flow is OpenCV's dense inverse search (Kroeger et al., 2016), looked at where the scenery has texture: a clear sky, or
stripes along the pan, show no motion whatever the camera does, and where there is nothing else nothing is measured. The
scenery's motion between two frames is the median over those pixels, so that a subject's rim or a flicker does not
count; the mean end-point error over them says whether all of the scenery moves so, or only most of it. On drawn clips
of toybox's places the median is off by 0.02 to 0.2 px a frame, the mean error is 0.1 to 0.6, largest where only stars
or tiles have texture.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from motionbooth_protocol.motion import CameraPath
from numpy.typing import NDArray

SHORTEST_SIDE_PX = 128
"""Frames are enlarged to this before the search: its patches of 8 px are coarse for a frame of 64 px."""

LEAST_CONTRAST = 8
"""Grey values are stretched to the scenery's own range, but not from a range less than this."""


TEXTURE_BLUR_PX, TEXTURE_PX = 1.5, 9
"""Of the enlarged frame: noise is smoothed by the first before texture is looked for in squares of the second."""

LEAST_GRADIENT = 0.2
"""Root mean square of the gradient in its weakest direction, grey values a pixel. Tried on drawn places, where it takes
8 % (kitchen) to 98 % (grass) for texture, and on plain frames with noise, of which it takes none up to a standard
deviation of 1.5."""

LEAST_TEXTURE = 0.04
"""Share of the scenery that must have texture; less is a speck, and its flow is chance."""

Flow = NDArray[np.float64]
"""(N, 2) pixels to the right and down, of N pixels of the scenery."""


def asked_flow_px(camera: CameraPath, width: int, height: int) -> NDArray[np.float64]:
    """(F - 1, 2) pixels that the content moves from each frame to the next: against the camera's own travel."""
    travel = np.array([[offset.dx * width, offset.dy * height] for offset in camera.offsets])
    return -np.diff(travel, axis=0)


def scenery_flows_px(frames: NDArray[np.uint8], subjects: Sequence[NDArray[np.bool_] | None]) -> list[Flow]:
    """How the scenery's pixels move from each frame of a clip (F, H, W, 3) to the next: F - 1 flows, in pixels.

    `subjects`: one mask (H, W) for each frame, true where not to look; None for no subject. A flow has the pixels
    (of the enlarged frame) at which motion can be seen; none (N = 0) where too few have texture.
    """
    size = frames.shape[1:3]
    return [
        _flow(frames[f], frames[f + 1], _union(subjects[f], subjects[f + 1], (size[0], size[1])))
        for f in range(len(frames) - 1)
    ]


def scenery_flow_px(frames: NDArray[np.uint8], subjects: Sequence[NDArray[np.bool_] | None]) -> NDArray[np.float64]:
    """(F - 1, 2) pixels that the scenery moves from each frame to the next: medians, nan where it has no texture."""
    flows = scenery_flows_px(frames, subjects)
    return np.array([np.median(flow, axis=0) if len(flow) else (np.nan, np.nan) for flow in flows]).reshape(-1, 2)


def flow_error_px(found: NDArray[np.float64], asked: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) end-point differences of two flows (N, 2), pixels a frame."""
    return np.linalg.norm(found - asked, axis=-1)


def _union(one: NDArray[np.bool_] | None, other: NDArray[np.bool_] | None, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where a subject is in either frame, grown a little: flow smears over edges."""
    both = np.zeros(size, np.uint8)
    for mask in (one, other):
        if mask is not None:
            both |= mask.astype(np.uint8)
    reach = max(3, round(size[1] / 96 * 5) | 1)
    return cv2.dilate(both, np.ones((reach, reach), np.uint8)).astype(bool)


def _flow(before: NDArray[np.uint8], after: NDArray[np.uint8], hidden: NDArray[np.bool_]) -> Flow:
    scale = max(1.0, SHORTEST_SIDE_PX / min(before.shape[:2]))

    def enlarged(frame: NDArray[np.uint8], interpolation: int) -> NDArray[np.uint8]:
        return cv2.resize(frame, None, fx=scale, fy=scale, interpolation=interpolation)

    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after)]
    seen = ~enlarged(hidden.astype(np.uint8), cv2.INTER_NEAREST).astype(bool)
    textured = seen & _textured(enlarged(grey[0], cv2.INTER_CUBIC))
    if textured.sum() < max(1, LEAST_TEXTURE * seen.sum()):
        return np.zeros((0, 2))
    large = [enlarged(frame, cv2.INTER_CUBIC) for frame in _stretched(grey, ~hidden)]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(large[0], large[1], None) / scale
    return flow[textured].astype(np.float64)


def _textured(grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where motion in any direction can be seen: the smaller eigenvalue of the structure tensor is large enough."""
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), TEXTURE_BLUR_PX)
    dx, dy = (cv2.Sobel(smooth, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    xx, xy, yy = (cv2.blur(product, (TEXTURE_PX, TEXTURE_PX)) for product in (dx * dx, dx * dy, dy * dy))
    smaller = (xx + yy - np.sqrt((xx - yy) ** 2 + 4 * xy**2)) / 2
    return smaller > LEAST_GRADIENT**2


def _stretched(frames: list[NDArray[np.uint8]], seen: NDArray[np.bool_]) -> list[NDArray[np.uint8]]:
    """Grey frames with the scenery's range of values, alike in both, spread over 0..255."""
    if not seen.any():
        return frames
    low, high = np.percentile(np.concatenate([frame[seen] for frame in frames]), (1, 99))
    gain = 255 / max(high - low, LEAST_CONTRAST)
    return [np.clip((frame - low) * gain, 0, 255).astype(np.uint8) for frame in frames]
