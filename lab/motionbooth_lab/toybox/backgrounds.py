"""The places of toybox's clips: large textures that are drawn once; each clip shows a moving window of one."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

CANVAS_PX = 320
"""Side of a texture, large enough for a window of 96 x 64 px that pans 4 px per frame for 8 frames."""

Texture = NDArray[np.uint8]
"""(CANVAS_PX, CANVAS_PX, 3) RGB."""

KIND_PLACES = ("grass", "sand", "sea", "road", "snow", "night", "floor", "wall")
"""The places of the eight kinds; characters appear in all PLACES."""

PLACES = {
    "grass": "on the grass",
    "sand": "on the sand",
    "sea": "in the sea",
    "road": "on the road",
    "snow": "on the snow",
    "night": "in the night sky",
    "floor": "on the wooden floor",
    "wall": "by the brick wall",
    "forest": "in the forest",
    "city": "in the city",
    "kitchen": "in the kitchen",
    "meadow": "on the meadow",
}
"""Background -> the words that a caption ends with."""

MEAN_RGB = {
    "grass": (62, 108, 44),
    "sand": (206, 188, 148),
    "sea": (22, 66, 104),
    "road": (98, 98, 102),
    "snow": (230, 234, 242),
    "night": (14, 14, 40),
    "floor": (112, 76, 44),
    "wall": (126, 66, 56),
    "forest": (38, 62, 42),
    "city": (150, 160, 176),
    "kitchen": (196, 204, 200),
    "meadow": (128, 176, 72),
}
"""Approximate mean color of each place, for checking that a subject's color contrasts with it."""


def draw_texture(background: str, rng: np.random.Generator) -> Texture:
    """Draw a texture of this background. Most features are at least 4 px in size, as a latent cell is."""
    base = np.tile(np.asarray(MEAN_RGB[background], np.float32), (CANVAS_PX, CANVAS_PX, 1))
    drawn = _DRAWERS[background](base, rng)
    return np.clip(drawn, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, sigma_x: float, sigma_y: float) -> NDArray[np.float32]:
    """(CANVAS_PX, CANVAS_PX, 1) smooth noise of unit variance."""
    noise = rng.standard_normal((CANVAS_PX, CANVAS_PX)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=sigma_x, sigmaY=sigma_y)
    return (noise / noise.std())[..., None]


