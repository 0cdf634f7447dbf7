"""Flat subjects of toybox's clips as colored polygons: eight kinds of one color, and toys of two or three colors.

A figure is a list of `Part`s in drawing order, in figure coordinates: x right, y down, within -1..1.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

RGB = tuple[int, int, int]

COLORS: dict[str, RGB] = {
    "red": (226, 34, 34),
    "orange": (250, 138, 18),
    "yellow": (252, 222, 42),
    "green": (44, 196, 62),
    "cyan": (44, 216, 222),
    "blue": (42, 84, 236),
    "purple": (150, 46, 206),
    "pink": (252, 124, 192),
}
"""The colors of the kinds, which contrast with each other and with most backgrounds."""

TOY_COLORS: dict[str, RGB] = COLORS | {
    "white": (240, 240, 240),
    "black": (34, 34, 38),
    "brown": (122, 74, 38),
    "grey": (140, 142, 148),
}

KINDS = ("ball", "cube", "star", "heart", "ring", "car", "fish", "house")

TOY_NOUNS = ("toy", "robot", "dog", "cat", "plushie", "doll", "figure", "monster", "creature", "character", "animal")
"""Nouns for toys in captions: the class words that users are likely to choose for their subjects."""

SUPERSAMPLING = 4


@dataclass(frozen=True)
class Part:
    """A filled polygon, `points` (N, 2) in figure coordinates."""

    points: NDArray[np.float64]
    rgb: RGB


def kind_parts(kind: str, rgb: RGB) -> list[Part]:
    """The parts of one of `KINDS` in this color. Raises KeyError for an unknown kind."""
    dark, light = _shade(rgb, 0.5), _tint(rgb, 0.55)
    return {
        "ball": _ball,
        "cube": _cube,
        "star": _star,
        "heart": _heart,
        "ring": _ring,
        "car": _car,
        "fish": _fish,
        "house": _house,
    }[kind](rgb, dark, light)


def toy_parts(colors: list[RGB], rng: np.random.Generator) -> list[Part]:
    """A random toy, symmetric about its vertical axis: body and head, and optionally limbs, ears and a belly.

    `colors`: two or three, the body's first.
    """
    body, head = colors[0], colors[1]
    accent = colors[-1]
    waist = rng.uniform(-0.25, 0.15)
    body_width, head_width = rng.uniform(0.45, 0.8), rng.uniform(0.35, 0.75)
    parts = []
    if rng.random() < 0.6:  # limbs reach out from behind the body
        reach, lift = rng.uniform(0.85, 1.0), rng.uniform(-0.2, 0.5)
        parts += _mirrored(_bar((0.2, (waist + 1) / 2), (reach, lift), rng.uniform(0.12, 0.2)), accent)
    if rng.random() < 0.5:
        parts += _mirrored(_bar((0.25, 0.6), (rng.uniform(0.25, 0.6), 1.0), rng.uniform(0.12, 0.2)), accent)
    if rng.random() < 0.5:
        parts += _mirrored(_bar((0.15, -0.5), (rng.uniform(0.2, 0.6), -1.0), rng.uniform(0.1, 0.18)), accent)
    bottom = rng.uniform(0.8, 0.95)
    parts += _rimmed(_blob(0.0, (waist + bottom) / 2, body_width, (bottom - waist) / 2 + 0.1, rng), body)
    if rng.random() < 0.5:
        parts.append(
            Part(_ellipse(0.0, (waist + bottom) / 2 + 0.05, body_width * 0.55, (bottom - waist) * 0.3), accent)
        )
    top = rng.uniform(-0.95, -0.75)
    parts += _rimmed(_blob(0.0, (top + waist) / 2, head_width, (waist - top) / 2 + 0.08, rng), head)
    return parts + _eyes((top + waist) / 2, head_width, rng)


def rasterize(
    parts: list[Part],
    center_px: tuple[float, float],
    half_px: float,
    angle: float,
    flip: bool,
    size_px: tuple[int, int],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw a figure, scaled to `half_px` pixels per unit and rotated by `angle` radians, in a `size_px` (w, h) frame.

    Returns premultiplied color (h, w, 3), 0..255, and coverage (h, w, 1), 0..1, anti-aliased by supersampling.
    """
    width, height = size_px[0] * SUPERSAMPLING, size_px[1] * SUPERSAMPLING
    cos, sin = np.cos(angle) * half_px * SUPERSAMPLING, np.sin(angle) * half_px * SUPERSAMPLING
    turn = np.array([[cos, sin], [-sin, cos]])
    if flip:
        turn[0] *= -1
    color = np.zeros((height, width, 3), np.uint8)
    cover = np.zeros((height, width), np.uint8)
    for part in parts:
        points = part.points @ turn + np.asarray(center_px) * SUPERSAMPLING
        fixed = np.round(points * 16).astype(np.int32)
        cv2.fillPoly(color, [fixed], part.rgb, shift=4)
        cv2.fillPoly(cover, [fixed], (255,), shift=4)
    small = cv2.resize(color, size_px, interpolation=cv2.INTER_AREA).astype(np.float32)
    small_cover = cv2.resize(cover, size_px, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return small, small_cover[..., None]


def _shade(rgb: RGB, factor: float) -> RGB:
    return (int(rgb[0] * factor), int(rgb[1] * factor), int(rgb[2] * factor))


def _tint(rgb: RGB, share: float) -> RGB:
    red, green, blue = (int(value + (255 - value) * share) for value in rgb)
    return (red, green, blue)


def _ellipse(x: float, y: float, rx: float, ry: float) -> NDArray[np.float64]:
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], 1)


