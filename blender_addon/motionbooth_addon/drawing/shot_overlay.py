"""Draws the current shot: boxes and their paths, the camera travel, the framing and the background distance."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import bpy
import gpu
import numpy as np
from bpy_extras.view3d_utils import location_3d_to_region_2d
from mathutils import Vector

from .. import compat
from .._protocol.motion import Box
from ..capture import framing, geometry, scene_evaluation, shot_cache
from ..capture.reader import Motion
from ..capture.shot_warnings import followed_in_part
from ..i18n.translation import translate
from . import shapes
from .gpu_drawing import BoxBatch, FrameRect, ShapeBatch, draw_text, frame_coordinates, srgb
from .labels import BoxLabel, current_position, draw_labels, outline_batch, outline_width
from .shapes import PATH_WIDTH, Color, ShapeBuilder

ADDED, CUT = "Generated, not shown", "Cut off"
BACKGROUND_COLOR: Color = (0.55, 0.8, 1.0)
ERROR_COLOR: Color = (1.0, 0.6, 0.3)


@dataclass
class _ShotDrawing:
    """The GPU batches of one scene's shot between redraws; the keys say what they were made from."""

    key: tuple[Any, ...] = ()
    paths: ShapeBatch = field(default_factory=ShapeBatch)  # with ghosts and keyframe dots
    travel: ShapeBatch = field(default_factory=ShapeBatch)
    framing: ShapeBatch = field(default_factory=ShapeBatch)  # in the shot's frame; all others are in the model's frame
    tracks: list[list[Box | None]] = field(default_factory=list)  # each subject's boxes
    offsets: list[tuple[float, float]] = field(default_factory=list)
    frame_key: tuple[Any, ...] = ()
    boxes: BoxBatch = field(default_factory=BoxBatch)  # at the current frame
    traveled: tuple[float, float] | None = None  # how far the camera is at the current frame, if that is in the shot
    labels: list[BoxLabel] = field(default_factory=list)


_drawings: dict[str, _ShotDrawing] = {}  # by the scene's name


def clear() -> None:
    """Free all batches."""
    _drawings.clear()


def draw_shot(context: bpy.types.Context, shot_rect: FrameRect) -> None:
    """Draw the scene's shot into its frame, as of the last reading."""
    scene = context.scene
    cache = shot_cache.get(scene)
    motion = cache.motion
    if motion is None:
        if cache.error is not None:  # else the shot has not been read yet
            draw_text(shot_rect.left + 10, shot_rect.top - 24, translate(cache.error), ERROR_COLOR)
        return
    if len(scene.motionbooth.subjects) != len(motion.projections):
        return  # a subject was added or removed, and the scene will be read again soon
    rect = shot_rect.part(motion.frame)
    drawing = _drawings.setdefault(scene.name, _ShotDrawing())
    colors = [srgb(subject.color) for subject in scene.motionbooth.subjects]
    key = (cache.version, round(rect.aspect, 3), tuple(colors))
    if key != drawing.key:
        drawing.key, drawing.frame_key = key, ()
        _update_shapes(drawing, scene, motion, colors, rect.aspect)
        drawing.framing = ShapeBatch(shapes.framing_shapes(motion.frame, shot_rect.aspect))
    _update_current_frame(drawing, context, cache, colors, rect)
    with frame_coordinates(shot_rect):
        drawing.framing.draw(PATH_WIDTH)
    with frame_coordinates(rect):
        drawing.paths.draw(PATH_WIDTH)
        drawing.boxes.draw()
        if drawing.traveled is not None:  # shifted, so that the camera is at the center at the current frame
            dx, dy = drawing.traveled
            gpu.matrix.translate((-dx, -dy))
            drawing.travel.draw(PATH_WIDTH)
    lines = [(_background_label(scene), BACKGROUND_COLOR)]
    if (limits := followed_in_part(motion.warnings)) is not None:
        lines.append((translate(limits), ERROR_COLOR))
    draw_labels(drawing.labels, rect, lines)
    _draw_framing_label(motion.frame, shot_rect)


def _update_shapes(
    drawing: _ShotDrawing, scene: bpy.types.Scene, motion: Motion, colors: list[Color], aspect: float
) -> None:
    drawing.tracks = [[projection.box for projection in projections] for projections in motion.projections]
    builder = ShapeBuilder(aspect)
    for subject, boxes, color in zip(scene.motionbooth.subjects, drawing.tracks, colors, strict=True):
        keyed = _keyed_indices(subject.object, motion.moments) if subject.object else []
        shapes.subject_shapes(builder, boxes, keyed, color)
    drawing.paths = ShapeBatch(builder.build())
    drawing.offsets = [(offset.dx, offset.dy) for offset in motion.camera.offsets]
    homographies = np.array(motion.camera.homographies) if motion.camera.homographies else None
    drawing.travel = ShapeBatch(shapes.travel_shapes(np.array(drawing.offsets), aspect, homographies))


