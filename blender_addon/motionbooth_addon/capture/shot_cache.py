"""Caches the motion of each scene's shot for the overlay and the panels, and reads it again after a change.

Drawing code must not evaluate a scene. It calls `get`, which returns the result of the last reading and keeps it up to
date for as long as it is called. A long shot is read in slices, one each tick of a timer, so that the window stays
responsive; a change starts the reading over. The scene is played only if `read_by_playing` was called. The handlers and
the timer are removed once nothing has called `get` for a while, unless a scene has a guide.
"""

from __future__ import annotations

import itertools
import math
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import bpy
from bpy.app.handlers import persistent

from .._protocol.limits import MAX_FRAMES
from .._protocol.text import Text
from ..faults import for_a_person
from . import shots
from .reader import Motion, NeedsPlayback, ShotReader
from .shot_warnings import ShotWarning

SETTLE_SECONDS = 0.25  # how long the scene must stay unchanged before it is read again
TICK_SECONDS = 0.1
SLICE_SECONDS = 0.015  # main thread time for reading in one tick
SLICE_PAUSE_SECONDS = 0.01  # between two slices
EXPIRE_SECONDS = 5.0  # without a call of `get`, before a cache is dropped, or not read any more
MAX_READING_SECONDS = 2.0  # main thread time for one reading; a scene that takes longer is sampled at fewer frames
MAX_SAMPLES, MIN_SAMPLES = 250, 24
_NOT_SHOWN = (bpy.types.Collection, bpy.types.Scene)  # a scene is updated by a new strip, too
_LOOKS = (bpy.types.Material, bpy.types.World, bpy.types.Light)
DEFAULT_MODEL_FRAMES = 8  # while the backend's models are not known


@dataclass
class ShotCache:
    """A scene's shot as of the last reading, and the reading in progress.

    motion: None if the shot cannot be read; `error` says why.
    warnings: what the model cannot follow.
    version: another one for each reading, of any cache: drawings outlive the caches that they are made from.
    outdated: the scene has changed since the last reading.
    moved_frame: the frame at which the user last moved objects, which may have no keyframe yet; `moves` counts that.
    last_requested: the time of the last `get`.
    state: another one after each change of what the scene's objects show, of their materials and lights, too.
    settings: the settings that the reading depends on, see `_settings`.
    max_samples: at how many moments the next reading may sample the scene; `stride`: samples for each model frame.
    reader: the reading in progress, with `seconds_spent` on the main thread so far.
    allow_playback: the next reading may play the scene.
    needs_playback: the last reading failed because the scene has to be played for the camera.
    """

    motion: Motion | None = None
    warnings: list[ShotWarning] = field(default_factory=list)
    error: Text | None = None
    version: int = 0
    outdated: bool = True
    moved_frame: int | None = None
    moves: int = 0
    last_requested: float = 0.0
    settings: tuple[Any, ...] = ()
    max_samples: int = MAX_SAMPLES
    stride: int = 1
    reader: ShotReader | None = None
    seconds_spent: float = 0.0
    allow_playback: bool = False
    needs_playback: bool = False
    state: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def progress(self) -> float | None:
        """Of the reading in progress, from 0 to 1; None if there is none."""
        return None if self.reader is None else self.reader.progress


_caches: dict[str, ShotCache] = {}  # by the scene's name
_versions = itertools.count(1)
_changed_at = 0.0
# Scenes whose next depsgraph update comes from our reading, and whether that played the scene.
_own_updates: dict[str, bool] = {}


def get(scene: bpy.types.Scene) -> ShotCache:
    """The scene's cached shot. Evaluates nothing; after the next reading, the areas are redrawn."""
    if not _caches:
        _start()
    cache = _caches.get(scene.name)
    if cache is None:
        cache = _caches[scene.name] = ShotCache(settings=_settings(scene))
        _note_change(cache)
    cache.last_requested = time.monotonic()
    return cache


def state(scene: bpy.types.Scene) -> str:
    """Equal to an earlier result only if what the scene's objects show is still the same."""
    cache = get(scene)
    _note_settings(scene, cache)
    return cache.state


