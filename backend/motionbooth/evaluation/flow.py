"""Camera obedience: the optical flow of everything but the subjects, against the flow that the camera's path asks for.

Flow is OpenCV's dense inverse search (Kroeger et al., 2016); the scenery's motion between two frames is the median over
its pixels, so that a subject's rim or a flicker does not count. A featureless background (a clear sky) shows no motion
whatever the camera does; its flow error then says so and no more. On drawn clips through toybox's decoder the mean
error is 0.3 px a frame: up to 0.1 on grass, sand, sea and road, 0.2 to 0.4 on snow, planks and bricks, and 1.0 in the
night sky, whose stars are two pixels wide.
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


def asked_flow_px(camera: CameraPath, width: int, height: int) -> NDArray[np.float64]:
    """(F - 1, 2) pixels that the content moves from each frame to the next: against the camera's own travel."""
    travel = np.array([[offset.dx * width, offset.dy * height] for offset in camera.offsets])
    return -np.diff(travel, axis=0)


def scenery_flow_px(frames: NDArray[np.uint8], subjects: Sequence[NDArray[np.bool_] | None]) -> NDArray[np.float64]:
    """(F - 1, 2) pixels that the scenery moves from each frame of a clip (F, H, W, 3) to the next.

    `subjects`: one mask (H, W) for each frame, true where not to look; None for no subject.
    """
    height, width = frames.shape[1:3]
    return np.array(
        [
            _median_flow(frames[f], frames[f + 1], _union(subjects[f], subjects[f + 1], (height, width)))
            for f in range(len(frames) - 1)
        ]
    ).reshape(-1, 2)


def flow_error_px(found: NDArray[np.float64], asked: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F - 1,) end-point differences of two flows (F - 1, 2), pixels a frame."""
    return np.linalg.norm(found - asked, axis=-1)


def _union(one: NDArray[np.bool_] | None, other: NDArray[np.bool_] | None, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Where a subject is in either frame, grown a little: flow smears over edges."""
    both = np.zeros(size, np.uint8)
    for mask in (one, other):
        if mask is not None:
            both |= mask.astype(np.uint8)
    reach = max(3, round(size[1] / 96 * 5) | 1)
    return cv2.dilate(both, np.ones((reach, reach), np.uint8)).astype(bool)


def _median_flow(before: NDArray[np.uint8], after: NDArray[np.uint8], hidden: NDArray[np.bool_]) -> NDArray[np.float64]:
    scale = max(1.0, SHORTEST_SIDE_PX / min(before.shape[:2]))
    grey = _stretched([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after)], ~hidden)
    large = [cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) for frame in grey]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(large[0], large[1], None) / scale
    seen = ~cv2.resize(hidden.astype(np.uint8), large[0].shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
    if not seen.any():
        seen[:] = True
    return np.median(flow[seen], axis=0).astype(np.float64)


def _stretched(frames: list[NDArray[np.uint8]], seen: NDArray[np.bool_]) -> list[NDArray[np.uint8]]:
    """Grey frames with the scenery's range of values, alike in both, spread over 0..255."""
    if not seen.any():
        return frames
    low, high = np.percentile(np.concatenate([frame[seen] for frame in frames]), (1, 99))
    gain = 255 / max(high - low, LEAST_CONTRAST)
    return [np.clip((frame - low) * gain, 0, 255).astype(np.uint8) for frame in frames]
