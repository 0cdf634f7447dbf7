"""Eight subjects on which `bench identity` measures: no constant of `evaluation/identity.py` was tuned on them.

They were fixed before any figure of them was seen. A subject that decides a constant belongs to the tuning set, to
which this module adds eight that turn their long sides to the camera.
"""

from motionbooth_lab.bench.solids import Block, Capsule, Ellipsoid, Solid
from motionbooth_lab.bench.subjects import (
    INVADER,
    SIZE_PX,
    SLIME,
    YAWS,
    TrainingSet,
    on_grounds,
    sprite_subject,
    toy_subject,
)
from motionbooth_lab.bench.things import character_views
from motionbooth_lab.toybox.bank import character_of

PLACES = ("forest", "city", "kitchen", "meadow")
"""The backgrounds, of which the tuning subjects have none. They were not chosen to contrast with a subject's colors."""

SEED, TURNING_SEED = 707, 808
TURNING = ("beast", "vehicle")
FAMILIES = ("figure", "beast", "plushie", "vehicle", "monster")
"""Of each of these families of characters, the first one with SEED."""

BOAT: Solid = [
    Block((0, -0.58, 0), (0.78, 0.16, 0.28), (150, 74, 40)),
    Block((0, -0.38, 0), (0.84, 0.06, 0.32), (236, 226, 200), 0.04),
    Capsule((0, -0.4, 0), (0, 0.9, 0), 0.05, (96, 64, 44)),
    Block((0.34, 0.22, 0), (0.3, 0.46, 0.05), (242, 240, 230), 0.04),
    Block((-0.28, 0.1, 0), (0.22, 0.34, 0.05), (206, 48, 56), 0.04),
    Block((0.34, 0.22, 0), (0.31, 0.08, 0.06), (40, 80, 170), 0.04),
    Ellipsoid((0, 0.92, 0), (0.09, 0.09, 0.09), (246, 196, 40)),
]


def held_out_subjects() -> list[TrainingSet]:
    """The eight subjects, always the same: five characters, two flat sprites and a solid."""
    return [
        *[subject for family in FAMILIES for subject in _characters(SEED, family, 1, PLACES)],
        sprite_subject("slime", "monster", SLIME, PLACES),
        sprite_subject("invader", "character", INVADER, PLACES),
        toy_subject("boat", "toy", BOAT, PLACES),
    ]


def turning_subjects() -> list[TrainingSet]:
    """Eight more for tuning: four beasts and four vehicles."""
    places = ("grass", "sea", "road", "wall")
    return [subject for family in TURNING for subject in _characters(TURNING_SEED, family, 4, places)]


def _characters(seed: int, family: str, count: int, places: tuple[str, str, str, str]) -> list[TrainingSet]:
    """The first `count` characters of the family with this seed."""
    numbers = [number for number in range(100) if character_of(seed, number).family == family][:count]
    return [
        on_grounds(f"{family} {n}" if count > 1 else family, family, places, character_views(seed, n, YAWS, SIZE_PX))
        for n in numbers
    ]
