"""Draws the shot over the 3-D view, or its active take over that and over the sequencer's preview.

One switch, `WindowManager.motionbooth_overlay`: off, no draw handler is installed. What moves is read by readings.py
and turned into shapes once for each reading; a redraw draws a few batches and the names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import bpy
import gpu
import numpy as np
from bpy_extras.view3d_utils import location_3d_to_region_2d
from mathutils import Vector

from .. import compat
from .._protocol.motion import Box
from ..capture import framing, geometry, projection, scene_evaluation, shot_cache, shots
from ..capture.reader import Motion
from ..i18n.translation import told
from ..timeline import take_motion, takes
from . import shapes
from .gpu_drawing import FrameRect, Outlines, Still, in_shares, srgb, text, texts
from .shapes import Color, Shapes, Sketch

PATH_WIDTH, BOX_WIDTH = 1.5, 3.5  # pixels, at a scale of the interface of 1
FOUND_COLOR: Color = (0.3, 1.0, 0.45)
ADDED, CUT = "Generated, not shown", "Cut off"
UNMEASURED = "The backend has not measured this take"
BACKGROUND_COLOR: Color = (0.55, 0.8, 1.0)


Label = tuple[str, Color, Box, bool]  # a name, and the box over (or under) which it is written


@dataclass
class _Picture:
    """What is kept of one scene between redraws; `key` says what it was made of."""

    key: tuple[Any, ...] = ()
    still: Still = field(default_factory=Still)  # ghosts, paths, dots
    travel: Still = field(default_factory=Still)
    framing: Still = field(default_factory=Still)  # in shares of the shot's frame; all else is of the model's
    tracks: list[list[Box | None]] = field(default_factory=list)  # each subject's boxes
    offsets: list[tuple[float, float]] = field(default_factory=list)
    now_key: tuple[Any, ...] = ()
    now: Outlines = field(default_factory=Outlines)  # boxes at the current frame
    traveled: tuple[float, float] | None = None  # how far the camera has come, where the frame is in the shot
    labels: list[Label] = field(default_factory=list)


_handles: list[tuple[Any, Any]] = []  # of a space type
_pictures: dict[tuple[str, bool], _Picture] = {}  # by the scene's name and whether a take is shown
_takes: dict[tuple[str, str, float], take_motion.TakeMotion | None] = {}


def is_on() -> bool:
    return bool(_handles)


def switch(on: bool) -> None:
    """Install the draw handlers, or remove them with everything that is kept for them."""
    if on == is_on() or bpy.app.background:
        return
    if on:
        view, preview = bpy.types.SpaceView3D, bpy.types.SpaceSequenceEditor
        _handles.append((view, view.draw_handler_add(_draw_view, (), "WINDOW", "POST_PIXEL")))
        _handles.append((preview, preview.draw_handler_add(_draw_preview, (), "PREVIEW", "POST_PIXEL")))
    else:
        for space, handle in _handles:
            space.draw_handler_remove(handle, "PREVIEW" if space is bpy.types.SpaceSequenceEditor else "WINDOW")
        for kept in (_handles, _pictures, _takes):
            kept.clear()


def _set_switch(_: bpy.types.WindowManager, on: bool) -> None:
    switch(on)
    shot_cache.redraw()


def register() -> None:
    bpy.types.WindowManager.motionbooth_overlay = bpy.props.BoolProperty(
        name="Overlay",
        description="Draw boxes, their paths and the camera's travel over the 3-D view, and what was found over takes",
        get=lambda _: is_on(),
        set=_set_switch,
    )
    bpy.types.WindowManager.motionbooth_overlay_take = bpy.props.BoolProperty(
        name="Show Take",
        description="Over the 3-D view, draw the active take instead of the shot as it is now: what was asked of it "
        "(white) and what was found in it (green)",
        update=lambda _, __: shot_cache.redraw(),
    )
    bpy.types.VIEW3D_PT_overlay.append(_draw_switches)
    switch(True)


def unregister() -> None:
    switch(False)
    shot_cache.stop()
    bpy.types.VIEW3D_PT_overlay.remove(_draw_switches)
    del bpy.types.WindowManager.motionbooth_overlay_take
    del bpy.types.WindowManager.motionbooth_overlay


def _draw_switches(panel: bpy.types.Panel, context: bpy.types.Context) -> None:
    """In the view's own overlay menu."""
    manager = context.window_manager
    panel.layout.label(text="MotionBooth")
    row = panel.layout.row()
    row.prop(manager, "motionbooth_overlay")
    part = row.row()
    part.enabled = manager.motionbooth_overlay
    part.prop(manager, "motionbooth_overlay_take")


