"""What is the guide of a shot; the scene as a library for the Blender that renders it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import bpy

from .._protocol.errors import InvalidInput
from .._protocol.motion import Shot
from ..capture import shot_cache
from ..capture.geometry import NOT_RENDERED
from ..job_store import GuideRender
from ..turntable.background_render import CYCLES, GUIDE, SCENE, WORKBENCH


def rendered_parts(subject: bpy.types.PropertyGroup) -> list[bpy.types.Object]:
    """What a render shows of the subject's proxy object and its children; a subject box is never rendered."""
    parts = [] if subject.object is None else [subject.object, *subject.object.children_recursive]
    return [
        part for part in parts if not part.hide_render and (part.type not in NOT_RENDERED or part.instance_collection)
    ]


def _visibility(scene: bpy.types.Scene) -> list[object]:
    """What a render shows of the scene: Blender reports changes of it as it does a new frame."""
    collections = [(each.name, each.hide_render) for each in scene.collection.children_recursive]
    objects = [
        [(thing.name, thing.hide_render, thing.visible_camera) for thing in layer.objects]
        for layer in scene.view_layers
    ]
    return [collections, objects]


def own_clip(scene: bpy.types.Scene) -> str:
    """Path of the scene's own guide, "" if it has none or the guide is off. Raises InvalidInput without the file."""
    settings = scene.motionbooth
    path = bpy.path.abspath(settings.guide_clip) if settings.use_guide else ""
    if path and not Path(path).is_file():
        raise InvalidInput(
            'The guide of scene "{scene}" does not exist: {path}. Choose its file, or clear the field.',
            scene=scene.name,
            path=path,
        )
    return path


def guide_render(
    scene: bpy.types.Scene,
    shot: Shot,
    size: tuple[int, int],
    folder: Path,
    strengths: tuple[float | None, float | None] = (None, None),
    clip: str | None = None,
) -> GuideRender | None:
    """The shot's guide, to be rendered into a folder in `folder`; None if it is off. Writes the scene there.

    size: width and height of the model's frame. strengths: of the subjects and of the background, and clip: in place of
    the scene's. A scene that has not changed since keeps its rendered guide. Raises InvalidInput without the clip.
    """
    settings = scene.motionbooth
    own = settings.guide_subject, settings.guide_background
    if not (settings.use_guide or clip):
        own = 0.0, 0.0
    subject, background = (
        round(kept, 4) if given is None else given for given, kept in zip(strengths, own, strict=True)
    )
    path = clip or own_clip(scene)
    parts = [rendered_parts(each) for each in settings.subjects]
    if not (path or all(parts)):  # where a subject is to be, the render shows something else
        subject = 0.0
    if not (subject or background):
        return None
    if path:
        return GuideRender("", scene.name, size, [], subject, background, [], path)
    masked = sorted({part.name for group in parts for part in group}) if all(parts) else []
    frame = (shot.frame_start, shot.frame_end, shot.width, shot.height, shot.fps, shot.model_frame)
    state = (shot_cache.state(scene), frame, shot.frames, size, masked, _visibility(scene))
    place = folder / hashlib.sha256(repr(state).encode()).hexdigest()[:16]
    if not (place / GUIDE).is_file():
        place.mkdir(parents=True, exist_ok=True)
        bpy.data.libraries.write(str(place / SCENE), {scene}, path_remap="ABSOLUTE")
    return GuideRender(
        folder=str(place),
        scene=scene.name,
        size=size,
        masked=masked,
        subject_strength=subject,
        background_strength=background,
        engines=[CYCLES] if bpy.app.background else [WORKBENCH, CYCLES],
    )
