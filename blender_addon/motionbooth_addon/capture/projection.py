"""Matrices and world points to screen boxes and a camera path. Free of bpy; needs numpy.

Blender's y points up and its cameras look along -z; the contract's y points down. The flip happens in `to_shares`
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._protocol.motion import Box, CameraPath, Offset

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

    def framed(self, frame: Box) -> View:
        """The same camera with another frame: `frame` in shares of this one's."""
        width, height = frame.x2 - frame.x1, frame.y2 - frame.y1
        x, y = frame.center
        share = np.eye(4)  # of clip space: what is at the frame's sides comes to -1 and 1
        share[0, 0], share[1, 1] = 1 / width, 1 / height
        share[0, 3], share[1, 3] = (1 - 2 * x) / width, (2 * y - 1) / height
        return View(self.world_to_view, share @ self.projection)


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
    """Clip space (.., 4) in front of the camera to shares of the frame (.., 2): origin top left, y down."""
    ndc = clip[..., :2] / clip[..., 3:4]
    return np.stack([(1 + ndc[..., 0]) / 2, (1 - ndc[..., 1]) / 2], axis=-1)


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


def travel(views: Sequence[View], distance: float, other_camera: Sequence[int] = ()) -> Travel:
    """Follow a background `distance` (scene units) in front of the camera from each view to the next.

    The reference point is the one in the middle of the view; it is taken anew at every view and its steps are added
    up. So a turning camera has travelled as far as its picture has slid, evenly for an even turn and past 90 degrees
    too, where a point fixed at the first view would race off and end up behind the camera. For a camera that tracks
    or shifts its lens both are the same. Give views close together (one for each scene frame).

    `other_camera`: the views that another camera has than the one before. Nothing travels from the one to the other.
    """
    return add_up([measure_steps(views, distance)], other_camera)


def add_up(measured: Sequence[Steps], other_camera: Sequence[int] = ()) -> Travel:
    """The travel of all steps, measured piece by piece: see `travel`."""
    seen = Steps(*(np.concatenate([getattr(piece, name) for piece in measured]) for name in Steps.__match_args__))
    jumps = ~(seen.clip[:, :, 3] > 1e-9).all(axis=1)
    still = jumps.copy()
    still[[number - 1 for number in other_camera]] = True
    clip = np.where(still[:, None, None], np.array([0.0, 0.0, 0.0, 1.0]), seen.clip)
    middle, beside, far = np.moveaxis(to_shares(clip), 1, 0)
    right = (beside - middle) * seen.aspect_after[:, None] ** (1, 0)  # in units of the frame's height
    zoom = np.hypot(*right.T) / (PROBE * seen.aspect_before)
    return Travel(
        offsets=_summed(np.where(still[:, None], 0.0, 0.5 - middle)),
        zoom=np.exp(_summed(np.log(np.where(still, 1.0, zoom)))),
        lens=np.exp(_summed(np.log(np.where(still, 1.0, seen.lens)))),
        roll=_summed(np.where(still, 0.0, np.degrees(np.arctan2(right[:, 1], right[:, 0])))),
        lag=_summed(np.where(still[:, None], 0.0, far - middle)),
        cuts=[int(step) + 1 for step in np.flatnonzero(jumps) if step + 1 not in set(other_camera)],
    )


def camera_path(offsets: Array) -> CameraPath:
    """Offsets (F, 2) at the model's frames as the contract has them, counted from the first."""
    return CameraPath([Offset(float(dx), float(dy)) for dx, dy in offsets - offsets[0]])


PROBE = 0.01  # share of the frame: a second point beside the middle shows growth and turning
PROBES = np.array([(0.5, 0.5), (0.5 + PROBE, 0.5), (0.5, 0.5)])
PROBE_DISTANCES = np.array([1.0, 1.0, 2.0])  # of the background's


@dataclass(frozen=True)
class Steps:
    """What is seen from each of S views and again from the next.

    clip: (S, 3, 4), where the next view has the probes of this one, in clip space. aspect_before, aspect_after: (S,) of
    the two frames. lens: (S,) by which factor the lens makes things grow.
    """

    clip: Array
    aspect_before: Array
    aspect_after: Array
    lens: Array


def measure_steps(views: Sequence[View], distance: float) -> Steps:
    """The steps between S + 1 views, of a background `distance` away."""
    world_to_view = np.stack([view.world_to_view for view in views])
    lens = np.stack([view.projection for view in views])
    local = _unproject(lens[:-1], PROBES, PROBE_DISTANCES * distance)
    world = local @ np.linalg.inv(world_to_view[:-1]).swapaxes(1, 2)
    aspect, height = lens[:, 1, 1] / lens[:, 0, 0], lens[:, 1, 1]
    clip = world @ (lens[1:] @ world_to_view[1:]).swapaxes(1, 2)
    return Steps(clip, aspect[:-1], aspect[1:], height[1:] / height[:-1])


def _unproject(lens: Array, shares: Array, distances: Array) -> Array:
    """Points (T, N, 4) of T cameras' spaces at `shares` (N, 2) of their frames, `distances` (N,) ahead."""
    ndc = np.stack([2 * shares[:, 0] - 1, 1 - 2 * shares[:, 1]], axis=1)
    # (T, N, 2, 4): rows . (x, y, -distance, 1) = 0
    rows = lens[:, None, :2] - ndc[None, :, :, None] * lens[:, None, 3:]
    right_side = rows[..., 2] * distances[:, None] - rows[..., 3]
    across = np.linalg.solve(rows[..., :2], right_side[..., None])[..., 0]
    ahead = np.broadcast_to(np.stack([-distances, np.ones(len(distances))], axis=1), across.shape)
    return np.concatenate([across, ahead], axis=2)


def _summed(steps: Array) -> Array:
    return np.concatenate([np.zeros((1, *steps.shape[1:])), np.cumsum(steps, axis=0)])