# Regions


def _draw_view() -> None:
    context = bpy.context
    scene, space = context.scene, context.space_data
    if not space.overlay.show_overlays or not shots.has_shot(scene) or scene.camera is None:
        return
    if context.region_data.view_perspective != "CAMERA":
        _draw_background_plane(context)
    elif not space.use_local_camera or space.camera == scene.camera:
        rect = _camera_rect(context)
        take = active_take(scene) if context.window_manager.motionbooth_overlay_take else None
        if take is not None:
            _draw_take(scene, take, rect)
        else:
            _draw_shot(context, rect)


def _draw_preview() -> None:
    """Over the sequencer's preview, where the active take is seen."""
    context = bpy.context
    scene = compat.sequencer_scene(context)
    if scene is None or not context.space_data.show_overlays or not shots.has_shot(scene):
        return
    take = active_take(scene)
    if take is not None:
        width, height = scene_evaluation.render_size(scene)
        left, top = context.region.view2d.view_to_region(-width / 2, height / 2, clip=False)
        right, bottom = context.region.view2d.view_to_region(width / 2, -height / 2, clip=False)
        _draw_take(scene, take, FrameRect(left, top, right - left, top - bottom))


def _camera_rect(context: bpy.types.Context) -> FrameRect:
    """The camera's frame in the region."""
    camera = context.scene.camera
    world, region, view = camera.matrix_world.normalized(), context.region, context.region_data
    right_top, _, left_low, _ = camera.data.view_frame(scene=context.scene)
    right, top = location_3d_to_region_2d(region, view, world @ right_top)
    left, low = location_3d_to_region_2d(region, view, world @ left_low)
    return FrameRect(left, top, right - left, top - low)


# The shot as it is now


def _draw_shot(context: bpy.types.Context, shot_rect: FrameRect) -> None:
    scene = context.scene
    latest = shot_cache.get(scene)
    picture = _pictures.setdefault((scene.name, False), _Picture())
    motion = latest.motion
    if motion is None:
        text(shot_rect.left + 10, shot_rect.top - 24, told(latest.error), (1.0, 0.6, 0.3))
        return
    rect = shot_rect.part(motion.frame)
    colors = [srgb(subject.color) for subject in scene.motionbooth.subjects]
    if len(colors) != len(motion.projections):
        return  # a subject was added or removed; the next reading is on its way
    key = (latest.version, round(rect.aspect, 3), tuple(colors))
    if key != picture.key:
        picture.key, picture.now_key = key, ()
        picture.tracks = [[seen.box for seen in projections] for projections in motion.projections]
        picture.still = Still(_shot_shapes(scene, motion, picture.tracks, colors, rect.aspect))
        picture.offsets = [(offset.dx, offset.dy) for offset in motion.camera.offsets]
        picture.travel = Still(shapes.travel_shapes(np.array(picture.offsets), rect.aspect))
        picture.framing = Still(shapes.framing_shapes(motion.frame, shot_rect.aspect))
    moved = latest.moves if latest.moved_frame == scene.frame_current else None
    band = _band(rect)
    now_key = (latest.version, scene.frame_current, scene.frame_subframe, moved, latest.outdated, band)
    if now_key != picture.now_key:
        picture.now_key = now_key
        position = _position(motion.moments, scene)
        boxes = _boxes_now(context, latest, picture.tracks, position, moved is not None)
        picture.labels = [
            (subject.name, color, box, False)
            for subject, color, box in zip(scene.motionbooth.subjects, colors, boxes, strict=True)
            if box is not None
        ]
        picture.traveled = None if position is None else _traveled(picture.offsets, position)
        picture.now = _outlines(picture.labels, rect.aspect, band)
    with in_shares(shot_rect):
        picture.framing.draw(PATH_WIDTH)
    with in_shares(rect):
        picture.still.draw(PATH_WIDTH)
        picture.now.draw()
        if picture.traveled is not None:  # so that the current frame is where the camera is now
            dx, dy = picture.traveled
            gpu.matrix.translate((-dx, -dy))
            picture.travel.draw(PATH_WIDTH)
    _write_labels(picture.labels, rect, [(_background_words(scene), BACKGROUND_COLOR)])
    _write_framing(motion.frame, shot_rect)


def _write_framing(frame: Box, rect: FrameRect) -> None:
    """In the corner of what is added to the shot, or cut off it."""
    if frame != framing.WHOLE:
        added = max(framing.size(frame)) > 1
        x, y = rect.at((min(frame.x1, 0.0), min(frame.y1, 0.0)))
        text(x + 8, y - 18 * bpy.context.preferences.system.ui_scale, told(ADDED if added else CUT), BACKGROUND_COLOR)


