"""The JSON scripts of the MotionBooth authors, from a shot; generation.script reads them."""

from __future__ import annotations

import json
import shlex

import numpy as np
from motionbooth_protocol.errors import InvalidInput, NotFound
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.limits import MAX_FRAMES
from motionbooth_protocol.long_shots import is_long
from motionbooth_protocol.motion import Box, CameraPath, SubjectTrack

from motionbooth.export.request import ExportRequest
from motionbooth.models.sources import source_named

STRAIGHT = 0.01
"""Shares of the frame: how far a camera path may be from a straight one at a constant speed."""


def write_script(request: ExportRequest) -> list[str]:
    """script.json. Its camera is a pan at a constant speed. Raises InvalidInput for any other."""
    spec, shot = request.spec, request.spec.shot
    speed = _speed(shot.camera)
    camera = CameraPath.straight(*speed, shot.frames)
    seen = [track for track in shot.subjects if any(track.boxes)]
    script = {
        "prompt": spec.prompt,
        "phrases": [track.phrase for track in seen],
        "bbox": [[_world_box(track, frame, camera) for track in seen] for frame in range(shot.frames)] if seen else [],
        "bg_phrase": spec.background_phrase,
        "camera_speed": speed,
    }
    (request.folder / "script.json").write_text(json.dumps({k: v for k, v in script.items() if v}, indent=1), "utf-8")
    command = f"motionbooth generate script.json --model {shlex.quote(spec.model)}{_duration(spec)} --out clip.mp4"
    never = [track.name for track in shot.subjects if track not in seen]
    return [command, *(f"{name} is never in the frame, so the script is without it." for name in never)]


def _duration(spec: GenerateSpec) -> str:
    """The option for a shot that lasts longer than the model's clip, as far as the model is known here."""
    try:
        model = source_named(spec.model).info
    except NotFound:
        return ""
    seconds = spec.shot.scene_frames / spec.shot.fps
    if spec.long_shot == "spread" or not is_long(seconds, model.frames, model.fps):
        return ""
    return f" --seconds {min(seconds, MAX_FRAMES / model.fps):g}"


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
