"""The families of characters, e.g. figures, robots and beasts, with random proportions and parts.

Each family's function draws a character once and returns a function from the swing of its limbs to its parts. y is up,
z toward the viewer, about -1..1; `characters` fits them into a picture.
"""

from collections.abc import Callable

import numpy as np

from motionbooth_lab.toybox.body_parts import (
    DARK,
    EYE_WHITE,
    Colors,
    face_parts,
    headgear_parts,
    limb_parts,
    near,
    one_of,
    with_mirror_image,
)
from motionbooth_lab.toybox.tracer import Part, Solid, moved, rotation

Pose = Callable[[float], Solid]
"""A function from the swing of the limbs in radians to the character's parts."""


def _figure(colors: Colors, rng: np.random.Generator) -> Pose:
    """Two legs, two arms, a big head."""
    wide, tall = rng.uniform(0.3, 0.46), rng.uniform(0.3, 0.42)
    head = rng.uniform(0.42, 0.58)
    head_size = (head * rng.uniform(0.9, 1.15), head, head * rng.uniform(0.85, 1.0))
    skin = colors.body if rng.random() < 0.4 else near((232, 190, 150), rng)
    head_y = tall + head * 0.85
    body_shape = one_of(rng, "cone", "ball", "cube")
    body = colors.patterned(
        Part(body_shape, (0, 0, 0), (wide, tall, wide * 0.75), colors.body, None, float(rng.uniform(0.55, 1))), 0.7
    )
    fixed = [body, Part("ball", (0, head_y, 0), head_size, skin), *face_parts((0, head_y, 0), head_size, rng, colors)]
    fixed += headgear_parts((0, head_y, 0), head_size, rng, colors)
    if rng.random() < 0.4:  # a belt, or a bow
        fixed.append(Part("cone", (0, -tall * 0.55, 0), (wide * 1.06, tall * 0.13, wide * 0.82), colors.third))
    arm, leg = rng.uniform(0.09, 0.14), rng.uniform(0.11, 0.17)
    arm_length, leg_length = rng.uniform(0.4, 0.6), rng.uniform(0.3, 0.55)
    spread = float(rng.uniform(0.2, 1.3))
    arm_rgb = colors.body if rng.random() < 0.5 else skin

    def pose(swing: float) -> Solid:
        return [
            *fixed,
            *limb_parts((wide * 0.9, tall * 0.7, 0), swing, arm_length, arm, arm_rgb, spread),
            *limb_parts((-wide * 0.9, tall * 0.7, 0), -swing, arm_length, arm, arm_rgb, -spread),
            *limb_parts((wide * 0.5, -tall * 0.8, 0), -swing, leg_length, leg, colors.second, 0.08),
            *limb_parts((-wide * 0.5, -tall * 0.8, 0), swing, leg_length, leg, colors.second, -0.08),
        ]

    return pose


def _robot(colors: Colors, rng: np.random.Generator) -> Pose:
    """Cubes and cylinders."""
    wide, tall = rng.uniform(0.34, 0.5), rng.uniform(0.34, 0.48)
    head_size = (rng.uniform(0.28, 0.46), rng.uniform(0.24, 0.36), rng.uniform(0.26, 0.36))
    head_y = tall + head_size[1] * 1.15
    shape = one_of(rng, "cube", "cube", "cone")
    fixed = [
        colors.patterned(
            Part(shape, (0, 0, 0), (wide, tall, wide * 0.7), colors.body, None, float(rng.uniform(0.7, 1))), 0.3
        ),
        Part(one_of(rng, "cube", "cube", "ball"), (0, head_y, 0), head_size, colors.second),
        Part("cone", (0, tall + 0.02, 0), (0.12, 0.1, 0.12), (110, 112, 118)),
        *face_parts((0, head_y, 0), head_size, rng, colors, square=True),
    ]
    if rng.random() < 0.7:
        fixed.append(Part("cube", (0, tall * 0.1, wide * 0.7), (wide * 0.55, tall * 0.4, 0.04), colors.third))
        for number in range(int(rng.integers(1, 4))):
            fixed.append(
                Part("ball", (wide * 0.35 * (number - 1), tall * 0.15, wide * 0.75), (0.07, 0.07, 0.04), colors.second)
            )
    if rng.random() < 0.6:
        fixed += headgear_parts((0, head_y, 0), head_size, rng, colors)
    arm, leg = rng.uniform(0.09, 0.14), rng.uniform(0.12, 0.18)
    spread = float(rng.uniform(0.05, 0.9))

    def pose(swing: float) -> Solid:
        return [
            *fixed,
            *limb_parts((wide * 1.15, tall * 0.7, 0), swing, 0.55, arm, colors.third, spread),
            *limb_parts((-wide * 1.15, tall * 0.7, 0), -swing, 0.55, arm, colors.third, -spread),
            *limb_parts((wide * 0.55, -tall, 0), -swing, 0.4, leg, colors.second),
            *limb_parts((-wide * 0.55, -tall, 0), swing, 0.4, leg, colors.second),
        ]

    return pose