def _outlines(labels: list[Label], aspect: float, band: float) -> Outlines:
    return Outlines([(box, color) for _, color, box, _ in labels], band / aspect / 2, band / 2)


def _band(rect: FrameRect) -> float:
    """How thick the line around a box is, in heights of the frame."""
    return round(BOX_WIDTH * bpy.context.preferences.system.ui_scale / rect.height, 5)


def _shot_shapes(
    scene: bpy.types.Scene, motion: Motion, tracks: list[list[Box | None]], colors: list[Color], aspect: float
) -> Shapes:
    sketch = Sketch(aspect)
    for subject, boxes, color in zip(scene.motionbooth.subjects, tracks, colors, strict=True):
        keyed = _keyed_entries(subject.object, motion.moments) if subject.object else []
        shapes.subject_shapes(sketch, boxes, keyed, color)
    return sketch.finish()


def _keyed_entries(thing: bpy.types.Object, moments: list[float]) -> list[int]:
    """At which moments, nearest to it, the object has a keyframe."""
    frames = [frame for frame in compat.keyed_frames(thing) if moments[0] <= frame <= moments[-1]]
    return sorted({int(np.abs(np.array(moments) - frame).argmin()) for frame in frames})


def _boxes_now(
    context: bpy.types.Context,
    latest: shot_cache.ShotCache,
    tracks: list[list[Box | None]],
    position: float | None,
    moved: bool,
) -> list[Box | None]:
    """Each subject's box at the current frame: as it was read, or as the view has it where it was moved by hand."""
    scene = context.scene
    boxes = [None if position is None else shapes.box_at(boxes, position) for boxes in tracks]
    if not moved:
        return boxes
    depsgraph = context.view_layer.depsgraph
    frame = latest.motion.frame if latest.motion else framing.WHOLE
    view = scene_evaluation.view_of(scene, scene.camera, depsgraph).framed(frame)
    for number, subject in enumerate(scene.motionbooth.subjects):
        if subject.object is not None and (latest.outdated or is_rectangle(subject.object)):
            boxes[number] = _bounds_now(subject.object, depsgraph, view)
    return boxes


def is_rectangle(thing: bpy.types.Object) -> bool:
    """A flat mesh of one face, such as the extension makes: its bounding box is its outline."""
    return thing.type == "MESH" and len(thing.data.polygons) == 1 and not thing.modifiers


