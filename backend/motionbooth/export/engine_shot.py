"""A shot at another engine's frames: resampled in time, and in shares of that engine's frame."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.motion import (
    Box,
    CameraPath,
    CameraPose,
    Homography,
    Offset,
    Parallax,
    Shot,
    SubjectTrack,
    invertible,
)
from msgspec.structs import replace
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

SAME_ASPECT = 1e-3  # relative difference that is less than a pixel of any clip
WHOLE = Box(0.0, 0.0, 1.0, 1.0)
Array = NDArray[np.float64]


def engine_shot(shot: Shot, frames: int, size: tuple[int, int]) -> Shot:
    """The shot at `frames` moments from its first frame to its last, in a frame of `size` (width, height).

    That frame contains all of the finished one, centered, and nothing is stretched. Between the shot's frames, boxes,
    camera and poses are interpolated linearly (rotations: the shortest way); a box that only one of two neighbors has
    is taken from the nearer one. Raises InvalidInput if the camera's homographies are out of bounds in that frame.
    """
    at = np.linspace(0, shot.frames - 1, frames)
    frame = _containing(shot.width / shot.height, size[0] / size[1])
    before = shot.model_frame or WHOLE
    scale = np.array([_width(before) / _width(frame), _height(before) / _height(frame)])
    start = np.array([(before.x1 - frame.x1) / _width(frame), (before.y1 - frame.y1) / _height(frame)])
    subjects = [
        replace(track, boxes=[_seen(_box_at(track.boxes, moment), scale, start) for moment in at])
        for track in shot.subjects
    ]
    try:
        camera = _camera_at(shot.camera, at, scale, start)
    except ValueError as error:  # the contract's
        raise InvalidInput(
            "The shot's camera turns too far to be shown in a frame of {width} x {height} px. Choose a size whose "
            "aspect ratio is closer to the shot's.",
            width=size[0],
            height=size[1],
        ) from error
    return replace(shot, camera=camera, subjects=subjects, model_frame=None if frame == WHOLE else frame)


def to_engine_frame(shot: Shot, size: tuple[int, int]) -> Array:
    """(2, 3): from shares of the shot's model frame to pixels of a frame of `size`, for clips such as a guide."""
    corners = replace(shot, camera=CameraPath.still(2), subjects=[_corners(shot)])
    box = engine_shot(corners, 2, size).subjects[0].boxes[0]
    assert box is not None
    width, height = size
    return np.array([[(box.x2 - box.x1) * width, 0, box.x1 * width], [0, (box.y2 - box.y1) * height, box.y1 * height]])


def _corners(shot: Shot) -> SubjectTrack:
    return SubjectTrack("frame", "frame", [WHOLE, WHOLE])


def _containing(aspect: float, engine_aspect: float) -> Box:
    """The engine's frame in shares of the finished frame."""
    wider = engine_aspect / aspect
    if abs(wider - 1) < SAME_ASPECT:
        return WHOLE
    across = max(wider, 1.0)
    up = across / wider
    return Box(0.5 - across / 2, 0.5 - up / 2, 0.5 + across / 2, 0.5 + up / 2)


def _width(box: Box) -> float:
    return box.x2 - box.x1


def _height(box: Box) -> float:
    return box.y2 - box.y1


def _box_at(boxes: Sequence[Box | None], moment: float) -> Box | None:
    """The box at an index with a fraction."""
    index = int(moment)
    before, after, part = boxes[index], boxes[min(index + 1, len(boxes) - 1)], moment - index
    if before is None or after is None:
        return before if part < 0.5 else after
    return Box(*(float(a + (b - a) * part) for a, b in zip(before.as_tuple(), after.as_tuple(), strict=True)))


def _seen(box: Box | None, scale: Array, start: Array) -> Box | None:
    if box is None:
        return None
    x1, y1, x2, y2 = (np.array(box.as_tuple()).reshape(2, 2) * scale + start).ravel().tolist()
    moved = Box(x1, y1, x2, y2)
    return moved if moved.visible else None


def _camera_at(camera: CameraPath, at: Array, scale: Array, start: Array) -> CameraPath:
    frames = range(len(camera.offsets))
    travel = np.array([(offset.dx, offset.dy) for offset in camera.offsets]) * scale
    dx, dy = (np.interp(at, frames, axis).tolist() for axis in travel.T)
    path = CameraPath(list(map(Offset, dx, dy)), poses=_poses_at(camera.poses, at, scale, start))
    if not camera.homographies:
        return path
    to_engine = np.array([[scale[0], 0, start[0]], [0, scale[1], start[1]], [0, 0, 1]])
    factors = np.cbrt(np.linalg.det(np.array(camera.homographies)))[:, None, None]

    def changed(matrices: Sequence[Homography], at: Array) -> list[Homography]:
        entries = (np.array(matrices) / factors).reshape(-1, 9).T
        between = np.stack([np.interp(at, frames, entry) for entry in entries], axis=1).reshape(-1, 3, 3)
        found = to_engine @ between @ np.linalg.inv(to_engine)
        found[0] = np.eye(3)
        return msgspec.convert(found.tolist(), list[Homography])

    possible = [invertible(each) for each in changed(camera.homographies, at)]
    at = np.where(possible, at, at.round())  # at a cut, the nearer frame
    path = replace(path, homographies=changed(camera.homographies, at))
    if camera.parallax is None:
        return path
    near = nearness(camera.parallax)[at.round().astype(int)]
    rows, columns = (
        np.clip((((np.arange(count) + 0.5) / count - first) / share * count).astype(int), 0, count - 1)
        for count, first, share in zip(near.shape[1:], start[::-1], scale[::-1], strict=True)
    )
    seen = near[:, rows[:, None], columns].astype("<f2").tobytes()
    infinity = changed(camera.parallax.infinity, at)
    return replace(path, parallax=replace(camera.parallax, infinity=infinity, nearness=seen))


def nearness(parallax: Parallax) -> Array:
    """(F, rows, columns)"""
    found = np.frombuffer(parallax.nearness, "<f2").astype(np.float64)
    return found.reshape(len(parallax.infinity), parallax.rows, parallax.columns)


def _poses_at(poses: Sequence[CameraPose], at: Array, scale: Array, start: Array) -> list[CameraPose]:
    to_world = np.array([pose.to_world for pose in poses])  # (F, 3, 4)
    if not poses or (np.linalg.det(to_world[:, :, :3]) <= 0).any():  # no engine has a camera that mirrors
        return []
    frames = np.arange(len(poses))
    focal, center = (np.array([getattr(pose, name) for pose in poses]) for name in ("focal", "center"))
    rotations = Rotation.from_matrix(to_world[:, :, :3])
    turned = (Slerp(frames, rotations)(at) if len(poses) > 1 else rotations).as_matrix()  # (T or 1, 3, 3)
    numbers = np.concatenate([to_world[:, :, 3], focal * scale, center * scale + start], axis=1)
    found = np.stack([np.interp(at, frames, column) for column in numbers.T], axis=1)  # (T, 7)
    rows = np.concatenate([np.broadcast_to(turned, (len(at), 3, 3)), found[:, :3, None]], axis=2)
    parts = zip(rows.tolist(), found[:, 3:5].tolist(), found[:, 5:].tolist(), strict=True)
    return msgspec.convert(list(parts), list[CameraPose])