def _beast(colors: Colors, rng: np.random.Generator) -> Pose:
    """Four legs, head, and tail, rotated a little so that the side is visible."""
    long, thick = rng.uniform(0.42, 0.62), rng.uniform(0.26, 0.38)
    head = rng.uniform(0.28, 0.4)
    head_size = (head, head * rng.uniform(0.85, 1.1), head * rng.uniform(0.85, 1.1))
    at = (0.0, thick * rng.uniform(0.6, 1.3), long + head * 0.35)
    fixed = [
        colors.patterned(Part("ball", (0, 0, 0), (thick, thick * rng.uniform(0.85, 1.1), long), colors.body), 0.6),
        Part("ball", at, head_size, colors.body if rng.random() < 0.7 else colors.second),
        *face_parts(at, head_size, rng, colors),
        *headgear_parts(at, head_size, rng, colors),
    ]
    if rng.random() < 0.6:
        snout = (0.0, at[1] - head * 0.28, at[2] + head * 0.85)
        fixed.append(Part("ball", snout, (head * 0.45, head * 0.34, head * 0.42), colors.second))
        fixed.append(Part("ball", (0, snout[1] + head * 0.15, snout[2] + head * 0.4), (head * 0.15,) * 3, DARK))
    tail = rotation(pitch=float(rng.uniform(0.3, 1.2)))
    fixed.append(Part("cone", (0, thick * 0.7, -long - 0.1), (0.08, 0.28, 0.08), colors.third, tail, 0.5))
    leg, length = rng.uniform(0.08, 0.13), rng.uniform(0.3, 0.5)
    rest = rotation(float(rng.choice([-1, 1]) * rng.uniform(0.3, 0.9)))

    def pose(swing: float) -> Solid:
        legs = [
            part
            for side in (-1, 1)
            for end in (-1, 1)
            for part in limb_parts(
                (side * thick * 0.6, -thick * 0.5, end * long * 0.6), side * end * swing, length, leg, colors.second
            )
        ]
        return moved([*fixed, *legs], rest)

    return pose


def _plushie(colors: Colors, rng: np.random.Generator) -> Pose:
    """A sitting soft toy: round body, round head, round ears, a light belly."""
    head = rng.uniform(0.4, 0.5)
    head_y = 0.32 + head * 0.8
    head_size = (head * rng.uniform(1.0, 1.2), head, head * 0.9)
    ear = head * rng.uniform(0.28, 0.42)
    fixed = [
        Part("ball", (0, 0, 0), (0.42, 0.44, 0.36), colors.body, None, 1.0, "patch", colors.second, 3.0),
        Part("ball", (0, head_y, 0.04), head_size, colors.body),
        *with_mirror_image(
            [
                Part("ball", (head * 0.8, head_y + head * 0.75, 0), (ear, ear, ear * 0.5), colors.body),
                Part(
                    "ball",
                    (head * 0.8, head_y + head * 0.75, ear * 0.35),
                    (ear * 0.6, ear * 0.6, ear * 0.3),
                    colors.second,
                ),
            ]
        ),
        Part("ball", (0, head_y - head * 0.3, head * 0.75), (head * 0.42, head * 0.3, head * 0.35), colors.second),
        Part("ball", (0, head_y - head * 0.16, head * 1.08), (head * 0.14, head * 0.1, head * 0.1), DARK),
        *face_parts((0, head_y + head * 0.1, 0.04), head_size, rng, colors),
    ]
    if rng.random() < 0.5:
        fixed.append(Part("cone", (0, 0.36, 0.02), (0.4, 0.07, 0.34), colors.third))
    limb = rng.uniform(0.14, 0.19)

    def pose(swing: float) -> Solid:
        return [
            *fixed,
            *limb_parts((0.38, 0.24, 0.04), swing * 0.6, 0.32, limb, colors.body, 0.7),
            *limb_parts((-0.38, 0.24, 0.04), -swing * 0.6, 0.32, limb, colors.body, -0.7),
            *limb_parts((0.26, -0.26, 0.1), 0.9 - swing * 0.4, 0.32, limb * 1.1, colors.body, 0.2),
            *limb_parts((-0.26, -0.26, 0.1), 0.9 + swing * 0.4, 0.32, limb * 1.1, colors.body, -0.2),
        ]

    return pose


