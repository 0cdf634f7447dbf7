"""Labels and outlines of boxes at the current frame, shared by the overlays of shots and takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import bpy

from .._protocol.motion import Box
from .gpu_drawing import BoxBatch, FrameRect, draw_texts
from .shapes import Color

OUTLINE_WIDTH = 3.5  # pixels, at a resolution scale of 1


@dataclass(frozen=True)
class BoxLabel:
    """A box with its name, which is written above or `below` it."""

    text: str
    color: Color
    box: Box
    below: bool = False


def outline_width(rect: FrameRect) -> float:
    """The width of the line around a box, in heights of the frame."""
    return round(OUTLINE_WIDTH * bpy.context.preferences.system.ui_scale / rect.height, 5)


def outline_batch(labels: Sequence[BoxLabel], aspect: float, width: float) -> BoxBatch:
    """The outlines of the labeled boxes."""
    return BoxBatch([(label.box, label.color) for label in labels], width / aspect / 2, width / 2)


def draw_labels(labels: Sequence[BoxLabel], rect: FrameRect, corner_lines: Sequence[tuple[str, Color]]) -> None:
    """Write the names at their boxes, and `corner_lines` in the lower left corner of the frame."""
    scale = bpy.context.preferences.system.ui_scale
    written = []
    for label in labels:
        x, y = rect.at((label.box.x1, label.box.y2 if label.below else label.box.y1))
        written.append((x, y - 16 * scale if label.below else y + 6 * scale, label.text, label.color))
    bottom = rect.top - rect.height + 10 * scale
    for row, (text, color) in enumerate(reversed(corner_lines)):
        written.append((rect.left + 10 * scale, bottom + 18 * scale * row, text, color))
    draw_texts(written)


def current_position(moments: Sequence[float], scene: bpy.types.Scene) -> float | None:
    """The current frame as a fractional index into `moments`, which are evenly spaced; None outside of the shot."""
    now = scene.frame_current + scene.frame_subframe
    if not moments[0] <= now <= moments[-1]:
        return None
    return (now - moments[0]) / (moments[-1] - moments[0]) * (len(moments) - 1)