def _rectangle(x1: float, y1: float, x2: float, y2: float) -> NDArray[np.float64]:
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])


def _bar(start: tuple[float, float], end: tuple[float, float], half_width: float) -> NDArray[np.float64]:
    a, b = np.asarray(start), np.asarray(end)
    along = (b - a) / max(float(np.linalg.norm(b - a)), 1e-6)
    across = np.array([-along[1], along[0]]) * half_width
    return np.array([a + across, b + across, b - across, a - across])


def _blob(x: float, y: float, rx: float, ry: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A superellipse between a diamond, a disk and a box, tapered up or down."""
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    power = 2 / rng.choice([1.4, 2.0, 2.0, 4.0, 8.0])
    unit_x = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** power
    unit_y = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** power
    taper = 1 + rng.uniform(-0.35, 0.35) * unit_y
    return np.stack([x + rx * unit_x * taper, y + ry * unit_y], 1)


def _mirrored(points: NDArray[np.float64], rgb: RGB) -> list[Part]:
    return [Part(points, rgb), Part(points * np.array([-1, 1]), rgb)]


def _rimmed(points: NDArray[np.float64], rgb: RGB) -> list[Part]:
    """The shape with a darker rim, which makes silhouettes readable."""
    center = points.mean(0)
    return [Part(points, _shade(rgb, 0.5)), Part(center + (points - center) * 0.84, rgb)]


def _eyes(y: float, head_width: float, rng: np.random.Generator) -> list[Part]:
    apart, size = head_width * rng.uniform(0.35, 0.5), rng.uniform(0.1, 0.15)
    white = _mirrored(_ellipse(apart, y, size, size), (245, 245, 245))
    return white + _mirrored(_ellipse(apart, y, size * 0.55, size * 0.55), (20, 20, 20))


def _ball(rgb: RGB, dark: RGB, light: RGB) -> list[Part]:
    return [*_rimmed(_ellipse(0, 0, 0.95, 0.95), rgb), Part(_ellipse(-0.3, -0.35, 0.25, 0.22), light)]


def _cube(rgb: RGB, dark: RGB, light: RGB) -> list[Part]:
    front = _rectangle(-0.9, -0.35, 0.4, 0.95)
    top = np.array([[-0.9, -0.35], [-0.4, -0.85], [0.9, -0.85], [0.4, -0.35]])
    side = np.array([[0.4, -0.35], [0.9, -0.85], [0.9, 0.45], [0.4, 0.95]])
    return [Part(front, rgb), Part(top, light), Part(side, dark)]


def _star(rgb: RGB, dark: RGB, light: RGB) -> list[Part]:
    turn = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2 == 0, 1.0, 0.48)
    return _rimmed(np.stack([radius * np.cos(turn), radius * np.sin(turn) + 0.06], 1), rgb)


def _heart(rgb: RGB, dark: RGB, light: RGB) -> list[Part]:
    turn = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    x = np.sin(turn) ** 3
    y = -(13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)) / 16
    return [*_rimmed(np.stack([x * 0.95, y * 0.95 - 0.06], 1), rgb), Part(_ellipse(-0.45, -0.45, 0.16, 0.14), light)]


def _ring(rgb: RGB, dark: RGB, light: RGB) -> list[Part]:
    """A disk with a pale middle: a real hole would make its mask a special case for every measure."""
    return [*_rimmed(_ellipse(0, 0, 0.95, 0.95), rgb), Part(_ellipse(0, 0, 0.44, 0.44), (250, 246, 236))]


def _car(rgb: RGB, dark: RGB, light: RGB) -> list[Part]:
    cabin = np.array([[-0.62, -0.1], [-0.4, -0.66], [0.36, -0.66], [0.66, -0.1]])
    window = np.array([[-0.42, -0.1], [-0.28, -0.5], [0.26, -0.5], [0.44, -0.1]])
    body = np.array([[-1, 0.45], [-1, -0.05], [-0.8, -0.14], [0.8, -0.14], [1, 0.05], [1, 0.45]])
    wheels = [Part(_ellipse(x, 0.45, 0.27, 0.27), (24, 24, 28)) for x in (-0.52, 0.52)]
    return [Part(cabin, rgb), Part(window, (214, 236, 246)), Part(body, rgb), *wheels]


def _fish(rgb: RGB, dark: RGB, light: RGB) -> list[Part]:
    tail = np.array([[-0.45, 0.0], [-1.0, -0.6], [-0.85, 0.0], [-1.0, 0.6]])
    fin = np.array([[-0.1, -0.4], [0.05, -0.85], [0.4, -0.4]])
    eye = [
        Part(_ellipse(0.55, -0.14, 0.17, 0.17), (250, 250, 250)),
        Part(_ellipse(0.58, -0.14, 0.09, 0.09), (10, 10, 10)),
    ]
    return [Part(tail, dark), Part(fin, dark), *_rimmed(_ellipse(0.22, 0, 0.76, 0.58), rgb), *eye]


def _house(rgb: RGB, dark: RGB, light: RGB) -> list[Part]:
    roof = np.array([[-1.0, -0.1], [0.0, -0.95], [1.0, -0.1]])
    return [
        Part(_rectangle(-0.75, -0.1, 0.75, 0.95), rgb),
        Part(roof, dark),
        Part(_rectangle(-0.2, 0.35, 0.22, 0.95), (250, 240, 200)),
    ]