def _bird(colors: Colors, rng: np.random.Generator) -> Pose:
    """Body, head with a beak, wings, two feet."""
    wide, tall = rng.uniform(0.36, 0.5), rng.uniform(0.36, 0.52)
    head = rng.uniform(0.28, 0.4)
    at = (0.0, tall + head * rng.uniform(0.4, 0.9), wide * 0.25)
    head_size = (head, head, head)
    beak = rng.uniform(0.12, 0.3)
    forward = rotation(pitch=np.pi / 2)
    fixed = [
        Part(
            "ball",
            (0, 0, 0),
            (wide, tall, wide * 1.05),
            colors.body,
            None,
            1.0,
            "patch" if rng.random() < 0.5 else "plain",
            colors.second,
        ),
        Part("ball", at, head_size, colors.body if rng.random() < 0.5 else colors.second),
        *face_parts(at, head_size, rng, colors),
        Part(
            "cone",
            (0, at[1] - head * 0.1, at[2] + head + beak * 0.5),
            (head * 0.3, beak, head * 0.22),
            (240, 150, 40) if rng.random() < 0.6 else colors.third,
            forward,
            0.1,
        ),
        Part("ball", (0, tall * 0.2, -wide * 1.1), (wide * 0.4, tall * 0.3, 0.3), colors.third, rotation(pitch=0.6)),
    ]
    if rng.random() < 0.5:
        fixed += headgear_parts(at, head_size, rng, colors)
    wing = rng.uniform(0.4, 0.6)

    def pose(swing: float) -> Solid:
        lift = 0.35 + abs(swing)
        wings = with_mirror_image(
            [
                Part(
                    "ball",
                    (wide * 0.95, tall * 0.1, 0),
                    (0.13, wing * 0.7, wing * 0.55),
                    colors.third,
                    rotation(roll=lift),
                )
            ]
        )
        feet = [
            part
            for side in (-1, 1)
            for part in limb_parts((side * wide * 0.4, -tall * 0.8, 0.08), side * swing, 0.24, 0.07, (240, 150, 40))
        ]
        return [*fixed, *wings, *feet]

    return pose


