"""What each scene's shot looks like now, read again a moment after a change. The overlay and the panels ask here.

Drawing must not evaluate a scene, so `latest` hands out what was read last and asks for it to be kept up to date while
it goes on being called. A long shot is read in slices, one a tick, so that the window stays free; a change begins it
anew. The scene itself is played only where `play` asks for it. When nobody has asked for a while, handlers and timer
are gone.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import bpy
from bpy.app.handlers import persistent

from .._protocol.errors import MotionBoothError
from .._protocol.limits import MAX_FRAMES
from . import shots
from .reader import Motion, NeedsPlaying, Reader
from .shot_warnings import Concern

SETTLE_SECONDS = 0.25  # without a change, before the scene is read again
TICK_SECONDS = 0.1
SLICE_SECONDS = 0.015  # of the main thread, for reading in one tick
BETWEEN_SLICES = 0.01  # seconds for everything else
FORGET_SECONDS = 5.0  # after which what nobody has asked for is not kept up to date any more
LONGEST_READING = 2.0  # seconds of the main thread in all; a scene that takes longer is read at fewer frames
MOST_FRAMES, FEWEST_FRAMES = 250, 24
USUAL_FRAMES = 8  # of a model that the backend has not told us of


@dataclass
class Latest:
    """A scene's shot as it was last read.

    motion: None where it cannot be read; `trouble` is why. concerns: what a model cannot follow of it. version: another
    number after each reading. changed: the scene has changed since then.
    reader: what is being read, in slices, with `spent` seconds of the main thread so far; None where nothing is.
    play: the next reading may play the scene. needs_playing: the last one could not be made without.
    moved_frame: where objects were moved by hand last, so that what the view shows there may be keyed nowhere; `moves`
    counts that.
    """

    motion: Motion | None = None
    concerns: list[Concern] = field(default_factory=list)
    trouble: str = ""
    version: int = 0
    changed: bool = True
    moved_frame: int | None = None
    moves: int = 0
    asked_at: float = 0.0
    settings: tuple[Any, ...] = ()
    frames: int = MOST_FRAMES
    every: int = 1
    reader: Reader | None = None
    spent: float = 0.0
    play: bool = False
    needs_playing: bool = False

    @property
    def progress(self) -> float | None:
        """Of the reading under way, from 0 to 1; None where nothing is read."""
        return None if self.reader is None else self.reader.progress


_known: dict[str, Latest] = {}  # by the scene's name
_changed_at = 0.0
_own_updates: dict[str, bool] = {}  # scenes of which the next update comes from having been read: whether by playing


def latest(scene: bpy.types.Scene) -> Latest:
    """What is known of the scene's shot; never evaluates anything. Areas are redrawn when it was read again."""
    if not _known:
        _start()
    known = _known.get(scene.name)
    if known is None:
        known = _known[scene.name] = Latest(settings=_settings(scene))
        _note_change(known)
    known.asked_at = time.monotonic()
    return known


def concerns_of(scene: bpy.types.Scene) -> list[Concern]:
    """For a panel: what a model cannot follow of the scene's shot, each with its scene frames and a whole sentence.

    As of a moment ago: cheap enough to be called in `draw`, and the panel is redrawn when there is news.
    """
    return latest(scene).concerns


def play(scene: bpy.types.Scene) -> None:
    """Read the scene's shot once by playing the scene, in slices, as far as it has to be."""
    known = latest(scene)
    known.play, known.changed, known.reader = True, True, None


def stop() -> None:
    """Forget everything, and watch nothing."""
    _known.clear()
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    for handlers, handler in _handlers():
        if handler in handlers:
            handlers.remove(handler)


def _start() -> None:
    for handlers, handler in _handlers():
        handlers.append(handler)
    bpy.app.timers.register(_tick, first_interval=TICK_SECONDS, persistent=True)


def _handlers() -> list[tuple[list[Any], Any]]:
    on = bpy.app.handlers
    return [(on.depsgraph_update_post, _on_update)] + [
        (handlers, _on_everything) for handlers in (on.undo_post, on.redo_post, on.load_post)
    ]


def _settings(scene: bpy.types.Scene) -> tuple[Any, ...]:
    """What a shot depends on and Blender does not report as a change."""
    shot, render = scene.motionbooth, scene.render
    return (
        scene.frame_start,
        scene.frame_end,
        scene.camera.name if scene.camera else "",
        tuple((marker.frame, marker.camera.name) for marker in scene.timeline_markers if marker.camera),
        (render.resolution_x, render.resolution_y, render.resolution_percentage),
        (render.pixel_aspect_x, render.pixel_aspect_y),
        (shot.camera_mode, shot.background_distance, shot.model, shot.framing, _model_shape(scene)),
        tuple((subject.name, subject.object.name if subject.object else "") for subject in shot.subjects),
    )


