"""Matrices and world points to screen boxes and a camera path. Free of bpy; needs numpy.

Blender's y points up and its cameras look along -z; the contract's y points down. The flip happens in `to_shares`
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from ._protocol.motion import Box, CameraPath, Offset

# As numpy.typing.NDArray has them; importing that would take longer than all of the extension.
Array = np.ndarray[Any, np.dtype[np.float64]]
Edges = np.ndarray[Any, np.dtype[np.integer[Any]]]

MIN_EXTENT = 1e-4  # share of the frame: what is seen edge-on, or is a single point, still needs a box with an area
FAR_OUTSIDE = 100.0  # shares of the frame: the contract's bound on a coordinate


@dataclass(frozen=True)
class View:
    """A camera at one moment.

    world_to_view: (4, 4), world to camera space (x right, y up, looking along -z), without scale.
    projection: (4, 4), camera space to clip space as OpenGL has it: x / w and y / w run from -1 to 1 across the frame,
        z + w > 0 beyond the near plane. Lens, sensor fit, pixel aspect and shift are all in it.
    """

    world_to_view: Array
    projection: Array

    @cached_property
    def view_to_world(self) -> Array:
        return np.linalg.inv(self.world_to_view)


@dataclass(frozen=True)
class Travel:
    """What a camera does over T moments, measured on a background at one distance.

    offsets: (T, 2) how far it has travelled, shares of the frame, right and down positive; the first is (0, 0).
    zoom: (T,) by which factor the background has grown; lens: (T,) by which of it the lens has made things grow.
    roll: (T,) degrees turned about the line of sight.
    lag: (T, 2) how much less than `offsets` things twice as far away have moved (parallax).
    cuts: moments at which the view jumps so far that there is nothing to measure from.
    """

    offsets: Array
    zoom: Array
    lens: Array
    roll: Array
    lag: Array
    cuts: list[int]


def screen_box(points: Array, edges: Edges, view: View) -> Box | None:
    """Bounds on screen of world `points` (N, 3) joined by `edges` (E, 2), as far as they lie beyond the near plane.

    Exact for any mesh: what the near plane leaves of a face has its corners at points in front of it and where
    edges cross it. None where nothing is in front of the camera, or all of it outside the frame.
    """
    clip = to_clip(points, view)
    depth = clip[:, 2] + clip[:, 3]  # > 0 beyond the near plane
    ahead = depth > 0
    seen = clip[ahead]
    if not ahead.all():
        seen = np.concatenate([seen, _near_crossings(clip, depth, edges)])
    return _bounds(to_shares(seen)) if len(seen) else None


def is_behind(points: Array, view: View) -> bool:
    """Whether all of the world `points` (N, 3) lie before the near plane."""
    clip = to_clip(points, view)
    return bool((clip[:, 2] + clip[:, 3] <= 0).all())


def to_clip(points: Array, view: View) -> Array:
    """World points (N, 3) to clip space (N, 4)."""
    return points @ (view.projection @ view.world_to_view)[:, :3].T + (view.projection @ view.world_to_view)[:, 3]


def to_shares(clip: Array) -> Array:
    """Clip space (N, 4) in front of the camera to shares of the frame (N, 2): origin top left, y down."""
    ndc = clip[:, :2] / clip[:, 3:4]
    return np.stack([(1 + ndc[:, 0]) / 2, (1 - ndc[:, 1]) / 2], axis=1)


def _near_crossings(clip: Array, depth: Array, edges: Edges) -> Array:
    """Where edges pass through the near plane, in clip space (M, 4)."""
    start, end = edges[:, 0], edges[:, 1]
    cross = (depth[start] > 0) != (depth[end] > 0)
    start, end = start[cross], end[cross]
    along = (depth[start] / (depth[start] - depth[end]))[:, None]
    return clip[start] + along * (clip[end] - clip[start])


def _bounds(shares: Array) -> Box | None:
    low, high = shares.min(axis=0), shares.max(axis=0)
    thin = np.maximum(MIN_EXTENT - (high - low), 0) / 2
    low = np.clip(low - thin, -FAR_OUTSIDE, FAR_OUTSIDE - MIN_EXTENT)
    high = np.clip(high + thin, MIN_EXTENT - FAR_OUTSIDE, FAR_OUTSIDE)
    box = Box(float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    return box if box.visible else None


def travel(views: Sequence[View], distance: float) -> Travel:
    """Follow a background `distance` (scene units) in front of the camera from each view to the next.

    The reference point is the one in the middle of the view; it is taken anew at every view and its steps are added
    up. So a turning camera has travelled as far as its picture has slid, evenly for an even turn and past 90 degrees
    too, where a point fixed at the first view would race off and end up behind the camera. For a camera that tracks
    or shifts its lens both are the same. Give views close together (one for each scene frame).
    """
    steps = [_step(before, after, distance) for before, after in pairwise(views)]
    cuts = [moment for moment, step in enumerate(steps, start=1) if step is None]
    kept = [step or _Step() for step in steps]
    return Travel(
        offsets=_summed(np.array([step.offset for step in kept]).reshape(-1, 2)),
        zoom=np.exp(_summed(np.log([step.zoom for step in kept]))),
        lens=np.exp(_summed(np.log([step.lens for step in kept]))),
        roll=_summed(np.array([step.roll for step in kept])),
        lag=_summed(np.array([step.lag for step in kept]).reshape(-1, 2)),
        cuts=cuts,
    )


def camera_path(offsets: Array) -> CameraPath:
    """Offsets (F, 2) at the model's frames as the contract has them, counted from the first."""
    return CameraPath([Offset(float(dx), float(dy)) for dx, dy in offsets - offsets[0]])


