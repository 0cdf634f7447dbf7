"""Projects world points to screen boxes and measures a camera path, from matrices (no bpy).

In Blender y points up and cameras look along -z; in the contract y points down. Only `to_shares` flips y.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._protocol.motion import Box, CameraPath, CameraPose, Homography, Offset, invertible

# As numpy.typing.NDArray has them; importing that would take longer than all of the extension.
Array = np.ndarray[Any, np.dtype[np.float64]]
Edges = np.ndarray[Any, np.dtype[np.integer[Any]]]

MIN_EXTENT = 1e-4  # share of the frame: a flat shape seen edge-on, or a single point, still needs a box with an area
MAX_COORDINATE = 100.0  # shares of the frame: the contract's limit
SAME_PAN = 1e-4  # share of the frame: by how much a corner of the background may miss a pan


@dataclass(frozen=True)
class View:
    """A camera at one moment.

    world_to_view: (4, 4), world to camera space (x right, y up, looking along -z), without scale.
    view_to_clip: (4, 4), camera space to OpenGL's clip space: x / w and y / w run from -1 to 1 across the frame, and
        z + w > 0 beyond the near plane. It includes lens, sensor fit, pixel aspect and shift.
    """

    world_to_view: Array
    view_to_clip: Array

    def framed(self, frame: Box) -> View:
        """The same camera with another frame; `frame` is in shares of the current one."""
        width, height = frame.x2 - frame.x1, frame.y2 - frame.y1
        x, y = frame.center
        to_frame = np.eye(4)  # scales and shifts clip space, so that the sides of `frame` are at -1 and 1
        to_frame[0, 0], to_frame[1, 1] = 1 / width, 1 / height
        to_frame[0, 3], to_frame[1, 3] = (1 - 2 * x) / width, (2 * y - 1) / height
        return View(self.world_to_view, to_frame @ self.view_to_clip)


@dataclass(frozen=True)
class Travel:
    """Camera motion over T moments, measured on a background at one distance.

    offsets: (T, 2) how far the view has traveled, in shares of the frame, right and down positive; the first is (0, 0).
    zoom: (T,) the factor by which the background has grown on screen; lens: (T,) the part of it that the lens explains.
    lag: (T, 2) by how much less than `offsets` things twice as far away have moved (parallax).
    cuts: indices of moments at which the view jumps too far to be measured.
    """

    offsets: Array
    zoom: Array
    lens: Array
    lag: Array
    cuts: list[int]


def screen_box(points: Array, edges: Edges, view: View) -> Box | None:
    """Screen bounds of world `points` (N, 3) with `edges` (E, 2), clipped at the near plane.

    Exact for any mesh: a clipped face has its corners at the points beyond the near plane and where its edges cross
    that plane. None if nothing is in front of the camera or everything is outside the frame.
    """
    clip = to_clip(points, view)
    depth = clip[:, 2] + clip[:, 3]  # > 0 beyond the near plane
    ahead = depth > 0
    visible = clip[ahead]
    if not ahead.all():
        visible = np.concatenate([visible, _near_crossings(clip, depth, edges)])
    return _bounds(to_shares(visible)) if len(visible) else None


def is_behind(points: Array, view: View) -> bool:
    """Whether none of the world `points` (N, 3) is beyond the near plane."""
    clip = to_clip(points, view)
    return bool((clip[:, 2] + clip[:, 3] <= 0).all())


def to_clip(points: Array, view: View) -> Array:
    """World points (N, 3) to clip space (N, 4)."""
    world_to_clip = view.view_to_clip @ view.world_to_view
    return points @ world_to_clip[:, :3].T + world_to_clip[:, 3]


def to_shares(clip: Array) -> Array:
    """Clip space (.., 4) in front of the camera to shares of the frame (.., 2): origin top left, y down."""
    ndc = clip[..., :2] / clip[..., 3:4]
    return np.stack([(1 + ndc[..., 0]) / 2, (1 - ndc[..., 1]) / 2], axis=-1)


def _near_crossings(clip: Array, depth: Array, edges: Edges) -> Array:
    """The points (M, 4) in clip space where edges cross the near plane."""
    start, end = edges[:, 0], edges[:, 1]
    cross = (depth[start] > 0) != (depth[end] > 0)
    start, end = start[cross], end[cross]
    along = (depth[start] / (depth[start] - depth[end]))[:, None]
    return clip[start] + along * (clip[end] - clip[start])


def _bounds(shares: Array) -> Box | None:
    low, high = shares.min(axis=0), shares.max(axis=0)
    thin = np.maximum(MIN_EXTENT - (high - low), 0) / 2
    low = np.clip(low - thin, -MAX_COORDINATE, MAX_COORDINATE - MIN_EXTENT)
    high = np.clip(high + thin, MIN_EXTENT - MAX_COORDINATE, MAX_COORDINATE)
    box = Box(float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    return box if box.visible else None


def accumulate(batches: Sequence[Steps], other_camera: Sequence[int] = ()) -> Travel:
    """The travel over all steps: how the background has slid through the frame since the first view.

    The reference point is the center of the view. It is chosen anew at each view and the steps are summed, so that a
    rotating camera travels as far as its picture slides, even past 90 degrees, where a point fixed at the first view
    would end up behind the camera. For a camera that tracks or shifts its lens both definitions agree. The views
    should be close together (one for each scene frame).

    batches: from `measure_steps`, in order.
    other_camera: indices of the views that belong to another camera than the view before. They add no travel.
    """
    steps = Steps(*(np.concatenate([getattr(batch, name) for batch in batches]) for name in Steps.__match_args__))
    jumps = ~(steps.clip[:, :, 3] > 1e-9).all(axis=1)
    ignored = jumps.copy()
    ignored[[index - 1 for index in other_camera]] = True
    clip = np.where(ignored[:, None, None], np.array([0.0, 0.0, 0.0, 1.0]), steps.clip)
    middle, beside, far = np.moveaxis(to_shares(clip), 1, 0)
    right = (beside - middle) * steps.aspect_after[:, None] ** (1, 0)  # in units of the frame's height
    zoom = np.hypot(*right.T) / (PROBE * steps.aspect_before)
    return Travel(
        offsets=_cumulative(np.where(ignored[:, None], 0.0, 0.5 - middle)),
        zoom=np.exp(_cumulative(np.log(np.where(ignored, 1.0, zoom)))),
        lens=np.exp(_cumulative(np.log(np.where(ignored, 1.0, steps.lens)))),
        lag=_cumulative(np.where(ignored[:, None], 0.0, far - middle)),
        cuts=[int(step) + 1 for step in np.flatnonzero(jumps) if step + 1 not in set(other_camera)],
    )


def camera_path(offsets: Array, homographies: Array | None = None) -> CameraPath:
    """The contract's camera path from offsets (F, 2) at the model's frames, relative to the first.

    homographies: (F, 3, 3) of the background; left out if the offsets already say what they do to the frame's corners.
    """
    offsets = offsets - offsets[0]
    path = [Offset(float(dx), float(dy)) for dx, dy in offsets]
    if homographies is None or _is_pan(homographies, offsets):
        return CameraPath(path)
    return CameraPath(path, [as_homography(matrix) for matrix in homographies])


def background_homographies(views: Sequence[View], distance: float) -> Array:
    """(F, 3, 3): where the background of the first view is in each, in shares of the frame, up to a positive factor.

    The background is a plane that faces the first view at `distance` (scene units). Scaled to a determinant of 1 (or
    -1, if the camera sees it from behind); NaN if the plane is seen edge-on.
    """
    on_plane = np.array([[1, 0, 0], [0, 1, 0], [0, 0, -distance], [0, 0, 1]])  # (x, y, 1) to the first camera's space
    to_shares_w = np.array([[0.5, 0, 0.5], [0, -0.5, 0.5], [0, 0, 1]])  # clip space (x, y, w)
    start = np.linalg.inv(views[0].world_to_view) @ on_plane
    seen = to_shares_w @ np.stack([(view.view_to_clip @ view.world_to_view @ start)[[0, 1, 3]] for view in views])
    maps = seen @ np.linalg.inv(seen[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        maps /= np.cbrt(np.abs(np.linalg.det(maps)))[:, None, None]
    maps[0] = np.eye(3)
    return maps


def camera_poses(views: Sequence[View], meters: float) -> list[CameraPose]:
    """The poses of views, for other programs; empty unless all are perspective. `meters`: of a scene unit."""
    if any(view.view_to_clip[3, 3] for view in views):
        return []
    return [_pose(view, meters) for view in views]


def _pose(view: View, meters: float) -> CameraPose:
    to_world = np.linalg.inv(view.world_to_view)[:3] * (1, -1, -1, meters)  # y down, z ahead
    clip = view.view_to_clip
    focal, center = (clip[0, 0] / 2, clip[1, 1] / 2), ((1 - clip[0, 2]) / 2, (1 + clip[1, 2]) / 2)
    x, y, z = map(tuple, to_world.tolist())
    return CameraPose((x, y, z), (float(focal[0]), float(focal[1])), (float(center[0]), float(center[1])))


def as_homography(matrix: Array) -> Homography:
    a, b, c = matrix.tolist()
    return tuple(a), tuple(b), tuple(c)


def unusable(homographies: Array) -> list[int]:
    """The indices of homographies (F, 3, 3) outside the contract's limits: the camera reaches the background."""
    within = np.abs(homographies).max(axis=(1, 2)) <= MAX_COORDINATE  # False for NaN
    return [index for index, fits in enumerate(within) if not (fits and invertible(as_homography(homographies[index])))]


