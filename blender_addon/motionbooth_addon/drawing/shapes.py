"""What the overlay draws, as lines and triangles in shares of the frame. Free of bpy; needs numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._protocol.motion import Box
from ..capture.framing import WHOLE
from ..capture.projection import Array

Color = tuple[float, float, float]

GHOSTS = 7  # along a path
GHOST_OPACITY, PATH_OPACITY = 0.22, 0.9
DOT_RADIUS = 0.011  # of the frame's height
ARROW = 0.025  # of the frame's height
STRAIGHT = 5e-4  # shares of the frame by which a path may be off, for fewer lines to draw: less than a pixel
CAMERA_COLOR: Color = (1.0, 1.0, 1.0)
CUT_COLOR, ADDED_COLOR = (0.0, 0.0, 0.0), (0.6, 0.75, 1.0)
CUT_OPACITY, ADDED_OPACITY = 0.6, 0.15


@dataclass(frozen=True)
class Shapes:
    """Lines (2N, 2) in pairs of ends and triangles (3M, 2), with colours (.., 4) for each point, sRGB and opacity."""

    lines: Array
    line_colors: Array
    triangles: Array
    triangle_colors: Array


NOTHING = Shapes(np.zeros((0, 2)), np.zeros((0, 4)), np.zeros((0, 2)), np.zeros((0, 4)))


class Sketch:
    """Collects shapes. `aspect`: the frame's width / height, so that dots are round."""

    def __init__(self, aspect: float) -> None:
        self._aspect = aspect
        self._lines: list[tuple[Array, Color, float]] = []
        self._triangles: list[tuple[Array, Color, float]] = []

    def path(self, points: Array, color: Color, opacity: float = PATH_OPACITY) -> None:
        """A line through `points` (N, 2), broken where one of them is not a number; nothing where there are none."""
        if not len(points):
            return
        whole = np.isfinite(points).all(axis=1)
        breaks = np.flatnonzero(np.diff(whole)) + 1
        for run in np.split(points, breaks)[0 if whole[:1].all() else 1 :: 2]:
            kept = run[_corners(run)]
            self._lines.append((np.stack([kept[:-1], kept[1:]], axis=1).reshape(-1, 2), color, opacity))

    def box(self, box: Box, color: Color, opacity: float) -> None:
        x1, y1, x2, y2 = box.as_tuple()
        a, b, c, d = (x1, y1), (x2, y1), (x2, y2), (x1, y2)
        self._lines.append((np.array([a, b, b, c, c, d, d, a]), color, opacity))

    def dashed(self, box: Box, color: Color, opacity: float, dashes: int = 16) -> None:
        """A box of which every other piece is left out."""
        x1, y1, x2, y2 = box.as_tuple()
        for start, end in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
            side = np.linspace(start, end, 2 * dashes)
            self._lines.append((side, color, opacity))

    def fill(self, box: Box, color: Color, opacity: float) -> None:
        x1, y1, x2, y2 = box.as_tuple()
        corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y1), (x2, y2), (x1, y2)])
        self._triangles.append((corners, color, opacity))

    def dot(self, point: Array, color: Color) -> None:
        across, up = DOT_RADIUS / self._aspect, DOT_RADIUS
        corners = point + np.array([(-across, 0), (0, -up), (across, 0), (-across, 0), (across, 0), (0, up)])
        self._triangles.append((corners, color, 1.0))

    def arrow_head(self, before: Array, tip: Array, color: Color) -> None:
        """At `tip`, pointing away from `before`."""
        scale = np.array([self._aspect, 1.0])
        along = (tip - before) * scale
        length = float(np.hypot(*along))
        if length < 1e-6:
            return
        along *= ARROW / length
        side = np.array([-along[1], along[0]]) / 2
        corners = np.array([along * 0, -along + side, -along - side]) / scale + tip
        self._triangles.append((corners, color, 1.0))

    def finish(self) -> Shapes:
        lines, line_colors = _joined(self._lines)
        triangles, triangle_colors = _joined(self._triangles)
        return Shapes(lines, line_colors, triangles, triangle_colors)


def subject_shapes(sketch: Sketch, boxes: Sequence[Box | None], keyed: Sequence[int], color: Color) -> None:
    """A subject's ghosts, the path of its centre, and a dot at each of the `keyed` entries of `boxes`."""
    centers = np.array([box.center if box else (np.nan, np.nan) for box in boxes])
    for number in {round(n) for n in np.linspace(0, len(boxes) - 1, GHOSTS)}:
        ghost = boxes[number]
        if ghost is not None:
            sketch.box(ghost, color, GHOST_OPACITY)
    sketch.path(centers, color)
    for number in keyed:
        if boxes[number] is not None:
            sketch.dot(centers[number], color)


