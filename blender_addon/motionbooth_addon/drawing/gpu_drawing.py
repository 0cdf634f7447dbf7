"""Draws shapes in coordinates of a frame, and text, with the gpu module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import blf
import bpy
import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader
from mathutils import Color as BlenderColor

from .._protocol.motion import Box
from ..capture.projection import Array
from .shapes import BAND_TRIANGLES, Color, Shapes, band

TEXT_SIZE = 13
BACKING = (0.0, 0.0, 0.0, 0.9)  # behind text and around boxes, so that they are readable on a light picture
MARGIN = 4  # of the backing around text, pixels at a resolution scale of 1
RIM = 1.6  # width of the dark rim of an outline, relative to the outline


@dataclass(frozen=True)
class FrameRect:
    """The position of the shot's frame in a region, in pixels from its lower left corner; y points up."""

    left: float
    top: float
    width: float
    height: float

    @property
    def aspect(self) -> float:
        """Width / height."""
        return self.width / self.height

    def part(self, box: Box) -> FrameRect:
        """The part of the frame that `box`, in shares of the frame, covers."""
        left, top = self.at((box.x1, box.y1))
        return FrameRect(left, top, (box.x2 - box.x1) * self.width, (box.y2 - box.y1) * self.height)

    def at(self, share: Sequence[float]) -> tuple[float, float]:
        """The pixel position of a point in shares of the frame."""
        return self.left + share[0] * self.width, self.top - share[1] * self.height


@cache
def _shader(name: str) -> Any:
    return gpu.shader.from_builtin(name)


class ShapeBatch:
    """Shapes in GPU memory."""

    def __init__(self, shapes: Shapes | None = None) -> None:
        self._lines: Any = None
        self._triangles: Any = None
        if shapes is not None:
            self._lines = _batch("POLYLINE_FLAT_COLOR", "LINES", shapes.lines, shapes.line_colors)
            self._triangles = _batch("FLAT_COLOR", "TRIS", shapes.triangles, shapes.triangle_colors)

    def draw(self, width: float) -> None:
        """Draw them; `width` is that of lines, in pixels at a resolution scale of 1."""
        if self._lines is not None:
            shader = _shader("POLYLINE_FLAT_COLOR")
            shader.bind()
            shader.uniform_float("viewportSize", gpu.state.viewport_get()[2:])
            shader.uniform_float("lineWidth", width * bpy.context.preferences.system.ui_scale)
            self._lines.draw(shader)
        if self._triangles is not None:
            self._triangles.draw(_shader("FLAT_COLOR"))


class BoxBatch:
    """Box outlines in GPU memory, which reach `across` and `up` (shares of the frame) to each side of the box's border.

    A dark rim keeps them visible on a picture of the same color.
    """

    def __init__(self, boxes: Sequence[tuple[Box, Color]] = (), across: float = 0.0, up: float = 0.0) -> None:
        self._batch: Any = None
        if boxes:
            corners, colors = [], []
            for box, color in boxes:
                corners += [*band(box, RIM * across, RIM * up), *band(box, across, up)]
                colors += [BACKING] * 8 + [(*color, 1.0)] * 8
            triangles = [
                (a + first, b + first, c + first) for first in range(0, len(corners), 8) for a, b, c in BAND_TRIANGLES
            ]
            self._batch = batch_for_shader(
                _shader("FLAT_COLOR"), "TRIS", {"pos": corners, "color": colors}, indices=triangles
            )

    def draw(self) -> None:
        if self._batch is not None:
            self._batch.draw(_shader("FLAT_COLOR"))


class frame_coordinates:
    """Context manager: coordinates are shares of the frame, y down, and colors are blended."""

    def __init__(self, rect: FrameRect) -> None:
        self._rect = rect

    def __enter__(self) -> None:
        gpu.state.blend_set("ALPHA")
        gpu.matrix.push()
        gpu.matrix.translate((self._rect.left, self._rect.top))
        gpu.matrix.scale((self._rect.width, -self._rect.height))

    def __exit__(self, *_: object) -> None:
        gpu.matrix.pop()
        gpu.state.blend_set("NONE")


def _batch(shader: str, kind: str, points: Array, colors: Array) -> Any:
    """A batch, or None if there is nothing to draw."""
    if not len(points):
        return None
    deep = np.zeros((len(points), 3), np.float32)
    deep[:, :2] = points
    return batch_for_shader(_shader(shader), kind, {"pos": deep, "color": colors.astype(np.float32)})


def draw_text(x: float, y: float, line: str, color: Color) -> None:
    """Draw one line of text; see `draw_texts`."""
    draw_texts([(x, y, line, color)])


def draw_texts(lines: Sequence[tuple[float, float, str, Color]]) -> None:
    """Draw lines of text (x, y, text, color) on dark backings; x, y in pixels from the region's lower left corner."""
    if not lines:
        return
    scale = bpy.context.preferences.system.ui_scale
    blf.size(0, TEXT_SIZE * scale)
    backing = _backing(tuple((round(x), round(y), *blf.dimensions(0, line)) for x, y, line, _ in lines), scale)
    gpu.state.blend_set("ALPHA")
    backing.draw(_shader("FLAT_COLOR"))
    gpu.state.blend_set("NONE")
    for x, y, line, color in lines:
        blf.color(0, *color, 1.0)
        blf.position(0, x, y, 0)
        blf.draw(0, line)


@lru_cache(maxsize=8)
def _backing(rects: tuple[tuple[float, float, float, float], ...], scale: float) -> Any:
    """A dark rectangle behind each line of text, given by x, y, width and height in pixels."""
    margin = MARGIN * scale
    # All backings have the same height, whatever letters the text has.
    low, high = 0.3 * TEXT_SIZE * scale, 0.8 * TEXT_SIZE * scale
    points = [
        corner
        for x, y, width, _ in rects
        for corner in (
            (x - margin, y - low, 0.0), (x + width + margin, y - low, 0.0),
            (x + width + margin, y + high + margin / 2, 0.0), (x - margin, y + high + margin / 2, 0.0),
        )
    ]  # fmt: skip
    triangles = [(n + a, n + b, n + c) for n in range(0, len(points), 4) for a, b, c in ((0, 1, 2), (0, 2, 3))]
    colors = [BACKING] * len(points)
    return batch_for_shader(_shader("FLAT_COLOR"), "TRIS", {"pos": points, "color": colors}, indices=triangles)


def clear() -> None:
    """Free what is kept in GPU memory."""
    _backing.cache_clear()


def srgb(color: Sequence[float]) -> Color:
    """Convert a scene linear color to sRGB."""
    red, green, blue = BlenderColor(color).from_scene_linear_to_srgb()
    return red, green, blue