def _update_current_frame(
    drawing: _ShotDrawing,
    context: bpy.types.Context,
    cache: shot_cache.ShotCache,
    colors: list[Color],
    rect: FrameRect,
) -> None:
    scene, motion = context.scene, cache.motion
    assert motion is not None
    moves = cache.moves if cache.moved_frame == scene.frame_current else None
    width = outline_width(rect)
    key = (cache.version, scene.frame_current, scene.frame_subframe, moves, cache.outdated, width)
    if key == drawing.frame_key:
        return
    drawing.frame_key = key
    position = current_position(motion.moments, scene)
    boxes = [None if position is None else shapes.box_at(track, position) for track in drawing.tracks]
    if moves is not None:
        _apply_moved_boxes(boxes, context, motion.frame, cache.outdated)
    drawing.labels = [
        BoxLabel(subject.name, color, box)
        for subject, color, box in zip(scene.motionbooth.subjects, colors, boxes, strict=True)
        if box is not None
    ]
    drawing.traveled = None if position is None else _traveled(drawing.offsets, position)
    drawing.boxes = outline_batch(drawing.labels, rect.aspect, width)


def _keyed_indices(proxy: bpy.types.Object, moments: list[float]) -> list[int]:
    """The indices of the moments nearest to the object's keyframes."""
    frames = [frame for frame in compat.keyed_frames(proxy) if moments[0] <= frame <= moments[-1]]
    return sorted({int(np.abs(np.array(moments) - frame).argmin()) for frame in frames})


def _apply_moved_boxes(boxes: list[Box | None], context: bpy.types.Context, frame: Box, outdated: bool) -> None:
    """Replace the cached boxes of objects that the user has just moved by those in the 3D view."""
    scene, depsgraph = context.scene, context.view_layer.depsgraph
    view = scene_evaluation.view_of(scene, scene.camera, depsgraph).framed(frame)
    for index, subject in enumerate(scene.motionbooth.subjects):
        if subject.object is not None and (outdated or geometry.is_rectangle(subject.object)):
            boxes[index] = geometry.project_bounds(subject.object, depsgraph, view)


def _traveled(offsets: list[tuple[float, float]], position: float) -> tuple[float, float]:
    """How far the camera has traveled at the fractional index `position`, in shares of the frame."""
    before = min(int(position), len(offsets) - 2)
    share = position - before
    (x, y), (next_x, next_y) = offsets[before], offsets[before + 1]
    return x + (next_x - x) * share, y + (next_y - y) * share


def _draw_framing_label(frame: Box, rect: FrameRect) -> None:
    """In the corner of the area that the model's frame adds to the shot or cuts off."""
    if frame != framing.WHOLE:
        added = max(framing.size(frame)) > 1
        x, y = rect.at((min(frame.x1, 0.0), min(frame.y1, 0.0)))
        draw_text(
            x + 8,
            y - 18 * bpy.context.preferences.system.ui_scale,
            translate(ADDED if added else CUT),
            BACKGROUND_COLOR,
        )


def draw_background_plane(context: bpy.types.Context) -> None:
    """Outside the camera view: the camera's frame at the background distance."""
    scene, camera = context.scene, context.scene.camera
    if camera.data.type not in {"PERSP", "ORTHO"}:
        return
    frame = camera.data.view_frame(scene=scene)
    distance = scene.motionbooth.background_distance
    scale = 1.0 if camera.data.type == "ORTHO" else distance / -frame[0].z
    world = camera.matrix_world.normalized()
    corners = [world @ Vector((corner.x * scale, corner.y * scale, -distance)) for corner in frame]
    points = [location_3d_to_region_2d(context.region, context.region_data, corner) for corner in corners]
    if any(point is None for point in points):
        return
    builder = ShapeBuilder(1.0)
    builder.path(np.array([tuple(point) for point in [*points, points[0]]]), BACKGROUND_COLOR, 0.7)
    with frame_coordinates(FrameRect(0, 0, 1, -1)):
        ShapeBatch(builder.build()).draw(PATH_WIDTH)
    draw_text(points[1].x + 8, points[1].y + 8, _background_label(scene), BACKGROUND_COLOR)


def _background_label(scene: bpy.types.Scene) -> str:
    """The background distance in the scene's units."""
    units = scene.unit_settings
    scale = 1.0 if units.system == "NONE" else units.scale_length
    distance = _formatted(units.system, scene.motionbooth.background_distance * scale)
    return translate("Background distance: {distance}", distance=distance)


@lru_cache(maxsize=8)
def _formatted(units: str, distance: float) -> str:
    return bpy.utils.units.to_string(units, "LENGTH", distance).strip()
