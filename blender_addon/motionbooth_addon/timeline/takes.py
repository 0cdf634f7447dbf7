"""Puts the results of jobs into their shots: takes on the timeline, and trained subjects."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import bpy
import msgspec

from .. import compat
from .._protocol.errors import InvalidInput, NotFound
from .._protocol.jobs import GenerateSpec
from .._protocol.motion import Box, Shot
from .._protocol.text import Text
from ..capture.framing import WHOLE, size
from ..job_store import JobRecord, TrainRequest
from . import clips, colors, strips
from .take_motion import TakeMotion, load_take_motion

SETTINGS = "motionbooth_settings"  # custom property of a take's strip, beside clips.JOB
_COLOR_TAG = "COLOR_04"


def shot_id(scene: bpy.types.Scene) -> str:
    """The id by which jobs refer to the scene's shot. The first call creates it; a copied scene gets a new one."""
    settings = scene.motionbooth
    older = {other.motionbooth.uid for other in clips.own_scenes() if other.session_uid < scene.session_uid}
    if not settings.uid or settings.uid in older:
        settings.uid = uuid.uuid4().hex
    return settings.uid


def scene_of(record: JobRecord) -> bpy.types.Scene | None:
    """The scene of the open .blend to which a job belongs, or None."""
    own = clips.own_scenes()
    same = [scene for scene in own if scene.motionbooth.uid == record.shot]  # several if it was copied
    named = next((scene for scene in same or own if scene.name == record.scene), None)
    if same:
        return named or same[0]
    # The id may have been undone or never saved.
    return named if record.blend and record.blend == bpy.data.filepath else None


def place_result(scene: bpy.types.Scene, record: JobRecord) -> Text:
    """Put a job's result into its shot; returns what was done. Raises InvalidInput or NotFound."""
    if isinstance(record.request, TrainRequest):
        return _use_trained_subject(scene, record, record.request)
    warning = place_take(scene, record.id, record.request, Path(record.clip))
    if record.lacks_master:
        return Text.of(
            'Placed "{take}" on the timeline, but its master was not fetched. Check the disk space, and add the take '
            "again from the job list.",
            take=record.title,
        )
    if warning is not None:
        return Text.of('Placed "{take}" on the timeline. {warning}', take=record.title, warning=warning)
    return Text.of('Placed "{take}" on the timeline', take=record.title)


def _use_trained_subject(scene: bpy.types.Scene, record: JobRecord, request: TrainRequest) -> Text:
    weights = record.result("subject")
    for subject in scene.motionbooth.subjects:
        if (subject.name, subject.token) == (request.name, request.token) and weights is not None:
            subject.weights = weights.sha256
            return Text.of('"{subject}" is trained', subject=request.name)
    raise NotFound(
        'The scene no longer has the subject "{subject}". Choose it from the trained subjects.', subject=request.name
    )


def place_take(scene: bpy.types.Scene, job: str, spec: GenerateSpec, clip: Path) -> Text | None:
    """Add a take at the shot's frame range, above all strips there, and mute the shot's other takes.

    If the take exists already, its clip is set to `clip`. For the first take of a scene, returns the color warning of
    the scene's view transform, if there is one.
    """
    shot = scene.motionbooth
    existing = index_of(scene, job)
    if existing is not None:
        clips.relink(scene, shot.takes[existing], clip)
        if clips.strip_of(scene, job) is None:
            activate(scene, existing)
        return None
    name = f"{spec.shot.name} take {len(shot.takes) + 1}"
    settings = msgspec.json.encode(spec).decode()
    strip = _place_strip(scene, job, spec, settings, clip, name)
    take = shot.takes.add()
    take.name, take.job_id, take.clip_path = strip.name, job, clips.path_for(clip)
    take.settings, take.seed = settings, spec.seed
    shot.active_take = len(shot.takes) - 1
    compat.show_in_sequencer(scene)
    return colors.color_warning(scene) if len(shot.takes) == 1 else None


def index_of(scene: bpy.types.Scene, job: str) -> int | None:
    """The index of the take that a job generated, or None."""
    return next((index for index, take in enumerate(scene.motionbooth.takes) if take.job_id == job), None)


def _place_strip(scene: bpy.types.Scene, job: str, spec: GenerateSpec, settings: str, clip: Path, name: str) -> Any:
    shot = spec.shot
    strip = strips.place_clip(scene, clip, name, shot.frame_start, shot.frame_end, shot.model_frame)
    strip.color_tag = _COLOR_TAG
    strip[clips.JOB], strip[SETTINGS] = job, settings
    return strip


