"""Ten subjects that toybox was not trained on (eight solids, two sprites), and ten others to fill the galleries."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from motionbooth_lab.bench.solids import Block, Capsule, Ellipsoid, Solid, render
from motionbooth_lab.bench.things import CACTUS, HOUSE, ROCKET, SNOWMAN, TEAPOT, character_views

SIZE_PX = 96
YAWS = (-0.7, -0.35, 0.0, 0.35, 0.7)
SCALES = (0.6, 0.75, 0.95, 0.7, 0.55)
"""How much of each picture the subject fills, from close up to farther away."""

GROUNDS = ((150, 150, 152), (214, 196, 178), (92, 110, 128), (178, 198, 176), (74, 70, 76))
"""Plain background colors of the training pictures. None of them is a place of toybox's clips."""

ROBOT: Solid = [
    Block((0, -0.15, 0), (0.42, 0.42, 0.3), (40, 190, 210)),
    Block((0, 0.58, 0), (0.34, 0.26, 0.28), (245, 130, 30)),
    Ellipsoid((-0.14, 0.62, 0.28), (0.09, 0.09, 0.06), (20, 20, 24)),
    Ellipsoid((0.14, 0.62, 0.28), (0.09, 0.09, 0.06), (20, 20, 24)),
    Capsule((-0.5, 0.1, 0), (-0.72, -0.4, 0.1), 0.13, (245, 130, 30)),
    Capsule((0.5, 0.1, 0), (0.72, -0.4, 0.1), 0.13, (245, 130, 30)),
    Block((-0.22, -0.8, 0.04), (0.16, 0.24, 0.2), (30, 120, 170)),
    Block((0.22, -0.8, 0.04), (0.16, 0.24, 0.2), (30, 120, 170)),
]

DUCK: Solid = [
    Ellipsoid((-0.08, -0.35, 0), (0.78, 0.5, 0.5), (250, 214, 40)),
    Ellipsoid((0.34, 0.42, 0), (0.42, 0.4, 0.4), (250, 214, 40)),
    Ellipsoid((0.8, 0.36, 0), (0.26, 0.11, 0.2), (240, 90, 30)),
    Ellipsoid((0.5, 0.56, 0.33), (0.08, 0.09, 0.07), (20, 20, 24)),
    Ellipsoid((-0.2, -0.28, 0.42), (0.36, 0.24, 0.14), (236, 160, 30)),
    Capsule((-0.7, -0.1, 0), (-0.95, 0.15, 0), 0.13, (250, 214, 40)),
]

MUSHROOM: Solid = [
    Capsule((0, -0.75, 0), (0, 0.1, 0), 0.3, (250, 226, 170)),
    Ellipsoid((0, 0.3, 0), (0.92, 0.5, 0.92), (220, 40, 60)),
    Ellipsoid((-0.4, 0.5, 0.62), (0.17, 0.17, 0.14), (255, 236, 150)),
    Ellipsoid((0.36, 0.44, 0.72), (0.19, 0.17, 0.14), (255, 236, 150)),
    Ellipsoid((0.0, 0.72, 0.36), (0.17, 0.1, 0.17), (255, 236, 150)),
]

SLIME = """
....oooo....
..ooggggoo..
.oggggggggo.
.oggllggggo.
oggllggggggo
oggggggggggo
ogwwgggwwggo
ogwkgggwkggo
oggggggggggo
ogggppppgggo
oggggggggggo
.oooooooooo.
"""

INVADER = """
..p......p..
...p....p...
..pppppppp..
.ppyyppyypp.
.ppyyppyypp.
pppppppppppp
pccccccccccp
p.cccccccc.p
p.p......p.p
..pp....pp..
.yy......yy.
"""

INKS = {
    "o": (20, 100, 40),
    "g": (80, 220, 80),
    "l": (190, 250, 170),
    "w": (250, 250, 250),
    "k": (20, 20, 24),
    "p": (220, 70, 200),
    "y": (250, 230, 60),
    "c": (110, 40, 170),
}


OTHERS_SEED = 303
"""Seed of the characters in the galleries, different from those of the base model and the identity network."""

SOLIDS = ("robot", "duck", "mushroom", "snowman", "cactus", "teapot", "rocket", "house")
"""The subjects that are rendered solids."""

_NOWHERE = ("grass", "grass", "grass", "grass")


