"""What each scene's shot looks like now, read again a moment after a change. The overlay and the panels ask here.

Drawing must not evaluate a scene, so `latest` hands out what was read last and asks for it to be kept up to date while
it goes on being called. When nobody has asked for a while, handlers and timer are gone.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import bpy
from bpy.app.handlers import persistent

from . import capture
from ._protocol.errors import MotionBoothError
from ._protocol.limits import MAX_FRAMES
from .concerns import Concern

SETTLE_SECONDS = 0.25  # without a change, before the scene is read again
TICK_SECONDS = 0.1
FORGET_SECONDS = 5.0  # after which what nobody has asked for is not kept up to date any more
LONGEST_READING = 0.15  # seconds; a scene that takes longer is read at fewer frames
MOST_FRAMES, FEWEST_FRAMES = 250, 24
USUAL_FRAMES = 8  # of a model that the backend has not told us of


@dataclass
class Latest:
    """A scene's shot as it was last read.

    motion: None where it cannot be read; `trouble` is why. concerns: what a model cannot follow of it. version: another
    number after each reading. changed: the scene has changed since then.
    moved_frame: where objects were moved by hand last, so that what the view shows there may be keyed nowhere; `moves`
    counts that.
    """

    motion: capture.Motion | None = None
    concerns: list[Concern] = field(default_factory=list)
    trouble: str = ""
    version: int = 0
    changed: bool = True
    moved_frame: int | None = None
    moves: int = 0
    asked_at: float = 0.0
    settings: tuple[Any, ...] = ()
    frames: int = MOST_FRAMES


_known: dict[str, Latest] = {}  # by the scene's name
_changed_at = 0.0
_own_updates: set[str] = set()  # scenes of which the next update comes from having been read


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
        (shot.camera_mode, shot.background_distance, shot.model),
        tuple((subject.name, subject.object.name if subject.object else "") for subject in shot.subjects),
    )


@persistent
def _on_update(scene: bpy.types.Scene, depsgraph: bpy.types.Depsgraph) -> None:
    known = _known.get(scene.name)
    if known is None:
        return
    own = scene.name in _own_updates
    _own_updates.discard(scene.name)
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
    known.changed = True
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
                read_now(scene)
                break  # one in a tick
    return TICK_SECONDS


def _is_busy() -> bool:
    """While something plays or renders, reading would make it stutter."""
    windows = bpy.context.window_manager.windows
    return bpy.app.is_job_running("RENDER") or any(window.screen.is_animation_playing for window in windows)


def read_now(scene: bpy.types.Scene) -> Latest:
    """Read the scene's shot, whether it has changed or not."""
    known = _known.setdefault(scene.name, Latest(asked_at=time.monotonic(), settings=_settings(scene)))
    known.changed = False
    known.version += 1
    began = time.perf_counter()
    every = _every(scene, known.frames)
    try:
        known.motion = capture.read_motion(scene, every * (_model_frames(scene) - 1) + 1)
        known.concerns, known.trouble = capture.concerns(scene, known.motion, every), ""
    except MotionBoothError as error:
        known.motion, known.concerns, known.trouble = None, [], str(error)
    share = LONGEST_READING / max(time.perf_counter() - began, 1e-3)
    known.frames = int(min(max(known.frames * share, FEWEST_FRAMES), MOST_FRAMES))
    _own_updates.add(scene.name)
    redraw()
    return known


def _every(scene: bpy.types.Scene, most: int) -> int:
    """How many moments to read for each of the model's frames: up to one a scene frame, `most` in all."""
    gaps = _model_frames(scene) - 1
    wanted = math.ceil((scene.frame_end - scene.frame_start) / gaps)
    return max(1, min(wanted, most // gaps, (MAX_FRAMES - 1) // gaps))


def _model_frames(scene: bpy.types.Scene) -> int:
    """Frames of the scene's model, where the backend has told us."""
    model = bpy.context.window_manager.motionbooth.models.get(scene.motionbooth.model)
    return max(2, model.frames) if model else USUAL_FRAMES


def redraw() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in {"VIEW_3D", "SEQUENCE_EDITOR"}:
                area.tag_redraw()
