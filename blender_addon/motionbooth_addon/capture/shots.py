"""Captures a shot from a scene: the screen boxes of its subjects and the camera path, at the model's frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import bpy

from .._protocol.errors import InvalidInput
from .._protocol.limits import MAX_SCENE_FRAMES, MAX_SUBJECTS
from .._protocol.long_shots import frames_at_rate, is_long
from .._protocol.motion import Shot, SubjectTrack
from .._protocol.text import Text
from .framing import WHOLE
from .geometry import TYPES_WITHOUT_SURFACE, Projection, is_deleted, objects_with_surface
from .parallax import with_parallax
from .reader import Motion, ReadMethod, ShotReader
from .scene_evaluation import cameras_of, render_size
from .shot_warnings import ShotWarning, spread_note, subject_warnings, windows_note


@dataclass(frozen=True)
class CapturedShot:
    """A shot, what the animator should know about it, and how the camera and each subject were read."""

    shot: Shot
    warnings: list[ShotWarning] = field(default_factory=list)
    read_methods: list[ReadMethod] = field(default_factory=list)


def has_shot(scene: bpy.types.Scene) -> bool:
    """Whether the scene has a subject."""
    return len(scene.motionbooth.subjects) > 0


def seconds_of(scene: bpy.types.Scene) -> float:
    """How long the scene's shot lasts."""
    return (scene.frame_end - scene.frame_start + 1) * scene.render.fps_base / scene.render.fps


def model_frames(scene: bpy.types.Scene, model: Any) -> int:
    """How many frames a model (`ModelInfo` or a row of the panel's) generates of the scene's shot."""
    seconds = seconds_of(scene)
    if scene.motionbooth.long_shot == "SPREAD" or not is_long(seconds, model.frames, model.fps):
        return int(model.frames)
    return frames_at_rate(seconds, model.frames, model.fps, model.frame_step)


def length_note(scene: bpy.types.Scene, model: Any) -> Text | None:
    """What becomes of the scene's shot if it lasts longer than the model's clip; None if it does not."""
    seconds = seconds_of(scene)
    if not is_long(seconds, model.frames, model.fps):
        return None
    if scene.motionbooth.long_shot == "SPREAD":
        return spread_note(seconds, model.frames, model.fps)
    return windows_note(seconds, model_frames(scene, model), model.frames, model.fps, model.frame_step)


def read_shot(scene: bpy.types.Scene, model_frames: int, model_size: tuple[int, int] | None = None) -> CapturedShot:
    """Capture the scene's shot at `model_frames` moments spread evenly over its frame range. Raises InvalidInput.

    model_size: width and height of the model's frame, to which the shot is fitted by its framing; None for a model with
        the shot's own aspect ratio.
    """
    check_scene(scene)
    motion = read_motion(scene, model_frames, model_size)
    settings = scene.motionbooth
    camera = with_parallax(scene, motion.camera, motion.moments) if settings.use_parallax else motion.camera
    shot = Shot(
        name=settings.name or scene.name,
        frame_start=scene.frame_start,
        frame_end=scene.frame_end,
        fps=scene.render.fps / scene.render.fps_base,
        width=render_size(scene)[0],
        height=render_size(scene)[1],
        camera=camera,
        subjects=[
            _track(subject, projections)
            for subject, projections in zip(settings.subjects, motion.projections, strict=True)
        ],
        model_frame=None if motion.frame == WHOLE else motion.frame,
    )
    return CapturedShot(shot, find_warnings(scene, motion), motion.read_methods)


def read_motion(scene: bpy.types.Scene, frames: int, model_size: tuple[int, int] | None = None) -> Motion:
    """Boxes and camera path at `frames` moments. A subject without an object is not visible. Raises InvalidInput."""
    check_frame(scene)
    reader = ShotReader(scene, frames, model_size[0] / model_size[1] if model_size else None)
    reader.advance(scene)
    return reader.motion(scene)


def find_warnings(scene: bpy.types.Scene, motion: Motion, stride: int = 1) -> list[ShotWarning]:
    """What the model cannot follow. `stride`: how many moments of `motion` there are for each of the model's frames."""
    found = list(motion.warnings)
    for subject, method, projections in zip(
        scene.motionbooth.subjects, motion.read_methods[1:], motion.projections, strict=True
    ):
        if not (method.playback_reason and motion.incomplete):
            boxes, behind = zip(*((shown.box, shown.behind) for shown in projections[::stride]), strict=True)
            found += subject_warnings(subject.name, boxes, behind, motion.moments[::stride], motion.frame)
    return found


