"""Five more solids of kinds that are in no training set, and characters that only fill the galleries."""

import numpy as np
from numpy.typing import NDArray

from motionbooth_lab.bench.solids import Block, Capsule, Ellipsoid, Solid
from motionbooth_lab.toybox.bank import character_of
from motionbooth_lab.toybox.tracer import render

DARK, WHITE = (20, 20, 24), (240, 240, 236)

SNOWMAN: Solid = [
    Ellipsoid((0, -0.55, 0), (0.48, 0.44, 0.46), WHITE),
    Ellipsoid((0, 0.1, 0), (0.36, 0.34, 0.35), WHITE),
    Ellipsoid((0, 0.58, 0), (0.26, 0.25, 0.25), WHITE),
    Ellipsoid((-0.1, 0.64, 0.22), (0.05, 0.06, 0.05), DARK),
    Ellipsoid((0.1, 0.64, 0.22), (0.05, 0.06, 0.05), DARK),
    Capsule((0, 0.54, 0.24), (0, 0.5, 0.5), 0.06, (244, 120, 20)),
    Capsule((-0.22, 0.36, 0.14), (0.22, 0.36, 0.14), 0.1, (200, 30, 50)),
    Capsule((0.2, 0.34, 0.24), (0.26, 0.02, 0.36), 0.08, (200, 30, 50)),
    Block((0, 0.8, 0), (0.34, 0.05, 0.34), (40, 50, 120), 0.03),
    Block((0, 0.98, 0), (0.2, 0.18, 0.2), (40, 50, 120), 0.04),
    Ellipsoid((0, 0.14, 0.35), (0.06, 0.06, 0.05), DARK),
    Ellipsoid((0, -0.06, 0.34), (0.06, 0.06, 0.05), DARK),
]

CACTUS: Solid = [
    Block((0, -0.72, 0), (0.36, 0.26, 0.36), (206, 96, 52), 0.08),
    Block((0, -0.46, 0), (0.42, 0.08, 0.42), (226, 126, 72), 0.05),
    Capsule((0, -0.4, 0), (0, 0.62, 0), 0.27, (66, 150, 70)),
    Capsule((0.2, -0.05, 0), (0.58, -0.02, 0), 0.13, (66, 150, 70)),
    Capsule((0.58, -0.02, 0), (0.58, 0.4, 0), 0.13, (66, 150, 70)),
    Capsule((-0.2, 0.15, 0), (-0.54, 0.16, 0), 0.12, (66, 150, 70)),
    Capsule((-0.54, 0.16, 0), (-0.54, 0.56, 0), 0.12, (66, 150, 70)),
    Ellipsoid((0.02, 0.9, 0.02), (0.2, 0.12, 0.2), (240, 90, 160)),
    Ellipsoid((-0.1, 0.36, 0.24), (0.08, 0.1, 0.06), WHITE),
    Ellipsoid((0.1, 0.36, 0.24), (0.08, 0.1, 0.06), WHITE),
    Ellipsoid((-0.1, 0.35, 0.3), (0.04, 0.05, 0.03), DARK),
    Ellipsoid((0.1, 0.35, 0.3), (0.04, 0.05, 0.03), DARK),
    Capsule((-0.08, 0.14, 0.27), (0.08, 0.14, 0.27), 0.03, DARK),
]

TEAPOT: Solid = [
    Ellipsoid((0, -0.15, 0), (0.6, 0.52, 0.56), (236, 232, 214)),
    Ellipsoid((0, -0.3, 0), (0.63, 0.2, 0.59), (50, 90, 190)),
    Ellipsoid((0, 0.32, 0), (0.36, 0.12, 0.36), (50, 90, 190)),
    Ellipsoid((0, 0.5, 0), (0.1, 0.1, 0.1), (230, 180, 50)),
    Capsule((0.5, -0.2, 0), (0.78, 0.1, 0), 0.13, (50, 90, 190)),
    Capsule((0.78, 0.1, 0), (0.94, 0.3, 0), 0.08, (230, 180, 50)),
    Capsule((-0.54, 0.16, 0), (-0.86, 0.12, 0), 0.08, (230, 180, 50)),
    Capsule((-0.86, 0.12, 0), (-0.84, -0.3, 0), 0.08, (230, 180, 50)),
    Capsule((-0.84, -0.3, 0), (-0.54, -0.36, 0), 0.08, (230, 180, 50)),
    Ellipsoid((-0.16, 0.06, 0.5), (0.08, 0.1, 0.06), DARK),
    Ellipsoid((0.16, 0.06, 0.5), (0.08, 0.1, 0.06), DARK),
    Block((0, -0.66, 0), (0.36, 0.07, 0.36), (50, 90, 190), 0.03),
]

ROCKET: Solid = [
    Capsule((0, -0.45, 0), (0, 0.35, 0), 0.3, (226, 228, 232)),
    Ellipsoid((0, 0.62, 0), (0.28, 0.4, 0.28), (216, 40, 44)),
    Block((0, -0.2, 0), (0.32, 0.07, 0.32), (216, 40, 44), 0.05),
    Ellipsoid((0, 0.2, 0.26), (0.17, 0.17, 0.08), (240, 190, 40)),
    Ellipsoid((0, 0.2, 0.31), (0.12, 0.12, 0.06), (70, 160, 220)),
    Block((0.42, -0.66, 0), (0.16, 0.24, 0.06), (40, 70, 160), 0.03),
    Block((-0.42, -0.66, 0), (0.16, 0.24, 0.06), (40, 70, 160), 0.03),
    Block((0, -0.66, 0.38), (0.06, 0.24, 0.16), (40, 70, 160), 0.03),
    Ellipsoid((0, -0.9, 0), (0.18, 0.16, 0.18), (250, 150, 30)),
]

HOUSE: Solid = [
    Block((0, -0.2, 0), (0.6, 0.4, 0.44), (240, 206, 130), 0.04),
    Block((0, 0.3, 0), (0.7, 0.12, 0.54), (150, 50, 40), 0.05),
    Block((0, 0.5, 0), (0.48, 0.12, 0.38), (150, 50, 40), 0.05),
    Block((0, 0.68, 0), (0.26, 0.1, 0.22), (150, 50, 40), 0.05),
    Block((0.38, 0.72, 0), (0.09, 0.22, 0.09), (110, 110, 116), 0.02),
    Block((0, -0.32, 0.42), (0.13, 0.28, 0.06), (60, 120, 80), 0.02),
    Block((-0.36, -0.1, 0.42), (0.14, 0.14, 0.06), (90, 170, 230), 0.02),
    Block((0.36, -0.1, 0.42), (0.14, 0.14, 0.06), (90, 170, 230), 0.02),
    *[Ellipsoid((x, -0.7, z), (0.22, 0.22, 0.1), DARK) for x in (-0.38, 0.38) for z in (-0.38, 0.38)],
    *[Ellipsoid((x, -0.7, 0.44), (0.1, 0.1, 0.08), (230, 180, 50)) for x in (-0.38, 0.38)],
]

OTHERS_SEED = 303
"""Seed of the characters in the galleries, different from those of the base model and the identity network."""


def other_views(
    number: int, yaws: tuple[float, ...], size_px: int
) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Pictures (S, S, 3) and masks (S, S), 0 or 255, of one of these characters from several sides."""
    person = character_of(OTHERS_SEED, number)
    views = render([person.seen_from(yaw) for yaw in yaws], size_px).numpy()
    return [(view[..., :3].copy(), np.where(view[..., 3] > 127, 255, 0).astype(np.uint8)) for view in views]