def _bounds_now(thing: bpy.types.Object, depsgraph: bpy.types.Depsgraph, view: projection.View) -> Box | None:
    """From the bounding boxes alone: exact for a rectangle, a little large for what is round."""
    points = []
    for part in geometry.objects_with_surface(thing):
        evaluated = part.evaluated_get(depsgraph)
        points += [tuple(evaluated.matrix_world @ Vector(corner)) for corner in evaluated.bound_box]
    edges = np.concatenate([_BOUND_EDGES + 8 * number for number in range(len(points) // 8)])
    return projection.screen_box(np.array(points), edges, view)


_BOUND_EDGES = np.array(
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
)


def _position(moments: list[float], scene: bpy.types.Scene) -> float | None:
    """The current frame as an entry of `moments`; None outside of the shot."""
    now = scene.frame_current + scene.frame_subframe
    if not moments[0] <= now <= moments[-1]:
        return None
    return (now - moments[0]) / (moments[-1] - moments[0]) * (len(moments) - 1)


def _traveled(offsets: list[tuple[float, float]], position: float) -> tuple[float, float]:
    """How far the camera has come at entry `position`, shares of the frame."""
    before = min(int(position), len(offsets) - 2)
    share = position - before
    (x, y), (next_x, next_y) = offsets[before], offsets[before + 1]
    return x + (next_x - x) * share, y + (next_y - y) * share


# A finished take


def active_take(scene: bpy.types.Scene) -> take_motion.TakeMotion | None:
    shot = scene.motionbooth
    if not 0 <= shot.active_take < len(shot.takes):
        return None
    take = shot.takes[shot.active_take]
    clip = Path(bpy.path.abspath(take.clip_path))
    report = take_motion.report_path(clip)
    key = (take.settings, str(clip), report.stat().st_mtime if report.is_file() else 0.0)
    if key not in _takes:
        _takes[key] = take_motion.load_take_motion(take.settings, clip)
    return _takes[key]


def _draw_take(scene: bpy.types.Scene, take: take_motion.TakeMotion, shot_rect: FrameRect) -> None:
    """Over its clip, wherever that lies in the frame."""
    shot = take.spec.shot
    job = scene.motionbooth.takes[scene.motionbooth.active_take].job_id
    rect = shot_rect.part(takes.clip_frame(scene, job, shot))
    picture = _pictures.setdefault((scene.name, True), _Picture())
    colors = {subject.name: srgb(subject.color) for subject in scene.motionbooth.subjects}
    key = (id(take), round(rect.aspect, 3), tuple(colors.items()))
    if key != picture.key:
        picture.key, picture.now_key = key, ()
        picture.still = Still(_take_shapes(take, colors, rect.aspect))
    moments = [shot.scene_time(frame) for frame in range(shot.frames)]
    position = _position(moments, scene)
    band = _band(rect)
    if (now_key := (scene.frame_current, scene.frame_subframe, band)) != picture.now_key:
        picture.now_key = now_key
        picture.labels = [] if position is None else _take_labels(take, position)
        picture.now = _outlines(picture.labels, rect.aspect, band)
    with in_shares(rect):
        picture.still.draw(PATH_WIDTH)
        picture.now.draw()
    found = [(told(line), FOUND_COLOR) for line in (*take.verdicts.values(), take.camera_verdict) if line]
    _write_labels(picture.labels, rect, found or [(told(UNMEASURED), shapes.CAMERA_COLOR)])


def _take_shapes(take: take_motion.TakeMotion, colors: dict[str, Color], aspect: float) -> Shapes:
    """The asked paths in the subjects' colours, the found ones in another."""
    sketch = Sketch(aspect)
    for track in take.spec.shot.subjects:
        for boxes, color in (
            (track.boxes, colors.get(track.name, shapes.CAMERA_COLOR)),
            (take.found.get(track.name, []), FOUND_COLOR),
        ):
            sketch.path(np.array([box.center if box else (np.nan, np.nan) for box in boxes]).reshape(-1, 2), color)
    return sketch.finish()


def _take_labels(take: take_motion.TakeMotion, position: float) -> list[Label]:
    labels = []
    for track in take.spec.shot.subjects:
        asked, found = track.boxes, take.found.get(track.name, [])
        for words, boxes, color, under in (
            (told(f"{track.name}, asked"), asked, shapes.CAMERA_COLOR, False),
            (told(f"{track.name}, found"), found, FOUND_COLOR, True),
        ):
            box = shapes.box_at(boxes, position) if len(boxes) > 1 else None
            if box is not None:
                labels.append((words, color, box, under))
    return labels


# The background's distance, seen from anywhere else


def _draw_background_plane(context: bpy.types.Context) -> None:
    """The frame as it stands at the background distance, with the lines from the camera to its corners."""
    scene, camera = context.scene, context.scene.camera
    if camera.data.type not in {"PERSP", "ORTHO"}:
        return
    frame = camera.data.view_frame(scene=scene)
    distance = scene.motionbooth.background_distance
    growth = 1.0 if camera.data.type == "ORTHO" else distance / -frame[0].z
    world = camera.matrix_world.normalized()
    corners = [world @ Vector((corner.x * growth, corner.y * growth, -distance)) for corner in frame]
    seen = [location_3d_to_region_2d(context.region, context.region_data, corner) for corner in corners]
    if any(point is None for point in seen):
        return
    sketch = Sketch(1.0)
    sketch.path(np.array([tuple(point) for point in [*seen, seen[0]]]), BACKGROUND_COLOR, 0.7)
    with in_shares(FrameRect(0, 0, 1, -1)):
        Still(sketch.finish()).draw(PATH_WIDTH)
    text(seen[1].x + 8, seen[1].y + 8, _background_words(scene), BACKGROUND_COLOR)


def _background_words(scene: bpy.types.Scene) -> str:
    """In the scene's own units."""
    return told(_away(scene.unit_settings.system, scene.motionbooth.background_distance))


@lru_cache(maxsize=8)
def _away(units: str, distance: float) -> str:
    return f"Background {bpy.utils.units.to_string(units, 'LENGTH', distance).strip()} away"


def _write_labels(labels: list[Label], rect: FrameRect, lines: list[tuple[str, Color]]) -> None:
    """Names at their boxes; `lines` in the frame's lower left corner."""
    scale = bpy.context.preferences.system.ui_scale
    words = []
    for name, color, box, under in labels:
        x, y = rect.at((box.x1, box.y2 if under else box.y1))
        words.append((x, y - 16 * scale if under else y + 6 * scale, name, color))
    low = rect.top - rect.height + 10 * scale
    words += [(rect.left + 10 * scale, low + 18 * scale * n, *line) for n, line in enumerate(reversed(lines))]
    texts(words)