def _is_pan(homographies: Array, offsets: Array) -> bool:
    corners = np.array([(0, 0, 1), (1, 0, 1), (0, 1, 1), (1, 1, 1)], dtype=float)
    seen = corners @ homographies.swapaxes(1, 2)  # (F, 4, 3)
    if (seen[..., 2] <= 0).any():
        return False
    missed = seen[..., :2] / seen[..., 2:] - (corners[:, :2] - offsets[:, None])
    return bool((np.abs(missed) <= SAME_PAN).all())


PROBE = 0.01  # share of the frame: a second point beside the center measures zoom
PROBES = np.array([(0.5, 0.5), (0.5 + PROBE, 0.5), (0.5, 0.5)])
PROBE_DISTANCES = np.array([1.0, 1.0, 2.0])  # multiples of the background distance


@dataclass(frozen=True)
class Steps:
    """S steps, each from one view to the next.

    clip: (S, 3, 4), the probes of the first view, in the clip space of the second.
    aspect_before, aspect_after: (S,), the aspect ratios of the two frames.
    lens: (S,), the factor by which the lens enlarges things.
    """

    clip: Array
    aspect_before: Array
    aspect_after: Array
    lens: Array


def measure_steps(views: Sequence[View], distance: float) -> Steps:
    """Measure the S steps between S + 1 views, for a background at `distance` (scene units)."""
    world_to_view = np.stack([view.world_to_view for view in views])
    lens = np.stack([view.view_to_clip for view in views])
    local = _unproject(lens[:-1], PROBES, PROBE_DISTANCES * distance)
    world = local @ np.linalg.inv(world_to_view[:-1]).swapaxes(1, 2)
    aspect, height = lens[:, 1, 1] / lens[:, 0, 0], lens[:, 1, 1]
    clip = world @ (lens[1:] @ world_to_view[1:]).swapaxes(1, 2)
    return Steps(clip, aspect[:-1], aspect[1:], height[1:] / height[:-1])


def _unproject(lens: Array, shares: Array, distances: Array) -> Array:
    """Points (T, N, 4) in T camera spaces, at `shares` (N, 2) of the frame and `distances` (N,) ahead."""
    ndc = np.stack([2 * shares[:, 0] - 1, 1 - 2 * shares[:, 1]], axis=1)
    # (T, N, 2, 4): rows . (x, y, -distance, 1) = 0
    rows = lens[:, None, :2] - ndc[None, :, :, None] * lens[:, None, 3:]
    right_side = rows[..., 2] * distances[:, None] - rows[..., 3]
    across = np.linalg.solve(rows[..., :2], right_side[..., None])[..., 0]
    ahead = np.broadcast_to(np.stack([-distances, np.ones(len(distances))], axis=1), across.shape)
    return np.concatenate([across, ahead], axis=2)


def _cumulative(steps: Array) -> Array:
    return np.concatenate([np.zeros((1, *steps.shape[1:])), np.cumsum(steps, axis=0)])
