"""What jobs made, given to their shots: trained subjects, and takes on the timeline. Finds a job's shot."""

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
from ..capture.framing import WHOLE, size
from ..jobs.job_store import JobRecord, TrainRequest
from . import clips, colors, strips

SETTINGS = "motionbooth_settings"  # custom property of a take's strip, beside clips.JOB
_COLOR_TAG = "COLOR_04"


def shot_id(scene: bpy.types.Scene) -> str:
    """The id by which jobs know this scene's shot; made at the first call, and for a copy of a scene."""
    settings = scene.motionbooth
    taken = {other.motionbooth.uid for other in bpy.data.scenes if other != scene}
    if not settings.uid or settings.uid in taken:
        settings.uid = uuid.uuid4().hex
    return settings.uid


def scene_of(record: JobRecord) -> bpy.types.Scene | None:
    """The scene of the open .blend that a job belongs to."""
    for scene in bpy.data.scenes:
        if scene.motionbooth.uid == record.shot:
            return scene
    # The id may have been undone, or never saved.
    if record.blend and record.blend == bpy.data.filepath:
        return bpy.data.scenes.get(record.scene)
    return None


def place_result(scene: bpy.types.Scene, record: JobRecord) -> str:
    """Give the shot what the job made; says what was done. Raises InvalidInput or NotFound."""
    if isinstance(record.request, TrainRequest):
        return _use_trained_subject(scene, record, record.request)
    caveat = place_take(scene, record.id, record.request, Path(record.clip))
    if caveat is not None:
        return f'Placed "{record.title}" on the timeline. {caveat}'
    return f'Placed "{record.title}" on the timeline'


def _use_trained_subject(scene: bpy.types.Scene, record: JobRecord, order: TrainRequest) -> str:
    weights = record.result("subject")
    for subject in scene.motionbooth.subjects:
        if (subject.name, subject.token) == (order.name, order.token) and weights is not None:
            subject.weights = weights.sha256
            return f'"{order.name}" is trained'
    raise NotFound(f'The scene has no subject "{order.name}" any more; choose it from the trained subjects.')


def place_take(scene: bpy.types.Scene, job: str, spec: GenerateSpec, clip: Path) -> str | None:
    """A take at the shot's range, above what is there and instead of the shot's other takes.

    A take that is there already has its clip at `clip` from now on. Returns, once for a scene, what the scene's look
    does to the clip, as a sentence, or None.
    """
    shot = scene.motionbooth
    known = index_of(scene, job)
    if known is not None:
        clips.relink(scene, shot.takes[known], clip)
        if clips.strip_of(scene, job) is None:
            activate(scene, known)
        return None
    name = f"{spec.shot.name} take {len(shot.takes) + 1}"
    settings = msgspec.json.encode(spec).decode()
    strip = _place_strip(scene, job, spec, settings, clip, name)
    take = shot.takes.add()
    take.name, take.job_id, take.clip_path = strip.name, job, clips.path_for(clip)
    take.settings, take.seed = settings, spec.seed
    show_only(scene, len(shot.takes) - 1)
    compat.show_in_sequencer(scene)
    return colors.color_warning(scene) if len(shot.takes) == 1 else None


def index_of(scene: bpy.types.Scene, job: str) -> int | None:
    """Of the take that a job made."""
    return next((number for number, take in enumerate(scene.motionbooth.takes) if take.job_id == job), None)


def _place_strip(scene: bpy.types.Scene, job: str, spec: GenerateSpec, settings: str, clip: Path, name: str) -> Any:
    shot = spec.shot
    strip = strips.place_clip(scene, clip, name, shot.frame_start, shot.frame_end, shot.model_frame)
    strip.color_tag = _COLOR_TAG
    strip[clips.JOB], strip[SETTINGS] = job, settings
    return strip


def clip_frame(scene: bpy.types.Scene, job: str, shot: Shot) -> Box:
    """Where a take's clip is seen in the scene's frame: as its strip lies, or as it was framed."""
    strip = clips.strip_of(scene, job)
    if strip is not None and strip.type == "MOVIE" and strip.elements[0].orig_width:
        return strips.covered_by(scene, strip)
    return shot.model_frame or WHOLE


def activate(scene: bpy.types.Scene, index: int) -> None:
    """Show this take instead of the others; back on the timeline, if its strip was deleted."""
    take = scene.motionbooth.takes[index]
    if clips.strip_of(scene, take.job_id) is None:
        clip = clips.clip_of(take)
        _place_strip(scene, take.job_id, spec_of(take), take.settings, clip, take.name)
    show_only(scene, index)


def show_only(scene: bpy.types.Scene, index: int) -> None:
    """Make this take the active one, and mute the shot's others."""
    scene.motionbooth.active_take = index  # which shows it, as a click in the list does


def show_active(scene: bpy.types.Scene) -> None:
    """Mute all takes of the shot but the active one."""
    shot = scene.motionbooth
    for number, take in enumerate(shot.takes):
        strip = clips.strip_of(scene, take.job_id)
        if strip is not None:
            strip.mute, strip.select = number != shot.active_take, number == shot.active_take
            strip.crop.max_x = 0


def compare(scene: bpy.types.Scene, index: int, other: int) -> None:
    """Two takes in one picture: the left half of the frame from the one, the right half from the other."""
    show_only(scene, index)
    upper, lower = (_strip_or_complain(scene, number) for number in (index, other))
    if upper.channel < lower.channel:
        upper, lower = lower, upper
    upper.mute = lower.mute = False
    upper.crop.max_x = upper.elements[0].orig_width // 2


def _strip_or_complain(scene: bpy.types.Scene, index: int) -> Any:
    take = scene.motionbooth.takes[index]
    strip = clips.strip_of(scene, take.job_id)
    if strip is None:
        raise NotFound(f'Take "{take.name}" is not on the timeline; place it first.')
    return strip


def remove(scene: bpy.types.Scene, index: int) -> None:
    """Take a take and its strip away; its clip file stays."""
    shot = scene.motionbooth
    strip = clips.strip_of(scene, shot.takes[index].job_id)
    if strip is not None:
        compat.remove_strip(scene.sequence_editor, strip)
    shot.takes.remove(index)
    if shot.takes:
        show_only(scene, min(index, len(shot.takes) - 1))


def spec_of(take: bpy.types.PropertyGroup) -> GenerateSpec:
    """What a take was filmed with. Raises InvalidInput."""
    try:
        return msgspec.json.decode(take.settings, type=GenerateSpec)
    except msgspec.MsgspecError:
        raise InvalidInput(f'The settings of take "{take.name}" cannot be read; another version made it.') from None


def as_camera_background(scene: bpy.types.Scene, take: bpy.types.PropertyGroup) -> None:
    """The clip behind the scene, as the active camera sees it, in step with the timeline."""
    clip = clips.clip_of(take)
    if not clip.is_file():
        raise NotFound(f'The clip of take "{take.name}" is not at {clip}; fetch it again from the job list.')
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
    # Centered, with its proportions: inside the camera's frame, or all around it.
    frame = spec.shot.model_frame or WHOLE
    picture.frame_method = "CROP" if max(size(frame)) > 1 else "FIT"
    camera.show_background_images = True