def clip_frame(scene: bpy.types.Scene, job: str, shot: Shot) -> Box:
    """The part of the scene's frame that a take's clip covers: as its strip is placed, or as it was generated."""
    strip = clips.strip_of(scene, job)
    if strip is not None and strip.type == "MOVIE" and strip.elements[0].orig_width:
        return strips.strip_frame(scene, strip)
    return shot.model_frame or WHOLE


def activate(scene: bpy.types.Scene, index: int) -> None:
    """Make a take the active one, which mutes the others. Places its strip again if that was deleted."""
    take = scene.motionbooth.takes[index]
    if clips.strip_of(scene, take.job_id) is None:
        clip = clips.clip_of(take)
        _place_strip(scene, take.job_id, spec_of(take), take.settings, clip, take.name)
    scene.motionbooth.active_take = index  # its update callback calls `mute_inactive`, as after a click in the list


def mute_inactive(scene: bpy.types.Scene) -> None:
    """Mute all takes of the shot except the active one, and end a comparison."""
    shot = scene.motionbooth
    for index, take in enumerate(shot.takes):
        strip = clips.strip_of(scene, take.job_id)
        if strip is not None:
            strip.mute, strip.select = index != shot.active_take, index == shot.active_take
            strip.crop.max_x = 0


def compare(scene: bpy.types.Scene, index: int, other: int) -> None:
    """Show two takes side by side: the left half of the frame from `index`, the right half from `other`."""
    scene.motionbooth.active_take = index
    upper, lower = _require_strip(scene, index), _require_strip(scene, other)
    if upper.channel < lower.channel:
        upper, lower = lower, upper
    upper.mute = lower.mute = False
    upper.crop.max_x = upper.elements[0].orig_width // 2


def _require_strip(scene: bpy.types.Scene, index: int) -> Any:
    take = scene.motionbooth.takes[index]
    strip = clips.strip_of(scene, take.job_id)
    if strip is None:
        raise NotFound('Take "{take}" is not on the timeline. Press Show Take first.', take=take.name)
    return strip


def remove(scene: bpy.types.Scene, index: int) -> None:
    """Remove a take and its strip; the clip file stays on disk."""
    shot = scene.motionbooth
    strip = clips.strip_of(scene, shot.takes[index].job_id)
    if strip is not None:
        compat.remove_strip(scene.sequence_editor, strip)
    shot.takes.remove(index)
    if shot.takes:
        shot.active_take = min(index, len(shot.takes) - 1)


def spec_of(take: bpy.types.PropertyGroup) -> GenerateSpec:
    """The settings with which a take was generated. Raises InvalidInput."""
    try:
        return msgspec.json.decode(take.settings, type=GenerateSpec)
    except msgspec.MsgspecError:
        raise InvalidInput(
            'The settings of take "{take}" cannot be read. Another version of MotionBooth wrote them.', take=take.name
        ) from None


def master_of(take: bpy.types.PropertyGroup) -> Path | None:
    """Where a take's master is: beside its clip, and so it moves with it. None if the take has none, or lost it."""
    try:
        master = spec_of(take).master
    except InvalidInput:
        return None
    clip = clips.clip_of(take)
    return master.path(clip) if master is not None and master.exists(clip) else None


def master_path(take: bpy.types.PropertyGroup) -> str:
    """The path of a take's master as Blender stores paths; "" without one."""
    master = master_of(take)
    return "" if master is None else clips.path_for(master)


def active_take_motion(scene: bpy.types.Scene) -> TakeMotion | None:
    """The requested and the detected motion of the active take, or None if there is none."""
    shot = scene.motionbooth
    if not 0 <= shot.active_take < len(shot.takes):
        return None
    take = shot.takes[shot.active_take]
    return load_take_motion(take.settings, clips.clip_of(take))


def show_in_camera(scene: bpy.types.Scene, take: bpy.types.PropertyGroup) -> None:
    """Show a take's clip as the background image of the active camera, in sync with the timeline."""
    clip = clips.existing_clip(take)
    spec = spec_of(take)
    image = bpy.data.images.load(str(clip), check_existing=True)
    camera = scene.camera.data
    picture = next((p for p in camera.background_images if p.image is not None and p.image.name == image.name), None)
    picture = picture or camera.background_images.new()
    picture.image = image
    picture.image_user.frame_start = spec.shot.frame_start
    picture.image_user.frame_duration = spec.shot.scene_frames
    picture.image_user.use_auto_refresh = True
    picture.alpha = 1.0
    # Both methods center the image and keep its aspect ratio.
    frame = spec.shot.model_frame or WHOLE
    picture.frame_method = "CROP" if max(size(frame)) > 1 else "FIT"
    camera.show_background_images = True
