"""Builds the shapes of the overlay, as lines and triangles in shares of the frame (no bpy)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._protocol.motion import Box
from ..capture.framing import WHOLE
from ..capture.projection import Array

Color = tuple[float, float, float]

GHOSTS = 7  # along a path
PATH_WIDTH = 1.5  # pixels, at a resolution scale of 1
GHOST_OPACITY, PATH_OPACITY = 0.22, 0.9
DOT_RADIUS = 0.011  # of the frame's height
ARROW = 0.025  # of the frame's height
TOLERANCE = 5e-4  # shares of the frame by which a simplified path may deviate: less than a pixel
CAMERA_COLOR: Color = (1.0, 1.0, 1.0)
CUT_COLOR, ADDED_COLOR = (0.0, 0.0, 0.0), (0.6, 0.75, 1.0)
CUT_OPACITY, ADDED_OPACITY = 0.6, 0.15


@dataclass(frozen=True)
class Shapes:
    """Lines (2N, 2), as pairs of ends, and triangles (3M, 2); colors (.., 4) of each point, sRGB with alpha."""

    lines: Array
    line_colors: Array
    triangles: Array
    triangle_colors: Array


class ShapeBuilder:
    """Collects shapes for a frame with the given aspect ratio (width / height)."""

    def __init__(self, aspect: float) -> None:
        self._aspect = aspect
        self._lines: list[tuple[Array, Color, float]] = []
        self._triangles: list[tuple[Array, Color, float]] = []

    def path(self, points: Array, color: Color, opacity: float = PATH_OPACITY) -> None:
        """A line through `points` (N, 2), interrupted at points that are NaN."""
        if not len(points):
            return
        whole = np.isfinite(points).all(axis=1)
        breaks = np.flatnonzero(np.diff(whole)) + 1
        for run in np.split(points, breaks)[0 if whole[:1].all() else 1 :: 2]:
            kept = run[_corners(run)]
            self._lines.append((np.stack([kept[:-1], kept[1:]], axis=1).reshape(-1, 2), color, opacity))

    def box(self, box: Box, color: Color, opacity: float) -> None:
        """A thin outline."""
        x1, y1, x2, y2 = box.as_tuple()
        a, b, c, d = (x1, y1), (x2, y1), (x2, y2), (x1, y2)
        self._lines.append((np.array([a, b, b, c, c, d, d, a]), color, opacity))

    def dashed(self, box: Box, color: Color, opacity: float, dashes: int = 16) -> None:
        """A dashed outline."""
        x1, y1, x2, y2 = box.as_tuple()
        for start, end in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
            side = np.linspace(start, end, 2 * dashes)
            self._lines.append((side, color, opacity))

    def fill(self, box: Box, color: Color, opacity: float) -> None:
        """A filled box."""
        x1, y1, x2, y2 = box.as_tuple()
        corners = np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y1), (x2, y2), (x1, y2)])
        self._triangles.append((corners, color, opacity))

    def dot(self, point: Array, color: Color) -> None:
        """A small diamond."""
        across, up = DOT_RADIUS / self._aspect, DOT_RADIUS
        corners = point + np.array([(-across, 0), (0, -up), (across, 0), (-across, 0), (across, 0), (0, up)])
        self._triangles.append((corners, color, 1.0))

    def arrow_head(self, before: Array, tip: Array, color: Color) -> None:
        """An arrow head at `tip`, pointing away from `before`."""
        scale = np.array([self._aspect, 1.0])
        along = (tip - before) * scale
        length = float(np.hypot(*along))
        if length < 1e-6:
            return
        along *= ARROW / length
        side = np.array([-along[1], along[0]]) / 2
        corners = np.array([along * 0, -along + side, -along - side]) / scale + tip
        self._triangles.append((corners, color, 1.0))

    def build(self) -> Shapes:
        """All shapes so far."""
        lines, line_colors = _joined(self._lines)
        triangles, triangle_colors = _joined(self._triangles)
        return Shapes(lines, line_colors, triangles, triangle_colors)


def subject_shapes(builder: ShapeBuilder, boxes: Sequence[Box | None], keyed: Sequence[int], color: Color) -> None:
    """Add a subject's ghosts, the path of its center, and a dot at each of the `keyed` indices of `boxes`."""
    centers = np.array([box.center if box else (np.nan, np.nan) for box in boxes])
    for index in {round(n) for n in np.linspace(0, len(boxes) - 1, GHOSTS)}:
        ghost = boxes[index]
        if ghost is not None:
            builder.box(ghost, color, GHOST_OPACITY)
    builder.path(centers, color)
    for index in keyed:
        if boxes[index] is not None:
            builder.dot(centers[index], color)


