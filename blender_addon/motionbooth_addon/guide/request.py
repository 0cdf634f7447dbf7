"""What is to be rendered for a shot's guide, and the scene as a library for the Blender that renders it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import bpy

from .._protocol.motion import Shot
from ..capture import shot_cache
from ..capture.geometry import TYPES_WITHOUT_SURFACE
from ..jobs.job_store import GuideRender
from ..turntable.background_render import CYCLES, GUIDE, SCENE, WORKBENCH

BARE = TYPES_WITHOUT_SURFACE | {"EMPTY", "ARMATURE", "LATTICE"}


def rendered_parts(subject: bpy.types.PropertyGroup) -> list[bpy.types.Object]:
    """What a render shows of the subject's proxy object and its children; a subject box is never rendered."""
    parts = [] if subject.object is None else [subject.object, *subject.object.children_recursive]
    return [part for part in parts if not part.hide_render and (part.type not in BARE or part.instance_collection)]


def guide_render(
    scene: bpy.types.Scene,
    shot: Shot,
    size: tuple[int, int],
    folder: Path,
    strengths: tuple[float | None, float | None] = (None, None),
) -> GuideRender | None:
    """The shot's guide, to be rendered into a folder in `folder`; None if it is off. Writes the scene there.

    size: width and height of the model's frame. strengths: of the subjects and of the background, in place of the
    scene's. A scene that has not changed since keeps its rendered guide.
    """
    settings = scene.motionbooth
    own = (round(settings.guide_subject, 4), round(settings.guide_background, 4)) if settings.use_guide else (0.0, 0.0)
    subject, background = (kept if given is None else given for given, kept in zip(strengths, own, strict=True))
    parts = [rendered_parts(each) for each in settings.subjects]
    if not all(parts):  # where it is to be, the render shows something else
        subject = 0.0
    if not (subject or background):
        return None
    masked = sorted({part.name for group in parts for part in group}) if all(parts) else []
    frame = (shot.frame_start, shot.frame_end, shot.width, shot.height, shot.fps, shot.model_frame)
    shown = sorted((thing.name, thing.hide_render) for thing in scene.objects)
    state = (shot_cache.state(scene), frame, shot.frames, size, masked, shown)
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