def _vehicle(colors: Colors, rng: np.random.Generator) -> Pose:
    """A body with a cabin, windows, lamps and four wheels; mostly seen from the side."""
    long, tall, wide = rng.uniform(0.7, 0.95), rng.uniform(0.18, 0.36), rng.uniform(0.34, 0.46)
    cab_long, cab_tall = long * rng.uniform(0.3, 0.6), rng.uniform(0.2, 0.38)
    cab_x = rng.uniform(-0.35, 0.35) * long
    wheel = rng.uniform(0.17, 0.27)
    axle = rotation(pitch=np.pi / 2)
    fixed = [
        colors.patterned(Part("cube", (0, 0, 0), (long, tall, wide), colors.body), 0.35),
        Part("cube", (cab_x, tall + cab_tall * 0.9, 0), (cab_long, cab_tall, wide * 0.86), colors.second),
        Part("cube", (cab_x, tall + cab_tall, 0), (cab_long * 0.8, cab_tall * 0.55, wide * 0.9), (190, 220, 236)),
        Part("cube", (cab_x, tall + cab_tall, 0), (cab_long * 1.04, cab_tall * 0.55, wide * 0.7), (190, 220, 236)),
        *[Part("ball", (long, 0.02, side * wide * 0.6), (0.06, 0.09, 0.09), (252, 240, 160)) for side in (-1, 1)],
        *[Part("ball", (-long, 0.02, side * wide * 0.6), (0.05, 0.07, 0.08), (220, 30, 30)) for side in (-1, 1)],
    ]
    if rng.random() < 0.5:
        fixed.append(Part("cube", (0, -tall * 0.1, 0), (long * 1.02, tall * 0.22, wide * 1.02), colors.third))
    for x in (-0.6, 0.6):
        for side in (-1, 1):
            fixed.append(Part("cone", (x * long, -tall, side * wide * 0.92), (wheel, 0.1, wheel), DARK, axle))
            fixed.append(
                Part(
                    "cone",
                    (x * long, -tall, side * wide * 0.96),
                    (wheel * 0.5, 0.1, wheel * 0.5),
                    (170, 172, 178),
                    axle,
                )
            )
    rest = rotation(float(rng.uniform(-0.5, 0.5)))
    return lambda swing: moved(fixed, rest)


def _monster(colors: Colors, rng: np.random.Generator) -> Pose:
    """One big body that is its own head: one, two or three eyes, a mouth with teeth, horns or stalks."""
    size = (rng.uniform(0.5, 0.75), rng.uniform(0.5, 0.85), rng.uniform(0.45, 0.6))
    shape = one_of(rng, "ball", "ball", "cone", "cube")
    square = shape == "cube"
    body = colors.patterned(Part(shape, (0, 0, 0), size, colors.body, None, float(rng.uniform(0.4, 0.9))), 0.6)
    fixed = [body]
    depth = size[2] * (1.0 if square else 0.84)
    if rng.random() < 0.5:
        fixed += face_parts(
            (0, size[1] * 0.1, 0),
            (size[0] * (0.7 if shape == "cone" else 1), size[1], size[2] * (0.72 if shape == "cone" else 1)),
            rng,
            colors,
            square,
        )
    else:
        eye = rng.uniform(0.14, 0.24)
        for x in [0.0] if rng.random() < 0.5 else [-0.36, 0.0, 0.36]:
            fixed.append(Part("ball", (x * size[0], size[1] * 0.3, depth), (eye, eye, eye * 0.6), EYE_WHITE))
            fixed.append(
                Part("ball", (x * size[0], size[1] * 0.3, depth + eye * 0.5), (eye * 0.5, eye * 0.5, eye * 0.3), DARK)
            )
        wide = size[0] * rng.uniform(0.35, 0.6)
        fixed.append(Part("ball", (0, -size[1] * 0.25, depth), (wide, size[1] * 0.16, 0.1), (120, 20, 40)))
        for x in (-0.4, 0.4):
            fixed.append(
                Part(
                    "cone",
                    (x * wide, -size[1] * 0.16, depth + 0.06),
                    (0.06, 0.08, 0.05),
                    EYE_WHITE,
                    rotation(roll=np.pi),
                    0.1,
                )
            )
    fixed += headgear_parts((0, 0, 0), (size[0] * 0.8, size[1], size[2] * 0.8), rng, colors)
    arms = rng.random() < 0.7
    spread, limb = float(rng.uniform(0.5, 2.2)), rng.uniform(0.09, 0.15)

    def pose(swing: float) -> Solid:
        parts = list(fixed)
        for side in (-1, 1):
            if arms:
                parts += limb_parts(
                    (side * size[0] * 0.85, 0, 0), side * swing, 0.4, limb, colors.second, side * spread
                )
            parts += limb_parts(
                (side * size[0] * 0.45, -size[1] * 0.8, 0), -side * swing, 0.25, limb * 1.2, colors.second
            )
        return parts

    return pose


MAKERS: dict[str, Callable[[Colors, np.random.Generator], Pose]] = {
    "figure": _figure,
    "robot": _robot,
    "beast": _beast,
    "plushie": _plushie,
    "bird": _bird,
    "vehicle": _vehicle,
    "monster": _monster,
}
SHARES = (0.24, 0.15, 0.17, 0.1, 0.12, 0.08, 0.14)
