"""The JSON scripts of the MotionBooth authors, from a shot; generation.script reads them."""

from __future__ import annotations

import json
import shlex

import numpy as np
from motionbooth_protocol.errors import InvalidInput, NotFound
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.limits import MAX_FRAMES
from motionbooth_protocol.long_shots import frames_at_rate, is_long
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack

from motionbooth.export.engine_shot import engine_shot
from motionbooth.export.request import ExportRequest
from motionbooth.models.sources import source_named

STRAIGHT = 0.01
"""Shares of the frame: how far a camera path may be from a straight one at a constant speed."""

Travel = tuple[float, float]


def write_script(request: ExportRequest) -> list[str]:
    """script.json. Its camera is a pan at a constant speed. Raises InvalidInput for any other."""
    spec = request.spec
    shot, frames, duration = _read_as(spec)
    travel = _travel(shot.camera)
    seen = [track for track in shot.subjects if any(track.boxes)]
    keys = np.linspace(0, 1, shot.frames).tolist()
    script = {
        "prompt": spec.prompt,
        "phrases": [track.phrase for track in seen],
        "bbox": [[_world_box(track, frame, travel, time) for track in seen] for frame, time in enumerate(keys)]
        if seen
        else [],
        "bg_phrase": spec.background_phrase,
        # Of the paper: the frame f of F has traveled f / F of it.
        "camera_speed": [each * frames / max(frames - 1, 1) for each in travel],
    }
    (request.folder / "script.json").write_text(json.dumps({k: v for k, v in script.items() if v}, indent=1), "utf-8")
    command = f"motionbooth generate script.json --model {shlex.quote(spec.model)}{duration} --out clip.mp4"
    never = [track.name for track in shot.subjects if track not in seen]
    return [command, *(f"{name} is never in the frame, so the script is without it." for name in never)]


def _read_as(spec: GenerateSpec) -> tuple[Shot, int, str]:
    """The shot in the model's frame, for how many frames the script is read, and the option for a shot that lasts
    longer than the model's clip. For a model that is not known here, the shot's own frame and number of frames."""
    try:
        model = source_named(spec.model).info
    except NotFound:
        return spec.shot, spec.shot.frames, ""
    shot = engine_shot(spec.shot, spec.shot.frames, (model.width, model.height))
    seconds = min(spec.shot.scene_frames / spec.shot.fps, MAX_FRAMES / model.fps)
    if spec.long_shot == "spread" or not is_long(seconds, model.frames, model.fps):
        return shot, model.frames, ""
    return shot, frames_at_rate(seconds, model.frames, model.fps, model.frame_step), f" --seconds {seconds:g}"


def _travel(camera: CameraPath) -> Travel:
    """How far the camera has traveled in the last frame."""
    offsets = np.array([(offset.dx, offset.dy) for offset in camera.offsets])
    times = np.linspace(0, 1, len(offsets))[:, None]
    travel = (times * offsets).sum(axis=0) / max(float((times**2).sum()), 1e-9)  # least squares
    if camera.homographies or np.abs(times * travel - offsets).max() > STRAIGHT:
        raise InvalidInput(
            "A script's camera pans at a constant speed, and this shot's camera does not. Export it for another "
            "engine.",
            code="uneven_pan",
        )
    return float(travel[0]), float(travel[1])


def _world_box(track: SubjectTrack, frame: int, travel: Travel, time: float) -> tuple[float, ...]:
    """The box in the uncovered world; out of frame, it is a frame's width beside it. `time`: 0 to 1."""
    box = track.boxes[frame] or Box(1.5, 0.25, 1.75, 0.5)
    return box.moved(travel[0] * time, travel[1] * time).as_tuple()