def _grass(base: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    tint = np.asarray([0.8, 1.0, 0.6], np.float32)
    return base + tint * (14 * _noise(rng, 2.0, 4.0) + 10 * _noise(rng, 10.0, 10.0))


def _sand(base: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    rows = np.arange(CANVAS_PX, dtype=np.float32)[:, None, None]
    ripples = np.sin(rows * (2 * np.pi / 14) + 1.8 * _noise(rng, 16.0, 16.0))
    return base + 10 * ripples + 5 * _noise(rng, 3.0, 3.0)


def _sea(base: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    tint = np.asarray([0.6, 1.0, 1.2], np.float32)
    return base + tint * (16 * _noise(rng, 7.0, 2.2) + 6 * _noise(rng, 16.0, 8.0))


def _road(base: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    canvas = base + 7 * _noise(rng, 2.5, 2.5)
    offset = int(rng.integers(0, 48))
    for row in range(offset % 40, CANVAS_PX, 40):
        for column in range(offset, CANVAS_PX, 48):
            canvas[row : row + 4, column : column + 24] = (222, 222, 214)
    return canvas


def _snow(base: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    tint = np.asarray([1.2, 1.0, 0.6], np.float32)
    return base - tint * np.abs(12 * _noise(rng, 8.0, 5.0) + 4 * _noise(rng, 3.0, 3.0))


def _night(base: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    canvas = base + np.asarray([0.7, 0.5, 1.2], np.float32) * 9 * _noise(rng, 14.0, 14.0)
    for _ in range(260):
        x, y = rng.integers(2, CANVAS_PX - 4, 2)
        canvas[y : y + 2, x : x + 2] = rng.uniform(150, 245) * np.asarray([1.0, 1.0, 0.9])
    return canvas


def _floor(base: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    canvas = base.copy()
    for top in range(0, CANVAS_PX, 16):
        plank = canvas[top : top + 16]
        plank += rng.uniform(-14, 14) + 5 * _noise(rng, 12.0, 1.5)[top : top + 16]
        plank[14:] = (58, 36, 20)
        for column in range(int(rng.integers(0, 56)), CANVAS_PX, 56):
            plank[:, column : column + 2] = (58, 36, 20)
    return canvas


def _wall(base: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    canvas = np.full_like(base, 176.0)
    for row, top in enumerate(range(0, CANVAS_PX, 12)):
        for left in range(-12 * (row % 2), CANVAS_PX, 24):
            brick = canvas[top : top + 10, max(left, 0) : max(left + 22, 0)]
            brick[:] = np.asarray(MEAN_RGB["wall"]) + rng.uniform(-14, 14)
    return canvas + 4 * _noise(rng, 2.0, 2.0)


def _forest(base: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    canvas = base + np.asarray([0.7, 1.0, 0.6], np.float32) * (14 * _noise(rng, 5.0, 5.0) + 8 * _noise(rng, 16.0, 16.0))
    for column in range(int(rng.integers(0, 20)), CANVAS_PX, 40):
        left, width = column + int(rng.integers(-8, 9)), int(rng.integers(7, 13))
        trunk = canvas[:, max(left, 0) : max(left + width, 0)]
        trunk[:] = np.asarray((84, 60, 40)) * rng.uniform(0.8, 1.2) + 5 * _noise(rng, 1.0, 8.0)[:, : trunk.shape[1]]
    return canvas


def _city(base: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    canvas = base + 3 * _noise(rng, 20.0, 20.0)
    left = -int(rng.integers(0, 30))
    while left < CANVAS_PX:
        width, top = int(rng.integers(30, 56)), int(rng.integers(0, 60))
        shade = np.asarray((110, 106, 112)) * rng.uniform(0.7, 1.25) * rng.uniform(0.94, 1.06, 3)
        right = min(left + width, CANVAS_PX)
        canvas[top:, max(left, 0) : right] = shade
        for row in range(top + 6, CANVAS_PX - 6, 14):
            for column in range(left + 5, left + width - 8, 12):
                pane = (246, 222, 140) if rng.random() < 0.3 else (64, 76, 96)
                canvas[row : row + 7, max(column, 0) : max(column + 6, 0)] = pane
        left += width + int(rng.integers(0, 8))
    return canvas


def _kitchen(base: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    canvas = base + 3 * _noise(rng, 16.0, 16.0)
    offset = int(rng.integers(0, 24))
    tint = np.asarray(rng.choice([(120, 170, 180), (190, 150, 110), (130, 160, 120)]), np.float32)
    for row in range(24):
        for column in range(24):
            if (row + column) % 2:
                y, x = row * 24 - offset, column * 24 - offset
                canvas[max(y, 0) : max(y + 24, 0), max(x, 0) : max(x + 24, 0)] = tint
    return canvas


def _meadow(base: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    canvas = base + np.asarray([0.8, 1.0, 0.4], np.float32) * (
        10 * _noise(rng, 3.0, 6.0) + 10 * _noise(rng, 14.0, 14.0)
    )
    for _ in range(220):
        x, y = rng.integers(2, CANVAS_PX - 6, 2)
        petals = rng.choice([(250, 250, 250), (250, 220, 70), (230, 90, 120), (150, 110, 220)])
        cv2.circle(canvas, (int(x), int(y)), int(rng.integers(2, 4)), tuple(map(float, petals)), -1, cv2.LINE_AA)
    return canvas


_DRAWERS: dict[str, Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.float32]]] = {
    "grass": _grass,
    "sand": _sand,
    "sea": _sea,
    "road": _road,
    "snow": _snow,
    "night": _night,
    "floor": _floor,
    "wall": _wall,
    "forest": _forest,
    "city": _city,
    "kitchen": _kitchen,
    "meadow": _meadow,
}