def travel_shapes(offsets: Array, aspect: float, homographies: Array | None = None) -> Shapes:
    """The camera's travel (T, 2) as a path from the frame's center, with the frame at its start and end.

    With `homographies` (T, 3, 3): the trails of the frame's center and corners over the first frame's background.
    """
    builder = ShapeBuilder(aspect)
    if homographies is not None:
        trails = frame_trails(homographies)
        for trail, opacity in zip(trails, (PATH_OPACITY, *[PATH_OPACITY / 2] * 4), strict=True):
            if np.nanmax(np.abs(trail - trail[0])) > 1e-3:
                builder.path(trail, CAMERA_COLOR, opacity)
        for end, opacity in ((0, PATH_OPACITY / 4), (-1, PATH_OPACITY)):
            builder.path(trails[[1, 2, 3, 4, 1], end], CAMERA_COLOR, opacity)
    elif np.ptp(offsets, axis=0).max() > 1e-3:
        path = offsets + 0.5
        builder.path(path, CAMERA_COLOR)
        far = np.flatnonzero(np.abs(path - path[-1]).max(axis=1) > 1e-3)
        builder.arrow_head(path[far[-1] if len(far) else 0], path[-1], CAMERA_COLOR)
        for end, opacity in ((0, PATH_OPACITY / 4), (-1, PATH_OPACITY)):
            dx, dy = offsets[end]
            builder.dashed(Box(0.0, 0.0, 1.0, 1.0).moved(float(dx), float(dy)), CAMERA_COLOR, opacity)
    return builder.build()


def frame_trails(homographies: Array) -> Array:
    """(5, T, 2): where the center and the corners of each frame are over the first frame's background.

    NaN where a corner sees past its horizon.
    """
    points = np.array([(0.5, 0.5, 1), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)])
    seen = (points @ np.linalg.inv(homographies).swapaxes(1, 2)).swapaxes(0, 1)  # (5, T, 3)
    ahead = seen[..., 2:] > 1e-6
    return np.where(ahead, seen[..., :2] / np.where(ahead, seen[..., 2:], 1), np.nan)


def framing_shapes(frame: Box, aspect: float) -> Shapes:
    """The model's frame in the shot's: dark where the shot is cut, light where the model adds to it."""
    builder = ShapeBuilder(aspect)
    for part in _outside(frame, WHOLE):
        builder.fill(part, ADDED_COLOR, ADDED_OPACITY)
    for part in _outside(WHOLE, frame):
        builder.fill(part, CUT_COLOR, CUT_OPACITY)
    if frame != WHOLE:
        builder.dashed(frame, CAMERA_COLOR, PATH_OPACITY)
    return builder.build()


def _outside(box: Box, other: Box) -> list[Box]:
    """The parts of `box` to the left, right, top and bottom of `other`; both have the same center."""
    parts = []
    if box.x1 < other.x1:
        parts += [Box(box.x1, box.y1, other.x1, box.y2), Box(other.x2, box.y1, box.x2, box.y2)]
    if box.y1 < other.y1:
        parts += [Box(box.x1, box.y1, box.x2, other.y1), Box(box.x1, other.y2, box.x2, box.y2)]
    return parts


def band(box: Box, across: float, up: float) -> list[tuple[float, float, float]]:
    """The 8 corners of a band that reaches `across` and `up` to each side of a box's border; see BAND_TRIANGLES.

    Plain numbers: this runs at each frame change, and NumPy is slower for so few.
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
    """The box at the fractional index `position`, interpolated; None outside of the list or without a box there."""
    if not 0 <= position <= len(boxes) - 1:
        return None
    index = min(int(position), len(boxes) - 2)
    before, after = boxes[index], boxes[index + 1]
    if before is None or after is None:
        return boxes[round(position)]
    share = position - index
    return Box(*(a + (b - a) * share for a, b in zip(before.as_tuple(), after.as_tuple(), strict=True)))


def _corners(points: Array) -> list[int]:
    """The indices of `points` (N, 2) that a simplified path keeps (Douglas and Peucker 1973)."""
    kept = {0, len(points) - 1}
    pieces = [(0, len(points) - 1)]
    while pieces:
        first, last = pieces.pop()
        if last - first < 2:
            continue
        along, inner = points[last] - points[first], points[first + 1 : last] - points[first]
        share = np.clip(inner @ along / max(float(along @ along), 1e-12), 0, 1)
        off = np.hypot(*(inner - share[:, None] * along).T)
        if off.max() > TOLERANCE:
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
