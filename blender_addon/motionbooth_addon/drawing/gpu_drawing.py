"""Drawing with the gpu module over any region: shapes in shares of a frame, and text."""

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
BACKING = (0.0, 0.0, 0.0, 0.9)  # behind words and around boxes, for light pictures; a view mixes linear light
MARGIN = 4  # of the backing around words, pixels at a scale of the interface of 1
RIM = 1.6  # times as wide as the outline that lies in it


@dataclass(frozen=True)
class FrameRect:
    """Where the finished frame lies in a region, pixels from its lower left corner; y points up."""

    left: float
    top: float
    width: float
    height: float

    @property
    def aspect(self) -> float:
        return self.width / self.height

    def part(self, box: Box) -> FrameRect:
        """The part of it that `box`, in its shares, covers."""
        left, top = self.at((box.x1, box.y1))
        return FrameRect(left, top, (box.x2 - box.x1) * self.width, (box.y2 - box.y1) * self.height)

    def at(self, share: Sequence[float]) -> tuple[float, float]:
        return self.left + share[0] * self.width, self.top - share[1] * self.height


@cache
def _shader(name: str) -> Any:
    return gpu.shader.from_builtin(name)


class Still:
    """Shapes on the graphics card."""

    def __init__(self, drawn: Shapes | None = None) -> None:
        self._lines: Any = None
        self._triangles: Any = None
        if drawn is not None:
            self._lines = _batch("POLYLINE_FLAT_COLOR", "LINES", drawn.lines, drawn.line_colors)
            self._triangles = _batch("FLAT_COLOR", "TRIS", drawn.triangles, drawn.triangle_colors)

    def draw(self, width: float) -> None:
        """`width`: of lines, pixels at a scale of the interface of 1."""
        if self._lines is not None:
            shader = _shader("POLYLINE_FLAT_COLOR")
            shader.bind()
            shader.uniform_float("viewportSize", gpu.state.viewport_get()[2:])
            shader.uniform_float("lineWidth", width * bpy.context.preferences.system.ui_scale)
            self._lines.draw(shader)
        if self._triangles is not None:
            self._triangles.draw(_shader("FLAT_COLOR"))


class Outlines:
    """Boxes on the graphics card, with thick outlines `across` and `up` (shares of the frame) to each side.

    A dark rim keeps them visible on what is as light as they are.
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


class in_shares:
    """While it lasts, coordinates are shares of the frame, y down, and colours are mixed with what is there."""

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
    """None where there is nothing to draw."""
    if not len(points):
        return None
    deep = np.zeros((len(points), 3), np.float32)
    deep[:, :2] = points
    return batch_for_shader(_shader(shader), kind, {"pos": deep, "color": colors.astype(np.float32)})


def text(x: float, y: float, words: str, color: Color) -> None:
    texts([(x, y, words, color)])


def texts(lines: Sequence[tuple[float, float, str, Color]]) -> None:
    """Words at their places in the region, pixels from its lower left corner, each on a dark backing."""
    if not lines:
        return
    scale = bpy.context.preferences.system.ui_scale
    blf.size(0, TEXT_SIZE * scale)
    backing = _backing(tuple((round(x), round(y), *blf.dimensions(0, words)) for x, y, words, _ in lines), scale)
    gpu.state.blend_set("ALPHA")
    backing.draw(_shader("FLAT_COLOR"))
    gpu.state.blend_set("NONE")
    for x, y, words, color in lines:
        blf.color(0, *color, 1.0)
        blf.position(0, x, y, 0)
        blf.draw(0, words)


@lru_cache(maxsize=8)
def _backing(words: tuple[tuple[float, float, float, float], ...], scale: float) -> Any:
    """A rectangle behind each of the words: x, y, width, height of them in pixels."""
    margin = MARGIN * scale
    # All are as high as a line with its descenders, whatever letters a word has.
    low, high = 0.3 * TEXT_SIZE * scale, 0.8 * TEXT_SIZE * scale
    points = [
        corner
        for x, y, width, _ in words
        for corner in (
            (x - margin, y - low, 0.0), (x + width + margin, y - low, 0.0),
            (x + width + margin, y + high + margin / 2, 0.0), (x - margin, y + high + margin / 2, 0.0),
        )
    ]  # fmt: skip
    triangles = [(n + a, n + b, n + c) for n in range(0, len(points), 4) for a, b, c in ((0, 1, 2), (0, 2, 3))]
    colors = [BACKING] * len(points)
    return batch_for_shader(_shader("FLAT_COLOR"), "TRIS", {"pos": points, "color": colors}, indices=triangles)


def srgb(color: Sequence[float]) -> Color:
    """A scene's (linear) colour as screens have it."""
    red, green, blue = BlenderColor(color).from_scene_linear_to_srgb()
    return red, green, blue