@dataclass(frozen=True)
class _Step:
    """From one view to the next: see Travel."""

    offset: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0
    lens: float = 1.0
    roll: float = 0.0
    lag: tuple[float, float] = (0.0, 0.0)


PROBE = 0.01  # share of the frame: a second point beside the middle shows growth and turning
PROBES = np.array([(0.5, 0.5), (0.5 + PROBE, 0.5), (0.5, 0.5)])
PROBE_DISTANCES = np.array([1.0, 1.0, 2.0])  # of the background's


def _step(before: View, after: View, distance: float) -> _Step | None:
    seen = _seen_again(before, after, PROBES, PROBE_DISTANCES * distance)
    if seen is None:
        return None
    middle, beside, far = seen
    right = (beside - middle) * (after.projection[1, 1] / after.projection[0, 0], 1)  # in units of the frame's height
    was = PROBE * before.projection[1, 1] / before.projection[0, 0]
    return _Step(
        offset=(float(0.5 - middle[0]), float(0.5 - middle[1])),
        zoom=float(np.hypot(*right) / was),
        lens=float(after.projection[1, 1] / before.projection[1, 1]),
        roll=float(np.degrees(np.arctan2(right[1], right[0]))),
        lag=(float(far[0] - middle[0]), float(far[1] - middle[1])),
    )


def _seen_again(before: View, after: View, shares: Array, distances: Array) -> Array | None:
    """Where points that `before` sees at `shares` (N, 2), `distances` (N,) away, are for `after`: (N, 2) or None."""
    clip = to_clip(_unproject(before, shares, distances), after)
    return to_shares(clip) if (clip[:, 3] > 1e-9).all() else None


def _unproject(view: View, shares: Array, distances: Array) -> Array:
    """World points (N, 3) at `shares` (N, 2) of the frame, `distances` (N,) ahead along the line of sight."""
    ndc = np.stack([2 * shares[:, 0] - 1, 1 - 2 * shares[:, 1]], axis=1)
    rows = view.projection[:2] - ndc[:, :, None] * view.projection[3]  # (N, 2, 4): rows . (x, y, -distance, 1) = 0
    across = np.linalg.solve(rows[:, :, :2], (rows[:, :, 2] * distances[:, None] - rows[:, :, 3])[:, :, None])[:, :, 0]
    local = np.concatenate([across, -distances[:, None], np.ones((len(across), 1))], axis=1)
    return (local @ view.view_to_world.T)[:, :3]


def _summed(steps: Array) -> Array:
    return np.concatenate([np.zeros((1, *steps.shape[1:])), np.cumsum(steps, axis=0)])