def forget_state(scene: bpy.types.Scene) -> None:
    """Take what the scene's objects show for changed, since not every change is reported, such as one of a file."""
    get(scene).state = uuid.uuid4().hex


def read_by_playing(scene: bpy.types.Scene) -> None:
    """Start a reading that may play the scene."""
    cache = get(scene)
    cache.allow_playback, cache.outdated, cache.reader = True, True, None


def stop() -> None:
    """Drop all caches and remove the timer and the handlers."""
    _caches.clear()
    if bpy.app.timers.is_registered(tick):
        bpy.app.timers.unregister(tick)
    for handlers, handler in _handlers():
        if handler in handlers:
            handlers.remove(handler)


def _start() -> None:
    for handlers, handler in _handlers():
        handlers.append(handler)
    bpy.app.timers.register(tick, first_interval=TICK_SECONDS, persistent=True)


def _handlers() -> list[tuple[list[Any], Any]]:
    on = bpy.app.handlers
    return [(on.depsgraph_update_post, _on_update)] + [
        (handlers, _on_any_change) for handlers in (on.undo_post, on.redo_post, on.load_post)
    ]


def _settings(scene: bpy.types.Scene) -> tuple[Any, ...]:
    """The settings that a shot depends on and whose changes Blender does not report to handlers."""
    shot, render = scene.motionbooth, scene.render
    return (
        scene.frame_start,
        scene.frame_end,
        scene.camera.name if scene.camera else "",
        tuple((marker.frame, marker.camera.name) for marker in scene.timeline_markers if marker.camera),
        (render.resolution_x, render.resolution_y, render.resolution_percentage),
        (render.pixel_aspect_x, render.pixel_aspect_y),
        (shot.camera_mode, shot.background_distance, shot.model, shot.framing, _model_aspect(scene)),
        (shot.long_shot, shot.use_parallax, render.fps, render.fps_base),
        tuple((subject.name, subject.object.name if subject.object else "") for subject in shot.subjects),
    )


