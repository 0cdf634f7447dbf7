"""Draws the requested and the detected motion of a finished take over its clip."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import bpy
import numpy as np

from ..i18n.translation import translate
from ..timeline import takes
from ..timeline.take_motion import TakeMotion
from . import shapes
from .gpu_drawing import BoxBatch, FrameRect, ShapeBatch, frame_coordinates, srgb
from .labels import BoxLabel, current_position, draw_labels, outline_batch, outline_width
from .shapes import PATH_WIDTH, Color, ShapeBuilder, Shapes

DETECTED_COLOR: Color = (0.3, 1.0, 0.45)
REQUESTED_COLOR: Color = (1.0, 1.0, 1.0)
UNMEASURED = "This take has not been measured"


@dataclass
class _TakeDrawing:
    """The GPU batches of a scene's active take between redraws; the keys say what they were made from."""

    key: tuple[Any, ...] = ()
    paths: ShapeBatch = field(default_factory=ShapeBatch)
    frame_key: tuple[Any, ...] = ()
    boxes: BoxBatch = field(default_factory=BoxBatch)
    labels: list[BoxLabel] = field(default_factory=list)


_drawings: dict[str, _TakeDrawing] = {}  # by the scene's name


def clear() -> None:
    """Free all batches."""
    _drawings.clear()


def draw_take(scene: bpy.types.Scene, take: TakeMotion, shot_rect: FrameRect) -> None:
    """Draw the scene's active take over its clip, wherever the clip is in the shot's frame."""
    shot = take.spec.shot
    job = scene.motionbooth.takes[scene.motionbooth.active_take].job_id
    rect = shot_rect.part(takes.clip_frame(scene, job, shot))
    drawing = _drawings.setdefault(scene.name, _TakeDrawing())
    colors = {subject.name: srgb(subject.color) for subject in scene.motionbooth.subjects}
    key = (take, round(rect.aspect, 3), tuple(colors.items()))
    if key != drawing.key:
        drawing.key, drawing.frame_key = key, ()
        drawing.paths = ShapeBatch(_path_shapes(take, colors, rect.aspect))
    width = outline_width(rect)
    frame_key = (scene.frame_current, scene.frame_subframe, width)
    if frame_key != drawing.frame_key:
        drawing.frame_key = frame_key
        position = current_position(shot.times, scene)
        drawing.labels = [] if position is None else _box_labels(take, position)
        drawing.boxes = outline_batch(drawing.labels, rect.aspect, width)
    with frame_coordinates(rect):
        drawing.paths.draw(PATH_WIDTH)
        drawing.boxes.draw()
    results = [(translate(line), DETECTED_COLOR) for line in (*take.verdicts.values(), take.camera_verdict) if line]
    draw_labels(drawing.labels, rect, results or [(translate(UNMEASURED), REQUESTED_COLOR)])


def _path_shapes(take: TakeMotion, colors: dict[str, Color], aspect: float) -> Shapes:
    """The requested paths in the subjects' colors and the detected ones in another."""
    builder = ShapeBuilder(aspect)
    for track in take.spec.shot.subjects:
        for boxes, color in (
            (track.boxes, colors.get(track.name, REQUESTED_COLOR)),
            (take.found.get(track.name, []), DETECTED_COLOR),
        ):
            builder.path(np.array([box.center if box else (np.nan, np.nan) for box in boxes]).reshape(-1, 2), color)
    return builder.build()


def _box_labels(take: TakeMotion, position: float) -> list[BoxLabel]:
    labels = []
    for track in take.spec.shot.subjects:
        for text, boxes, color, below in (
            (translate("{subject} (requested)", subject=track.name), track.boxes, REQUESTED_COLOR, False),
            (
                translate("{subject} (detected)", subject=track.name),
                take.found.get(track.name, []),
                DETECTED_COLOR,
                True,
            ),
        ):
            box = shapes.box_at(boxes, position) if len(boxes) > 1 else None
            if box is not None:
                labels.append(BoxLabel(text, color, box, below))
    return labels