def check_scene(scene: bpy.types.Scene) -> None:
    """Check everything that does not need the animation to be read. Raises InvalidInput."""
    check_frame(scene)
    if not scene.motionbooth.subjects:
        raise InvalidInput(
            'Scene "{scene}" has no subjects. Add one in the MotionBooth tab and choose its proxy object.',
            code="no_subjects",
            scene=scene.name,
        )
    if len(scene.motionbooth.subjects) > MAX_SUBJECTS:
        raise InvalidInput(
            'Scene "{scene}" has more than {most} subjects, the maximum for a shot. Remove some of them.',
            scene=scene.name,
            most=MAX_SUBJECTS,
        )
    names = set[str]()
    for subject in scene.motionbooth.subjects:
        _check_subject(subject, scene.name)
        key = bpy.path.clean_name(subject.name).casefold()  # also the name of its folder and its key in a report
        if key in names:
            raise InvalidInput(
                'Scene "{scene}" has two subjects named "{subject}". Give each a unique name.',
                scene=scene.name,
                subject=subject.name,
            )
        names.add(key)


def check_frame(scene: bpy.types.Scene) -> None:
    """Check the frame range and the cameras. Raises InvalidInput."""
    if scene.frame_end <= scene.frame_start:
        raise InvalidInput(
            'Scene "{scene}" has a frame range of only one frame ({start}). Set its end frame after its start frame.',
            scene=scene.name,
            start=scene.frame_start,
        )
    frames = scene.frame_end - scene.frame_start + 1
    if frames > MAX_SCENE_FRAMES:
        raise InvalidInput(
            'Scene "{scene}" has a frame range of {frames} frames, and a clip has at most {most}. Shorten the range.',
            scene=scene.name,
            frames=frames,
            most=MAX_SCENE_FRAMES,
        )
    for camera in cameras_of(scene):
        _check_camera(camera, scene.name)


def _check_camera(camera: bpy.types.Object | None, scene: str) -> None:
    if camera is None or camera.type != "CAMERA":
        raise InvalidInput(
            'Scene "{scene}" has no camera. Add one and make it the active camera (Ctrl+Numpad 0).',
            code="no_camera",
            scene=scene,
        )
    if camera.data.type not in {"PERSP", "ORTHO"}:
        raise InvalidInput(
            'Camera "{camera}" has the type {kind}. Make it perspective or orthographic.',
            camera=camera.name,
            kind=camera.data.type.lower(),
        )
    _check_enabled(camera)


def _check_subject(subject: bpy.types.PropertyGroup, scene: str) -> None:
    if not subject.name or not subject.class_word:
        raise InvalidInput(
            'Subject "{subject}" of scene "{scene}" needs a name and a class, such as dog or car.',
            subject=subject.name,
            scene=scene,
        )
    if subject.object is None:
        raise InvalidInput(
            'Subject "{subject}" of scene "{scene}" has no proxy object. Choose a subject box or the object that shows '
            "its position.",
            subject=subject.name,
            scene=scene,
        )
    if subject.object.type in TYPES_WITHOUT_SURFACE:
        raise InvalidInput(
            'The proxy object of subject "{subject}" of scene "{scene}" is the {kind} "{object}", which has no shape. '
            "Choose a mesh, a text or an empty.",
            subject=subject.name,
            scene=scene,
            kind=subject.object.type.lower(),
            object=subject.object.name,
        )
    if is_deleted(subject):
        raise InvalidInput(
            'The proxy object "{object}" of subject "{subject}" was deleted. Undo that, or choose another object.',
            object=subject.object.name,
            subject=subject.name,
        )
    for part in objects_with_surface(subject.object):
        _check_enabled(part)


def _check_enabled(checked: bpy.types.Object) -> None:
    if checked.hide_viewport:
        raise InvalidInput(
            'Object "{object}" is disabled in viewports, so Blender does not animate it. Enable it (the screen icon '
            "in the Outliner) and hide it with the eye icon instead.",
            object=checked.name,
        )


def _track(subject: bpy.types.PropertyGroup, projections: list[Projection]) -> SubjectTrack:
    boxes = [projection.box for projection in projections]
    if not any(boxes):
        raise InvalidInput(
            'Subject "{subject}" is outside the camera view in every frame of the shot. Move "{object}" or the camera.',
            subject=subject.name,
            object=subject.object.name,
        )
    return SubjectTrack(
        name=subject.name,
        token=subject.token,
        class_word=subject.class_word,
        weights=subject.weights or None,
        boxes=boxes,
    )
