"""Flow error and track error: motion found by a network or by DIS, compared with what the shot asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from motionbooth_protocol.motion import Box, CameraPath
from msgspec import Struct
from numpy.typing import NDArray

from motionbooth.evaluation.camera_adherence import MIN_SIDE_PX, hidden_in_either, requested_flows_px, without_edge
from motionbooth.evaluation.networks import FlowFinder
from motionbooth.evaluation.report import box_mask, mean_of


class FlowError(Struct, frozen=True):
    """Mean end-point errors in pixels of the clip's size, not normalized.

    Every pixel counts, whether it has texture or not, except at the frame's edge, where content enters and leaves.
    """

    network: str
    scenery_px: float | None
    """Per frame, outside the boxes that were requested, and those in which subjects were found. None if nothing is."""
    all_px: float | None
    """Per frame, over all pixels, the subjects' own motion included. None if the clip has a single frame."""
    tracks_px: float | None = None
    """Mean distance of points that the flow follows from the first frame from where the shot asks for them, over the
    frames that are to show them: in subjects' boxes and on the background. Errors of the flow add up. None if the first
    frame shows none."""


@dataclass(frozen=True)
class Tracks:
    """Points that the shot asks for: `points` (F, N, 2) in pixels of the clip, x and y; `visible` (F, N)."""

    points: NDArray[np.float32]
    visible: NDArray[np.bool_]


def flow_error(
    network: str,
    finder: FlowFinder,
    frames: NDArray[np.uint8],
    hidden: Sequence[Sequence[Box]],
    camera: CameraPath,
    tracks: Tracks | None = None,
) -> FlowError:
    """Compare the flow from each frame (F, H, W, 3) to the next with the camera's. `hidden`: boxes of each frame.

    Frames smaller than 128 px are enlarged for the search.
    """
    height, width = frames.shape[1:3]
    flows = _flows(finder, frames)
    rows, columns = flows[0].shape[:2] if flows else (height, width)
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2)
    points = (grid + 0.5) / (columns, rows)
    asked = requested_flows_px(camera, [points] * len(flows), width, height)
    masks = [_union_of(boxes, (height, width)) for boxes in hidden]
    inside = without_edge(np.ones((height, width), bool))
    scenery: list[float | None] = []
    everywhere: list[float | None] = []
    for f, (flow, motion) in enumerate(zip(flows, asked, strict=True)):
        errors = np.linalg.norm(flow - motion.reshape(flow.shape), axis=-1)
        visible = without_edge(~hidden_in_either(masks[f], masks[f + 1], (height, width)))
        for mean, mask in ((scenery, visible), (everywhere, inside)):
            kept = errors[cv2.resize(mask.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST) > 0]
            mean.append(float(kept.mean()) if len(kept) else None)
    missed = None if tracks is None else track_error(_followed(flows, tracks.points[0], (width, height)), tracks)
    return FlowError(network, mean_of(scenery), mean_of(everywhere), missed)


def _flows(finder: FlowFinder, frames: NDArray[np.uint8]) -> list[NDArray[np.float64]]:
    """F - 1 flows of the enlarged frames, in pixels of the frames themselves."""
    height, width = frames.shape[1:3]
    scale = max(1.0, MIN_SIDE_PX / min(height, width))
    large = [cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) for frame in frames]
    rows, columns = large[0].shape[:2]
    return [finder(*pair) * (width / columns, height / rows) for pair in pairwise(large)]


def _followed(
    flows: Sequence[NDArray[np.float64]], points: NDArray[np.float32], size: tuple[int, int]
) -> NDArray[np.float64]:
    """Where points (N, 2) of the first frame arrive with each flow: (F, N, 2). `size`: width and height in pixels."""
    places = [points.astype(np.float64)]
    for flow in flows:
        rows, columns = flow.shape[:2]
        at = places[-1] * ((columns, rows) / np.array(size)) - 0.5  # in centers of the enlarged frame's pixels
        x, y = (at[:, axis : axis + 1].astype(np.float32) for axis in (0, 1))
        moved = cv2.remap(flow.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        places.append(places[-1] + moved[:, 0])
    return np.stack(places)


def track_error(followed: NDArray[np.floating], tracks: Tracks) -> float | None:
    """Mean distance of followed points (F, N, 2) from the tracks; see `FlowError.tracks_px`."""
    kept = tracks.visible[1:] & tracks.visible[0]
    errors = np.linalg.norm(followed[1:] - tracks.points[1:], axis=-1)[kept]
    return float(errors.mean()) if len(errors) else None


def _union_of(boxes: Sequence[Box], size: tuple[int, int]) -> NDArray[np.bool_]:
    return np.logical_or.reduce([np.zeros(size, bool), *(box_mask(box, size) for box in boxes)])
