"""Reads a shot from a scene: screen boxes of its subjects and the camera's path, at the model's frames.

What can be is evaluated in a temporary scene that holds only the cameras and the subjects, so a heavy scene costs
nothing; parents, constraints, drivers and armatures outside of it are still evaluated, and the user's scene is not
touched. What is simulated, or driven by the scene itself, is read by playing the scene, see dependence.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import bpy

from .._protocol.errors import InvalidInput
from .._protocol.limits import MAX_SUBJECTS
from .._protocol.motion import Shot, SubjectTrack
from .framing import WHOLE
from .outlines import UNSEEN_TYPES, Seen, with_geometry
from .reader import Motion, Reader, Way
from .shot_warnings import Concern, track_concerns
from .stages import cameras_of, render_size


@dataclass(frozen=True)
class Reading:
    """A shot as the scene has it, and what the animator should know about it."""

    shot: Shot
    concerns: list[Concern] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """The concerns as sentences."""
        return [concern.sentence for concern in self.concerns]


def has_shot(scene: bpy.types.Scene) -> bool:
    """Does this scene have a subject to film?"""
    return len(scene.motionbooth.subjects) > 0


def read_shot(scene: bpy.types.Scene, model_frames: int, model_size: tuple[int, int] | None = None) -> Reading:
    """Sample the scene at `model_frames` moments spread over its frame range. Raises InvalidInput.

    `model_size`: width and height of the model's frame, into which everything is mapped as the shot's framing has it;
    None for a model of the shot's own shape.
    """
    check_scene(scene)
    motion = read_motion(scene, model_frames, model_size)
    settings = scene.motionbooth
    shot = Shot(
        name=settings.name or scene.name,
        frame_start=scene.frame_start,
        frame_end=scene.frame_end,
        fps=scene.render.fps / scene.render.fps_base,
        width=render_size(scene)[0],
        height=render_size(scene)[1],
        camera=motion.camera,
        subjects=[_track(subject, sights) for subject, sights in zip(settings.subjects, motion.sights, strict=True)],
        model_frame=None if motion.frame == WHOLE else motion.frame,
    )
    return Reading(shot, concerns(scene, motion), motion.ways)


def read_motion(scene: bpy.types.Scene, frames: int, model_size: tuple[int, int] | None = None) -> Motion:
    """Boxes and camera path at `frames` moments. A subject without an object is nowhere. Raises InvalidInput."""
    check_frame(scene)
    reader = Reader(scene, frames, model_size[0] / model_size[1] if model_size else None)
    reader.go_on(scene)
    return reader.motion(scene)


def concerns(scene: bpy.types.Scene, motion: Motion, every: int = 1) -> list[Concern]:
    """What a model cannot follow of the shot, where every `every`-th moment of `motion` is one of its frames."""
    found = list(motion.concerns)
    for subject, way, sights in zip(scene.motionbooth.subjects, motion.ways[1:], motion.sights, strict=True):
        if not (way.reason and motion.unread):
            boxes, behind = [seen.box for seen in sights[::every]], [seen.behind for seen in sights[::every]]
            found += track_concerns(subject.name, boxes, behind, motion.moments[::every], motion.frame)
    return found


def check_scene(scene: bpy.types.Scene) -> None:
    """Raises InvalidInput for what can be seen without reading the scene's animation."""
    check_frame(scene)
    where = f'Scene "{scene.name}"'
    if not scene.motionbooth.subjects:
        raise InvalidInput(f"{where} has no subject; add one to its MotionBooth subjects and choose its object.")
    if len(scene.motionbooth.subjects) > MAX_SUBJECTS:
        raise InvalidInput(
            f"{where} has more than {MAX_SUBJECTS} subjects, the most that a shot may have; remove some."
        )
    names = set[str]()
    for subject in scene.motionbooth.subjects:
        _check_subject(subject, where)
        spelt = bpy.path.clean_name(subject.name).casefold()  # as its folder and its line in a report are found by it
        if spelt in names:
            raise InvalidInput(f'{where} has two subjects called "{subject.name}"; give each a name of its own.')
        names.add(spelt)


def check_frame(scene: bpy.types.Scene) -> None:
    """Raises InvalidInput where there is no range or no camera, whatever the subjects are."""
    where = f'Scene "{scene.name}"'
    if scene.frame_end <= scene.frame_start:
        raise InvalidInput(
            f"{where} has a frame range of one frame ({scene.frame_start}); set its end frame after its start frame."
        )
    for camera in cameras_of(scene):
        _check_camera(camera, where)


def _check_camera(camera: bpy.types.Object | None, where: str) -> None:
    if camera is None or camera.type != "CAMERA":
        raise InvalidInput(f"{where} has no camera; add one and make it the active camera (Ctrl+Numpad 0).")
    if camera.data.type not in {"PERSP", "ORTHO"}:
        raise InvalidInput(
            f'Camera "{camera.name}" is of type {camera.data.type.lower()}; make it perspective or orthographic.'
        )
    _check_enabled(camera)


def _check_subject(subject: bpy.types.PropertyGroup, where: str) -> None:
    if not subject.name or not subject.class_word:
        raise InvalidInput(
            f'Subject "{subject.name}" of {where} needs a name and a class, the ordinary word for it (dog, car).'
        )
    if subject.object is None:
        raise InvalidInput(
            f'Subject "{subject.name}" of {where} has no object; choose the rectangle or object that shows where it is '
            "to be seen."
        )
    if subject.object.type in UNSEEN_TYPES:
        raise InvalidInput(
            f'Subject "{subject.name}" of {where} is the {subject.object.type.lower()} "{subject.object.name}", which '
            "has no shape; choose a mesh, a text, an empty or the like."
        )
    for part in with_geometry(subject.object):
        _check_enabled(part)


def _check_enabled(thing: bpy.types.Object) -> None:
    if thing.hide_viewport:
        raise InvalidInput(
            f'Object "{thing.name}" is disabled in viewports, so Blender does not animate it; enable it (the screen '
            "icon in the outliner) and hide it with the eye icon instead."
        )


def _track(subject: bpy.types.PropertyGroup, sights: list[Seen]) -> SubjectTrack:
    boxes = [seen.box for seen in sights]
    if not any(boxes):
        raise InvalidInput(
            f'Subject "{subject.name}" is outside the camera\'s view in every frame of the shot; move '
            f'"{subject.object.name}" or the camera so that it is seen.'
        )
    return SubjectTrack(
        name=subject.name,
        token=subject.token,
        class_word=subject.class_word,
        weights=subject.weights or None,
        boxes=boxes,
    )
