"""What jobs made, given to their shots: trained subjects, and takes on the timeline. Finds a job's shot."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import bpy
import msgspec

from . import compat, strips
from ._protocol.errors import InvalidInput, NotFound
from ._protocol.jobs import GenerateSpec
from .ledger import Record, TrainOrder

JOB = "motionbooth_job"  # custom properties of a take's strip
SETTINGS = "motionbooth_settings"
_COLOR_TAG = "COLOR_04"


def identify(scene: bpy.types.Scene) -> str:
    """The id by which jobs know this scene's shot; made at the first call, and for a copy of a scene."""
    settings = scene.motionbooth
    taken = {other.motionbooth.uid for other in bpy.data.scenes if other != scene}
    if not settings.uid or settings.uid in taken:
        settings.uid = uuid.uuid4().hex
    return settings.uid


def scene_of(record: Record) -> bpy.types.Scene | None:
    """The scene of the open .blend that a job belongs to."""
    for scene in bpy.data.scenes:
        if scene.motionbooth.uid == record.shot:
            return scene
    # The id may have been undone, or never saved.
    if record.blend and record.blend == bpy.data.filepath:
        return bpy.data.scenes.get(record.scene)
    return None


def receive(scene: bpy.types.Scene, record: Record) -> str:
    """Give the shot what the job made; says what was done. Raises InvalidInput or NotFound."""
    if isinstance(record.order, TrainOrder):
        return _receive_subject(scene, record, record.order)
    changed = place(scene, record.id, record.order, Path(record.clip))
    placed = f'Placed "{record.title}" on the timeline'
    return f"{placed}. {changed}" if changed else placed


def _receive_subject(scene: bpy.types.Scene, record: Record, order: TrainOrder) -> str:
    weights = record.result("subject")
    for subject in scene.motionbooth.subjects:
        if (subject.name, subject.token) == (order.name, order.token) and weights is not None:
            subject.weights = weights.sha256
            return f'"{order.name}" is trained'
    raise NotFound(f'The scene has no subject "{order.name}" any more; choose it from the trained subjects.')


def place(scene: bpy.types.Scene, job: str, spec: GenerateSpec, clip: Path) -> str | None:
    """A take at the shot's range, above what is there and instead of the shot's other takes.

    Returns what was changed of the scene's color management, as a sentence, or None.
    """
    shot = spec.shot
    name = f"{shot.name} take {len(scene.motionbooth.takes) + 1}"
    settings = msgspec.json.encode(spec).decode()
    strip = _place_strip(scene, job, spec, settings, clip, name)
    changed = strips.show_true_colors(scene)
    take = scene.motionbooth.takes.add()
    take.name, take.job_id, take.clip_path = strip.name, job, strips.path_for(clip)
    take.settings, take.seed = settings, spec.seed
    show_only(scene, len(scene.motionbooth.takes) - 1)
    compat.show_in_sequencer(scene)
    return changed


def _place_strip(scene: bpy.types.Scene, job: str, spec: GenerateSpec, settings: str, clip: Path, name: str) -> Any:
    strip = strips.place_clip(scene, clip, name, spec.shot.frame_start, spec.shot.frame_end)
    strip.color_tag = _COLOR_TAG
    strip[JOB], strip[SETTINGS] = job, settings
    return strip


def strip_of(scene: bpy.types.Scene, job: str) -> Any | None:
    """The strip of a take, whatever its user has named it."""
    if scene.sequence_editor is None:
        return None
    return next((strip for strip in compat.strips(scene.sequence_editor) if strip.get(JOB) == job), None)


def activate(scene: bpy.types.Scene, index: int) -> None:
    """Show this take instead of the others; back on the timeline, if its strip was deleted."""
    take = scene.motionbooth.takes[index]
    if strip_of(scene, take.job_id) is None:
        clip = Path(bpy.path.abspath(take.clip_path))
        _place_strip(scene, take.job_id, settings_of(take), take.settings, clip, take.name)
    show_only(scene, index)


def show_only(scene: bpy.types.Scene, index: int) -> None:
    """Make this take the active one, and mute the shot's others."""
    scene.motionbooth.active_take = index  # which shows it, as a click in the list does


def show_active(scene: bpy.types.Scene) -> None:
    """Mute all takes of the shot but the active one."""
    shot = scene.motionbooth
    for number, take in enumerate(shot.takes):
        strip = strip_of(scene, take.job_id)
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
    strip = strip_of(scene, take.job_id)
    if strip is None:
        raise NotFound(f'Take "{take.name}" is not on the timeline; place it first.')
    return strip


def remove(scene: bpy.types.Scene, index: int) -> None:
    """Take a take and its strip away; its clip file stays."""
    shot = scene.motionbooth
    strip = strip_of(scene, shot.takes[index].job_id)
    if strip is not None:
        compat.strips(scene.sequence_editor).remove(strip)
    shot.takes.remove(index)
    if shot.takes:
        show_only(scene, min(index, len(shot.takes) - 1))


def settings_of(take: bpy.types.PropertyGroup) -> GenerateSpec:
    """What a take was filmed with. Raises InvalidInput."""
    try:
        return msgspec.json.decode(take.settings, type=GenerateSpec)
    except msgspec.MsgspecError:
        raise InvalidInput(f'The settings of take "{take.name}" cannot be read; another version made it.') from None


def as_camera_background(scene: bpy.types.Scene, take: bpy.types.PropertyGroup) -> None:
    """The clip behind the scene, as the active camera sees it, in step with the timeline."""
    clip = Path(bpy.path.abspath(take.clip_path))
    if not clip.is_file():
        raise NotFound(f'The clip of take "{take.name}" is not at {clip}; fetch it again from the job list.')
    spec = settings_of(take)
    image = bpy.data.images.load(str(clip), check_existing=True)
    camera = scene.camera.data
    picture = next((p for p in camera.background_images if p.image is not None and p.image.name == image.name), None)
    picture = picture or camera.background_images.new()
    picture.image = image
    picture.image_user.frame_start = spec.shot.frame_start
    picture.image_user.frame_duration = spec.shot.scene_frames
    picture.image_user.use_auto_refresh = True
    picture.alpha = 1.0
    picture.frame_method = "FIT"
    camera.show_background_images = True