@persistent
def _on_update(scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> None:
    known = _known.get(scene.name)
    if known is None:
        return
    played = _own_updates.pop(scene.name, None)
    own = played is not None
    if played:  # it reports all that moved
        return
    for update in depsgraph.updates:
        # Having been read, a scene reports its collections as new, and its actions and cameras as touched.
        moved = update.is_updated_transform or update.is_updated_geometry
        if moved and isinstance(update.id, bpy.types.Object):
            known.moved_frame, known.moves = scene.frame_current, known.moves + 1
            _note_change(known)
        elif not own and (moved or isinstance(update.id, (bpy.types.Action, bpy.types.Camera))):
            _note_change(known)


@persistent
def _on_everything(*_: object) -> None:
    for known in _known.values():
        _note_change(known)


def _note_change(known: Latest) -> None:
    global _changed_at
    known.changed, known.reader, known.play = True, None, False
    _changed_at = time.monotonic()


def _tick() -> float | None:
    now = time.monotonic()
    for name in [name for name, known in _known.items() if now - known.asked_at > FORGET_SECONDS]:
        del _known[name]
    if not _known:
        stop()
        return None
    for name, known in _known.items():
        scene = bpy.data.scenes.get(name)
        if scene is not None and (settings := _settings(scene)) != known.settings:
            known.settings = settings
            _note_change(known)
    if now - _changed_at > SETTLE_SECONDS and not _is_busy():
        for name, known in list(_known.items()):
            scene = bpy.data.scenes.get(name)
            if known.changed and scene is not None:
                _read_on(scene, known, SLICE_SECONDS)
                break  # one in a tick
    return BETWEEN_SLICES if any(known.reader for known in _known.values()) else TICK_SECONDS


def _is_busy() -> bool:
    """While something plays or renders, reading would make it stutter."""
    windows = bpy.context.window_manager.windows
    return bpy.app.is_job_running("RENDER") or any(window.screen.is_animation_playing for window in windows)


def read_now(scene: bpy.types.Scene) -> Latest:
    """Read the scene's shot, whether it has changed or not, and wait for it."""
    known = _known.setdefault(scene.name, Latest(asked_at=time.monotonic(), settings=_settings(scene)))
    known.changed, known.reader = True, None
    _read_on(scene, known, math.inf)
    return known


def _read_on(scene: bpy.types.Scene, known: Latest, seconds: float) -> None:
    """Begin to read the scene, or go on with it, for about so long."""
    began = time.perf_counter()
    _own_updates[scene.name] = known.play
    try:
        while known.changed and (left := began + seconds - time.perf_counter()) > 0:
            _take_step(scene, known, left)
    except MotionBoothError as error:
        _finish(known, None, [], str(error))
        known.needs_playing = isinstance(error, NeedsPlaying)
    except ReferenceError:  # something was removed between two slices, and Blender has not reported it yet
        known.reader = None
    known.spent += time.perf_counter() - began
    if not known.changed:
        known.frames = _affordable(known)
    redraw()


def _take_step(scene: bpy.types.Scene, known: Latest, seconds: float) -> None:
    if known.reader is None:
        _begin(scene, known)
    elif not known.reader.done:
        known.reader.go_on(scene, seconds)
    else:
        motion = known.reader.motion(scene)
        _finish(known, motion, shots.concerns(scene, motion, known.every), "")


def _begin(scene: bpy.types.Scene, known: Latest) -> None:
    shots.check_frame(scene)
    known.spent, known.every = 0.0, _every(scene, known.frames)
    shape = _model_shape(scene)
    known.reader = Reader(scene, known.every * (_model_frames(scene) - 1) + 1, shape, known.play)


def _finish(known: Latest, motion: Motion | None, concerns: list[Concern], trouble: str) -> None:
    known.motion, known.concerns, known.trouble = motion, concerns, trouble
    known.reader, known.changed, known.play, known.needs_playing = None, False, False, False
    known.version += 1


def _affordable(known: Latest) -> int:
    """How many frames the next reading may have."""
    share = LONGEST_READING / max(known.spent, 1e-3)
    return int(min(max(known.frames * share, FEWEST_FRAMES), MOST_FRAMES))


def _every(scene: bpy.types.Scene, most: int) -> int:
    """How many moments to read for each of the model's frames: up to one a scene frame, `most` in all."""
    gaps = _model_frames(scene) - 1
    wanted = math.ceil((scene.frame_end - scene.frame_start) / gaps)
    return max(1, min(wanted, most // gaps, (MAX_FRAMES - 1) // gaps))


def _model_frames(scene: bpy.types.Scene) -> int:
    """Frames of the scene's model, where the backend has told us."""
    model = bpy.context.window_manager.motionbooth.models.get(scene.motionbooth.model)
    return max(2, model.frames) if model else USUAL_FRAMES


def _model_shape(scene: bpy.types.Scene) -> float | None:
    """Width / height of what the scene's model makes, where the backend has told us."""
    model = bpy.context.window_manager.motionbooth.models.get(scene.motionbooth.model)
    return model.width / model.height if model and model.height else None


def redraw() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in {"VIEW_3D", "SEQUENCE_EDITOR"}:
                area.tag_redraw()
