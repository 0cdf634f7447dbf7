"""The JSON scripts of the MotionBooth authors, from a shot; generation.script reads them."""

from __future__ import annotations

import json

import numpy as np
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.motion import Box, CameraPath, SubjectTrack

from motionbooth.export.request import ExportRequest

STRAIGHT = 0.01
"""Shares of the frame: how far a camera path may be from a straight one at a constant speed."""


def write_script(request: ExportRequest) -> list[str]:
    """script.json. Its camera is a pan at a constant speed. Raises InvalidInput for any other."""
    spec, shot = request.spec, request.spec.shot
    speed = _speed(shot.camera)
    camera = CameraPath.straight(*speed, shot.frames)
    script = {
        "prompt": spec.prompt,
        "phrases": [track.phrase for track in shot.subjects],
        "bbox": [[_world_box(track, frame, camera) for track in shot.subjects] for frame in range(shot.frames)]
        if shot.subjects
        else [],
        "bg_phrase": spec.background_phrase,
        "camera_speed": speed,
    }
    (request.folder / "script.json").write_text(json.dumps({k: v for k, v in script.items() if v}, indent=1), "utf-8")
    return [f"motionbooth generate script.json --model {spec.model} --out clip.mp4"]


def _speed(camera: CameraPath) -> tuple[float, float]:
    travel = np.array([(offset.dx, offset.dy) for offset in camera.offsets])
    steps = np.arange(len(travel))[:, None] / len(travel)
    speed = (steps * travel).sum(axis=0) / max(float((steps**2).sum()), 1e-9)  # least squares
    if camera.homographies or np.abs(steps * speed - travel).max() > STRAIGHT:
        raise InvalidInput(
            "A script's camera pans at a constant speed, and this shot's camera does not. Export it for another "
            "engine.",
            code="uneven_pan",
        )
    return float(speed[0]), float(speed[1])


def _world_box(track: SubjectTrack, frame: int, camera: CameraPath) -> tuple[float, ...]:
    """The box in the uncovered world; out of frame, it is a frame's width beside it."""
    box = track.boxes[frame]
    offset = camera.offsets[frame]
    return (Box(1.5, 0.25, 1.75, 0.5) if box is None else box).moved(offset.dx, offset.dy).as_tuple()