def travel_shapes(offsets: Array, aspect: float) -> Shapes:
    """The camera's way (T, 2) from the middle of the frame at offset (0, 0), and the frame at its beginning and end."""
    sketch = Sketch(aspect)
    if np.ptp(offsets, axis=0).max() > 1e-3:
        way = offsets + 0.5
        sketch.path(way, CAMERA_COLOR)
        far = np.flatnonzero(np.abs(way - way[-1]).max(axis=1) > 1e-3)
        sketch.arrow_head(way[far[-1] if len(far) else 0], way[-1], CAMERA_COLOR)
        for end, opacity in ((0, PATH_OPACITY / 4), (-1, PATH_OPACITY)):
            dx, dy = offsets[end]
            sketch.dashed(Box(0.0, 0.0, 1.0, 1.0).moved(float(dx), float(dy)), CAMERA_COLOR, opacity)
    return sketch.finish()


def framing_shapes(frame: Box, aspect: float) -> Shapes:
    """Where the model's frame lies in the shot's: what is cut of the shot, dark, and what the model adds, light."""
    sketch = Sketch(aspect)
    for part in _apart(frame, WHOLE):
        sketch.fill(part, ADDED_COLOR, ADDED_OPACITY)
    for part in _apart(WHOLE, frame):
        sketch.fill(part, CUT_COLOR, CUT_OPACITY)
    if frame != WHOLE:
        sketch.dashed(frame, CAMERA_COLOR, PATH_OPACITY)
    return sketch.finish()


def _apart(box: Box, other: Box) -> list[Box]:
    """What of `box` lies left, right, above and below of `other`; both have the same center."""
    parts = []
    if box.x1 < other.x1:
        parts += [Box(box.x1, box.y1, other.x1, box.y2), Box(other.x2, box.y1, box.x2, box.y2)]
    if box.y1 < other.y1:
        parts += [Box(box.x1, box.y1, box.x2, other.y1), Box(box.x1, other.y2, box.x2, box.y2)]
    return parts


def band(box: Box, across: float, up: float) -> list[tuple[float, float, float]]:
    """The 8 corners of a band along a box's outline, `across` and `up` to each side of it; see BAND_TRIANGLES.

    For the boxes of the current frame, anew at each: plain numbers, as NumPy is slower for so few.
    """
    x1, y1, x2, y2 = box.as_tuple()
    return [
        (x1 - across, y1 - up, 0.0), (x2 + across, y1 - up, 0.0),
        (x2 + across, y2 + up, 0.0), (x1 - across, y2 + up, 0.0),
        (x1 + across, y1 + up, 0.0), (x2 - across, y1 + up, 0.0),
        (x2 - across, y2 - up, 0.0), (x1 + across, y2 - up, 0.0),
    ]  # fmt: skip


BAND_TRIANGLES = [
    triangle for n in range(4) for triangle in ((n, (n + 1) % 4, n + 4), ((n + 1) % 4, (n + 1) % 4 + 4, n + 4))
]


def box_at(boxes: Sequence[Box | None], position: float) -> Box | None:
    """The box at entry `position`, between two entries in proportion; None outside of the list or of the frame."""
    if not 0 <= position <= len(boxes) - 1:
        return None
    number = min(int(position), len(boxes) - 2)
    before, after = boxes[number], boxes[number + 1]
    if before is None or after is None:
        return boxes[round(position)]
    share = position - number
    return Box(*(a + (b - a) * share for a, b in zip(before.as_tuple(), after.as_tuple(), strict=True)))


def _corners(points: Array) -> list[int]:
    """The entries of `points` (N, 2) between which it is straight (Douglas and Peucker 1973)."""
    kept = {0, len(points) - 1}
    pieces = [(0, len(points) - 1)]
    while pieces:
        first, last = pieces.pop()
        if last - first < 2:
            continue
        along, inner = points[last] - points[first], points[first + 1 : last] - points[first]
        share = np.clip(inner @ along / max(float(along @ along), 1e-12), 0, 1)
        off = np.hypot(*(inner - share[:, None] * along).T)
        if off.max() > STRAIGHT:
            middle = first + 1 + int(off.argmax())
            kept.add(middle)
            pieces += [(first, middle), (middle, last)]
    return sorted(kept)


def _joined(parts: list[tuple[Array, Color, float]]) -> tuple[Array, Array]:
    if not parts:
        return np.zeros((0, 2)), np.zeros((0, 4))
    counts = [len(points) for points, _, _ in parts]
    colors = np.array([(*color, opacity) for _, color, opacity in parts])
    return np.concatenate([points for points, _, _ in parts]), np.repeat(colors, counts, axis=0)