@dataclass(frozen=True)
class TrainingSet:
    """A subject to train: its class word, `pictures` (S, S, 3) uint8 RGB and `masks` (S, S), 255 on the subject.

    `places`: toybox's backgrounds that contrast with its colors, one for each of the bench's paths.
    """

    name: str
    class_word: str
    places: tuple[str, str, str, str]
    pictures: list[NDArray[np.uint8]]
    masks: list[NDArray[np.uint8]]


@cache
def unseen_subjects() -> tuple[TrainingSet, ...]:
    """The ten subjects, always the same; five of the rendered ones are of kinds that are in no training set."""
    return (
        toy_subject("robot", "robot", ROBOT, ("grass", "snow", "sand", "wall")),
        toy_subject("duck", "toy", DUCK, ("sea", "road", "night", "wall")),
        toy_subject("mushroom", "toy", MUSHROOM, ("grass", "sea", "road", "night")),
        sprite_subject("slime", "monster", SLIME, ("road", "snow", "night", "floor")),
        sprite_subject("invader", "character", INVADER, ("grass", "sand", "sea", "snow")),
        toy_subject("snowman", "character", SNOWMAN, ("grass", "road", "wall", "night")),
        toy_subject("cactus", "character", CACTUS, ("snow", "sand", "road", "night")),
        toy_subject("teapot", "toy", TEAPOT, ("grass", "road", "wall", "floor")),
        toy_subject("rocket", "toy", ROCKET, ("grass", "sea", "night", "road")),
        toy_subject("house", "toy", HOUSE, ("grass", "snow", "sea", "road")),
    )


def gallery_fillers(count: int = 10) -> list[TrainingSet]:
    """Other characters that a subject must be distinguished from. They are never trained."""
    return [
        on_grounds(f"other {n}", "character", _NOWHERE, character_views(OTHERS_SEED, n, YAWS, SIZE_PX))
        for n in range(count)
    ]


def toy_subject(name: str, word: str, solid: Solid, places: tuple[str, str, str, str]) -> TrainingSet:
    """The solid from five sides."""
    views = [render(solid, yaw, scale, SIZE_PX) for yaw, scale in zip(YAWS, SCALES, strict=True)]
    return on_grounds(name, word, places, views)


def sprite_subject(name: str, word: str, drawing: str, places: tuple[str, str, str, str]) -> TrainingSet:
    """The sprite, rotated and scaled: it has no other sides."""
    colors, mask = _inked(drawing)
    views = []
    for degrees, scale in zip((-12, 6, 0, 12, -6), SCALES, strict=True):
        turn = cv2.getRotationMatrix2D((SIZE_PX / 2, SIZE_PX / 2), degrees, scale)
        size = (SIZE_PX, SIZE_PX)
        views.append(
            (
                cv2.warpAffine(colors, turn, size, flags=cv2.INTER_NEAREST),
                cv2.warpAffine(mask, turn, size, flags=cv2.INTER_NEAREST),
            )
        )
    return on_grounds(name, word, places, views)


def _inked(drawing: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rows = drawing.split()
    small = np.array([[INKS.get(ink, (0, 0, 0)) for ink in row] for row in rows], np.uint8)
    cover = np.array([[255 * (ink in INKS) for ink in row] for row in rows], np.uint8)
    dot = int(SIZE_PX * 0.86) // max(cover.shape)
    height, width = cover.shape[0] * dot, cover.shape[1] * dot
    top, left = (SIZE_PX - height) // 2, (SIZE_PX - width) // 2
    colors, mask = np.zeros((SIZE_PX, SIZE_PX, 3), np.uint8), np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    colors[top : top + height, left : left + width] = small.repeat(dot, 0).repeat(dot, 1)
    mask[top : top + height, left : left + width] = cover.repeat(dot, 0).repeat(dot, 1)
    return colors, mask


def on_grounds(
    name: str,
    word: str,
    places: tuple[str, str, str, str],
    views: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
) -> TrainingSet:
    """A subject from views, each colors (S, S, 3) and a mask (S, S), 0 or 255, on the plain grounds."""
    pictures = [
        np.where(mask[..., None] > 0, colors, np.asarray(ground, np.uint8))
        for (colors, mask), ground in zip(views, GROUNDS, strict=True)
    ]
    return TrainingSet(name, word, places, pictures, [mask for _, mask in views])
