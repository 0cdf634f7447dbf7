"""Pictures of small 3D toys by sphere tracing, without Blender or files and with the same pixels everywhere.

A toy is a union of rounded boxes, ellipsoids and capsules. x is right, y up, z toward the viewer, all within -1..1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]
Vector = tuple[float, float, float]

STEPS = 48
HIT, PAST = 0.004, 3.5
"""A ray stops within the first distance of the toy (hit) or beyond the second one (missed)."""

LIGHT = np.array([0.4, 0.7, 0.6]) / np.linalg.norm([0.4, 0.7, 0.6])


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid."""

    center: Vector
    radii: Vector
    rgb: RGB

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """A lower bound of the distance of points (N, 3)."""
        radii = np.asarray(self.radii)
        offset = points - self.center
        scaled = np.linalg.norm(offset / radii, axis=-1)
        return (scaled - 1) * radii.min()


@dataclass(frozen=True)
class Block:
    """An axis-aligned box with rounded edges."""

    center: Vector
    half: Vector
    rgb: RGB
    round: float = 0.06

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        outside = np.abs(points - self.center) - (np.asarray(self.half) - self.round)
        return np.linalg.norm(np.maximum(outside, 0), axis=-1) + np.minimum(outside.max(-1), 0) - self.round


@dataclass(frozen=True)
class Capsule:
    """A cylinder with round ends."""

    start: Vector
    end: Vector
    radius: float
    rgb: RGB

    def distance(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        along = np.subtract(self.end, self.start)
        share = np.clip((points - self.start) @ along / (along @ along), 0, 1)
        return np.linalg.norm(points - self.start - share[:, None] * along, axis=-1) - self.radius


Solid = list[Ellipsoid | Block | Capsule]


def render(solid: Solid, yaw: float, scale: float, size_px: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Render the toy from slightly above with an orthographic camera.

    `yaw`: rotation in radians. `scale`: share of the picture that the toy fills. Returns colors (S, S, 3) uint8 RGB on
    black and the mask (S, S), 0 or 255.
    """
    grid = ((np.arange(size_px) + 0.5) / size_px * 2 - 1) * 1.05 / scale
    x, y = np.meshgrid(grid, -grid)
    pitch = 0.2
    origin = np.stack([x, y, np.full_like(x, 3.0)], -1).reshape(-1, 3)
    to_toy = _turn_y(-yaw) @ _turn_x(-pitch)
    points, ray = origin @ to_toy.T, np.array([0.0, 0.0, -1.0]) @ to_toy.T
    under_way = np.arange(len(points))
    for _ in range(STEPS):
        step = _distances(solid, points[under_way]).min(0)
        points[under_way] += step[:, None] * ray
        under_way = under_way[(step > HIT) & (step < PAST)]
    distances = _distances(solid, points)
    hit = distances.min(0) < 2 * HIT
    colors = np.array([part.rgb for part in solid], np.float64)[distances.argmin(0)]
    shade = 0.55 + 0.5 * np.clip(_normals(solid, points) @ (to_toy @ LIGHT), 0, 1)
    pixels = np.where(hit[:, None], np.clip(colors * shade[:, None], 0, 255), 0).astype(np.uint8)
    return pixels.reshape(size_px, size_px, 3), (hit * 255).astype(np.uint8).reshape(size_px, size_px)


def _distances(solid: Solid, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(parts, N)."""
    return np.stack([part.distance(points) for part in solid])


def _normals(solid: Solid, points: NDArray[np.float64]) -> NDArray[np.float64]:
    step = 1e-3 * np.eye(3)
    slope = [_distances(solid, points + d).min(0) - _distances(solid, points - d).min(0) for d in step]
    normal = np.stack(slope, -1)
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)


def _turn_y(angle: float) -> NDArray[np.float64]:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def _turn_x(angle: float) -> NDArray[np.float64]:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
