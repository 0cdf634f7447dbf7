"""Drawing with the gpu module over any region: batches of shapes in shares of a frame, and text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import blf
import bpy
import gpu
import numpy as np
from gpu_extras.batch import batch_for_shader
from mathutils import Color as BlenderColor

from .projection import Array
from .shapes import Color, Shapes

TEXT_SIZE = 13


@dataclass(frozen=True)
class FrameRect:
    """Where the finished frame lies in a region, pixels from its lower left corner; y points up."""

    left: float
    top: float
    width: float
    height: float

    def at(self, share: Sequence[float]) -> tuple[float, float]:
        return self.left + share[0] * self.width, self.top - share[1] * self.height


@cache
def _shader(name: str) -> Any:
    return gpu.shader.from_builtin(name)


@dataclass
class Batches:
    """Shapes on the graphics card."""

    lines: Any = None
    triangles: Any = None

    @classmethod
    def of(cls, drawn: Shapes) -> Batches:
        return cls(
            _batch("POLYLINE_FLAT_COLOR", "LINES", drawn.lines, drawn.line_colors),
            _batch("FLAT_COLOR", "TRIS", drawn.triangles, drawn.triangle_colors),
        )

    def draw(self, width: float) -> None:
        if self.lines is not None:
            shader = _shader("POLYLINE_FLAT_COLOR")
            shader.bind()
            shader.uniform_float("viewportSize", gpu.state.viewport_get()[2:])
            shader.uniform_float("lineWidth", width * bpy.context.preferences.system.ui_scale)
            self.lines.draw(shader)
        if self.triangles is not None:
            self.triangles.draw(_shader("FLAT_COLOR"))


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
    deep = np.concatenate([points, np.zeros((len(points), 1))], axis=1).astype(np.float32)
    return batch_for_shader(_shader(shader), kind, {"pos": deep, "color": colors.astype(np.float32)})


def text(x: float, y: float, words: str, color: Color) -> None:
    blf.size(0, TEXT_SIZE * bpy.context.preferences.system.ui_scale)
    blf.enable(0, blf.SHADOW)
    blf.shadow(0, 3, 0.0, 0.0, 0.0, 0.8)
    blf.color(0, *color, 1.0)
    blf.position(0, x, y, 0)
    blf.draw(0, words)
    blf.disable(0, blf.SHADOW)


def srgb(color: Sequence[float]) -> Color:
    """A scene's (linear) colour as screens have it."""
    red, green, blue = BlenderColor(color).from_scene_linear_to_srgb()
    return red, green, blue