@persistent
def _on_update(scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> None:
    cache = _caches.get(scene.name)
    if cache is None:
        return
    played = _own_updates.pop(scene.name, None)
    own = played is not None
    if played:  # everything that moved during playback is reported
        return
    for update in depsgraph.updates:
        # After a reading, Blender reports the scene's collections as new and its actions and cameras as updated.
        moved = update.is_updated_transform or update.is_updated_geometry
        if moved and isinstance(update.id, bpy.types.Object):
            cache.moved_frame, cache.moves = scene.frame_current, cache.moves + 1
            _note_change(cache)
        elif not own and (moved or isinstance(update.id, (bpy.types.Action, bpy.types.Camera))):
            _note_change(cache, is_shown=not isinstance(update.id, _NOT_SHOWN))
        elif isinstance(update.id, _LOOKS):
            cache.state = uuid.uuid4().hex


@persistent
def _on_any_change(*_: object) -> None:
    for cache in _caches.values():
        _note_change(cache)


def _note_settings(scene: bpy.types.Scene, cache: ShotCache) -> None:
    if (settings := _settings(scene)) != cache.settings:
        cache.settings = settings
        _note_change(cache)


def _note_change(cache: ShotCache, is_shown: bool = True) -> None:
    """is_shown: what the objects show may have changed, and not only which objects there are."""
    global _changed_at
    cache.outdated, cache.reader, cache.allow_playback = True, None, False
    if is_shown:
        cache.state = uuid.uuid4().hex
    _changed_at = time.monotonic()


def tick() -> float | None:
    now = time.monotonic()
    unused = [name for name, cache in _caches.items() if now - cache.last_requested > EXPIRE_SECONDS]
    for name in unused:
        if _has_guide(name):
            _caches[name].reader = None
        else:
            del _caches[name]
    if not _caches:
        stop()
        return None
    for name, cache in _caches.items():
        scene = bpy.data.scenes.get(name)
        if scene is not None:
            _note_settings(scene, cache)
    if now - _changed_at > SETTLE_SECONDS and not _is_busy():
        for name, cache in list(_caches.items()):
            scene = bpy.data.scenes.get(name)
            if cache.outdated and scene is not None and name not in unused:
                _read_on(scene, cache, SLICE_SECONDS)
                break  # one in a tick
    return SLICE_PAUSE_SECONDS if any(cache.reader for cache in _caches.values()) else TICK_SECONDS


def _has_guide(name: str) -> bool:
    """Whether the scene has a guide, which is rendered again only after a change: its changes are always noted."""
    scene = bpy.data.scenes.get(name)
    return scene is not None and scene.motionbooth.use_guide


def _is_busy() -> bool:
    """Whether something plays or renders, which reading would slow down."""
    windows = bpy.context.window_manager.windows
    return bpy.app.is_job_running("RENDER") or any(window.screen.is_animation_playing for window in windows)


def _read_on(scene: bpy.types.Scene, cache: ShotCache, seconds: float) -> None:
    """Start to read the scene, or continue, for about `seconds`."""
    began = time.perf_counter()
    try:
        while cache.outdated and (left := began + seconds - time.perf_counter()) > 0:
            _take_step(scene, cache, left)
    except ReferenceError:  # an object was removed between two slices, and Blender has not reported it yet
        cache.reader = None
    except Exception as error:  # also a fault of ours: Blender removes a timer that raises
        _finish(cache, None, [], for_a_person(error).text)
        cache.needs_playback = isinstance(error, NeedsPlayback)
    cache.seconds_spent += time.perf_counter() - began
    if not cache.outdated:
        cache.max_samples = _affordable_samples(cache)
    redraw()


def _take_step(scene: bpy.types.Scene, cache: ShotCache, seconds: float) -> None:
    if cache.reader is None:
        _begin(scene, cache)
    elif not cache.reader.done:
        _own_updates[scene.name] = cache.allow_playback
        cache.reader.advance(scene, seconds)
    else:
        motion = cache.reader.motion(scene)
        _finish(cache, motion, shots.find_warnings(scene, motion, cache.stride), None)


def _begin(scene: bpy.types.Scene, cache: ShotCache) -> None:
    shots.check_frame(scene)
    cache.seconds_spent, cache.stride = 0.0, _stride(scene, cache.max_samples)
    aspect = _model_aspect(scene)
    cache.reader = ShotReader(scene, cache.stride * (_model_frames(scene) - 1) + 1, aspect, cache.allow_playback)


def _finish(cache: ShotCache, motion: Motion | None, warnings: list[ShotWarning], error: Text | None) -> None:
    cache.motion, cache.warnings, cache.error = motion, warnings, error
    cache.reader, cache.outdated, cache.allow_playback, cache.needs_playback = None, False, False, False
    cache.version = next(_versions)


def _affordable_samples(cache: ShotCache) -> int:
    """How many samples the next reading may take."""
    share = MAX_READING_SECONDS / max(cache.seconds_spent, 1e-3)
    return int(min(max(cache.max_samples * share, MIN_SAMPLES), MAX_SAMPLES))


def _stride(scene: bpy.types.Scene, max_samples: int) -> int:
    """Samples for each of the model's frames: at most one for each scene frame, and at most `max_samples` in all."""
    gaps = _model_frames(scene) - 1
    wanted = math.ceil((scene.frame_end - scene.frame_start) / gaps)
    return max(1, min(wanted, max_samples // gaps, (MAX_FRAMES - 1) // gaps))


def _model_frames(scene: bpy.types.Scene) -> int:
    """How many frames the scene's model generates of the shot, or a default while it is not known."""
    model = bpy.context.window_manager.motionbooth.models.get(scene.motionbooth.model)
    return max(2, shots.model_frames(scene, model)) if model else DEFAULT_MODEL_FRAMES


def _model_aspect(scene: bpy.types.Scene) -> float | None:
    """Width / height of the frames of the scene's model, or None while it is not known."""
    model = bpy.context.window_manager.motionbooth.models.get(scene.motionbooth.model)
    return model.width / model.height if model and model.height else None


def redraw() -> None:
    """Redraw the 3D views and the sequencers."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in {"VIEW_3D", "SEQUENCE_EDITOR"}:
                area.tag_redraw()
