"""A shot as tracks of points in pixels: some in each subject's box, others on the background around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from motionbooth_protocol.motion import Box, CameraPath, Shot
from numpy.typing import NDArray

from motionbooth.evaluation.flow_error import Tracks
from motionbooth.export.engine_shot import nearness

IN_BOX = (1 / 6, 1 / 2, 5 / 6)
"""Shares of a box's width and height: where its points are."""

ON_BACKGROUND = (8, 5)
"""Points across and down the first frame."""


@dataclass(frozen=True)
class PointTracks(Tracks):
    """`visible`: in the frame, and not covered by a subject's box."""

    @property
    def from_the_start(self) -> PointTracks:
        """Those that the first frame shows. Engines that start from a picture take the points' content from it."""
        kept = self.visible[0]
        return PointTracks(self.points[:, kept], self.visible[:, kept])


def point_tracks(shot: Shot, size: tuple[int, int]) -> PointTracks:
    """The tracks of a shot in a frame of `size` (width, height), nine for each subject and the background's grid."""
    columns = [_in_boxes(track.boxes) for track in shot.subjects]
    columns.append(_on_background(shot.camera))
    shares = np.concatenate(columns, axis=1)  # (T, N, 2), NaN while there is no box
    within = ((shares >= 0) & (shares < 1)).all(axis=-1)
    background = slice(9 * len(shot.subjects), None)
    for track in shot.subjects:
        within[:, background] &= ~_covered(shares[:, background], track.boxes)
    points = np.nan_to_num(shares) * size
    return PointTracks(points.astype(np.float32), within)


def _in_boxes(boxes: list[Box | None]) -> NDArray[np.float64]:
    grid = np.stack(np.meshgrid(IN_BOX, IN_BOX), axis=-1).reshape(-1, 2)
    nowhere = np.full_like(grid, np.nan)
    return np.stack([nowhere if box is None else _place(grid, box) for box in boxes])


def _place(grid: NDArray[np.float64], box: Box) -> NDArray[np.float64]:
    return np.array([box.x1, box.y1]) + grid * np.array([box.x2 - box.x1, box.y2 - box.y1])


def _on_background(camera: CameraPath) -> NDArray[np.float64]:
    across, down = ((np.arange(count) + 0.5) / count for count in ON_BACKGROUND)
    grid = np.stack([*np.meshgrid(across, down), np.ones(ON_BACKGROUND[::-1])], axis=-1).reshape(-1, 3)
    if not camera.homographies:
        return grid[None, :, :2] - np.array([[(offset.dx, offset.dy)] for offset in camera.offsets])
    seen = grid @ np.array(camera.homographies).swapaxes(1, 2)  # (T, N, 3)
    if camera.parallax is not None:
        near = nearness(camera.parallax)[0]
        cells = (grid[:, :2] * near.shape[::-1]).astype(int)
        far = grid @ np.array(camera.parallax.infinity).swapaxes(1, 2)
        seen = far + near[cells[:, 1], cells[:, 0], None] * (seen - far)
    x, y, w = np.moveaxis(seen, -1, 0)
    return np.where((w > 1e-9)[..., None], np.stack([x, y], axis=-1) / np.maximum(w, 1e-9)[..., None], np.nan)


def _covered(points: NDArray[np.float64], boxes: list[Box | None]) -> NDArray[np.bool_]:
    """(T, N)"""
    edges = np.array([[np.nan] * 4 if box is None else box.as_tuple() for box in boxes])[:, None]  # (T, 1, 4)
    return ((points >= edges[..., :2]) & (points <= edges[..., 2:])).all(axis=-1)
