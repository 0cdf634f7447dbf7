"""Random characters: figures, robots, animals, birds, vehicles and monsters, each drawn from a seed.

Each has a face or a front, limbs that swing, and its own colors and patterns, so that the base model can later be
fine-tuned on a user's character. They consist of a few solids and use no external assets.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from motionbooth_lab.toybox.body_parts import Colors, near
from motionbooth_lab.toybox.families import MAKERS, SHARES, Pose
from motionbooth_lab.toybox.tracer import RGB, Part, moved, rotation

PALETTE: dict[str, RGB] = {
    "red": (214, 40, 40),
    "orange": (244, 140, 30),
    "yellow": (248, 214, 60),
    "green": (60, 170, 70),
    "cyan": (60, 200, 210),
    "blue": (50, 90, 220),
    "purple": (140, 60, 190),
    "pink": (244, 140, 190),
    "white": (238, 238, 236),
    "black": (44, 44, 50),
    "brown": (132, 86, 50),
    "grey": (146, 148, 154),
}
"""The color names in captions. A character's colors are shades near them."""

NOUNS: dict[str, tuple[str, ...]] = {
    "figure": ("figure", "doll", "toy", "character", "person", "hero", "clown"),
    "robot": ("robot", "robot", "toy", "character"),
    "beast": ("dog", "cat", "animal", "creature", "bear", "fox", "pig", "cow", "plushie"),
    "plushie": ("plushie", "bear", "toy", "teddy", "animal", "doll"),
    "bird": ("bird", "duck", "penguin", "chicken", "owl", "animal", "toy"),
    "vehicle": ("truck", "bus", "van", "car", "toy", "tractor"),
    "monster": ("monster", "creature", "alien", "ghost", "character"),
}
"""Family -> nouns in captions, including the class words that users are likely to choose."""

YAWS = tuple(np.deg2rad(np.linspace(-78, 78, 13)))
"""The view angles of the sprites, from the character's left to its right."""
PITCH = 0.16
SWINGS = (0.0, 0.55)
"""The poses: swing of arms and legs in radians."""


@dataclass(frozen=True)
class Character:
    """A character: its family, noun, color names (the body's first), and a function from pose to solid."""

    family: str
    noun: str
    colors: tuple[str, str]
    pose: Pose

    def seen_from(self, yaw: float, swing: float = 0.0) -> list[Part]:
        """The character fitted into -1..1, rotated by `yaw` and seen slightly from above."""
        return moved(self.fitted(swing), side_view(yaw))

    def fitted(self, swing: float = 0.0) -> list[Part]:
        """The character in a pose, seen from the front. It stays within -1..1 for all rotations."""
        middle, half = self._extent()
        centered = [replace(part, center=tuple(np.asarray(part.center) - middle)) for part in self.pose(swing)]
        return moved(centered, np.eye(3), 0.96 / half)

    def _extent(self) -> tuple[np.ndarray, float]:
        """Center of the standing pose and half of its largest extent (parts are treated as balls)."""
        parts = [part for swing in SWINGS for part in self.pose(swing)]
        low = np.min([np.asarray(p.center) - _reach(p) for p in parts], 0)
        high = np.max([np.asarray(p.center) + _reach(p) for p in parts], 0)
        across, up, deep = high - low
        return (low + high) / 2, float(max(up, np.hypot(across, deep) * 0.9, across, deep) / 2)


def side_view(yaw: float) -> NDArray[np.float64]:
    """Rotation (3, 3) that shows a character from this side and slightly from above."""
    return rotation(pitch=PITCH) @ rotation(yaw)


def random_character(rng: np.random.Generator, family: str | None = None) -> Character:
    """Draw a character; the family is random by default."""
    family = family or str(rng.choice(list(MAKERS), p=SHARES))
    names = [str(name) for name in rng.choice(list(PALETTE), 3, replace=False)]
    body, second, third = (near(PALETTE[name], rng) for name in names)
    colors = Colors(body, second, third, rng)
    pose = MAKERS[family](colors, rng)
    return Character(family, str(rng.choice(NOUNS[family])), (names[0], names[1]), pose)


def _reach(part: Part) -> np.ndarray:
    """Half extents of a part's bounding box."""
    turn = np.eye(3) if part.turn is None else part.turn
    if part.shape == "ball":
        return np.sqrt((turn**2) @ (np.asarray(part.radii) ** 2))
    return np.abs(turn) @ np.asarray(part.radii)
