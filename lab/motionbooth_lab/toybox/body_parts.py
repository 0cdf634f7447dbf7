"""Random parts of characters: colors, limbs, faces and headgear."""

from dataclasses import dataclass, replace

import numpy as np

from motionbooth_lab.toybox.tracer import RGB, Part, Pattern, Shape, Vector, rotation

DARK: RGB = (24, 24, 28)
EYE_WHITE: RGB = (244, 244, 244)
INKED: tuple[Pattern, ...] = ("rings", "stripes", "dots", "two-tone", "patch")


@dataclass(frozen=True)
class Colors:
    body: RGB
    second: RGB
    third: RGB
    rng: np.random.Generator

    def patterned(self, part: Part, share: float) -> Part:
        """The part, with probability `share` with a pattern in another color."""
        if self.rng.random() > share:
            return part
        pattern = INKED[int(self.rng.integers(len(INKED)))]
        ink = self.second if self.rng.random() < 0.6 else self.third
        return replace(part, pattern=pattern, ink=ink, scale=float(self.rng.uniform(2.0, 5.0)))


def one_of(rng: np.random.Generator, *shapes: Shape) -> Shape:
    """A random shape. A shape that is listed twice is twice as likely."""
    return shapes[int(rng.integers(len(shapes)))]


def near(rgb: RGB, rng: np.random.Generator) -> RGB:
    shade = np.asarray(rgb) * rng.uniform(0.75, 1.1) + rng.uniform(-18, 18, 3)
    red, green, blue = (int(value) for value in np.clip(shade, 10, 250))
    return red, green, blue


def limb_parts(joint: Vector, swing: float, length: float, radius: float, rgb: RGB, spread: float = 0.0) -> list[Part]:
    """A cylinder with a rounded end that hangs from a joint and swings forward."""
    turn = rotation(pitch=-swing) @ rotation(roll=spread)
    down = turn @ np.array([0, -1.0, 0])
    middle, end = (tuple(np.asarray(joint) + down * length * share) for share in (0.5, 1.0))
    return [
        Part("cone", middle, (radius, length / 2, radius), rgb, turn),
        Part("ball", end, (radius * 1.25, radius * 1.15, radius * 1.45), rgb),
    ]


def with_mirror_image(parts: list[Part]) -> list[Part]:
    """The parts and their mirror images, left and right."""
    mirror = np.diag([-1.0, 1, 1])
    both = list(parts)
    for p in parts:
        turn = None if p.turn is None else mirror @ p.turn @ mirror
        center = (-p.center[0], p.center[1], p.center[2])
        both.append(Part(p.shape, center, p.radii, p.rgb, turn, p.taper, p.pattern, p.ink, p.scale))
    return both


def face_parts(
    center: Vector, size: Vector, rng: np.random.Generator, colors: Colors, square: bool = False
) -> list[Part]:
    """Eyes, perhaps brows, a nose and a mouth on the front of a head of half extents `size`."""
    x, y, z = center
    width, height, depth = size
    apart, eye = width * rng.uniform(0.34, 0.5), min(width, height) * rng.uniform(0.2, 0.32)
    level = y + height * rng.uniform(0.02, 0.25)
    # a ball's front recedes toward its sides, a cube's doesn't
    front = z + depth * (1.0 if square else float(np.sqrt(max(0.05, 1 - (apart / width) ** 2 - 0.03))))
    style = rng.random()
    eyes: list[Part] = []
    if style < 0.6:
        shape: Shape = "cube" if square and rng.random() < 0.4 else "ball"
        eyes += [Part(shape, (x + apart, level, front), (eye, eye, eye * 0.5), EYE_WHITE)]
        pupil = eye * rng.uniform(0.5, 0.65)
        eyes += [Part("ball", (x + apart, level, front + eye * 0.4), (pupil, pupil, eye * 0.3), DARK)]
    else:
        eyes += [Part("ball", (x + apart, level, front), (eye * 0.8, eye * rng.uniform(0.8, 1.2), eye * 0.4), DARK)]
    if rng.random() < 0.3:
        turn = rotation(roll=float(rng.uniform(-0.4, 0.4)))
        eyes += [Part("cube", (x + apart, level + eye * 1.7, front), (eye * 1.1, eye * 0.25, eye * 0.3), DARK, turn)]
    if rng.random() < 0.35:
        cheek = (x + width * 0.62, y - height * 0.25, z + depth * (1.0 if square else 0.72))
        eyes += [Part("ball", cheek, (eye * 0.7, eye * 0.5, eye * 0.3), (240, 130, 130))]
    parts = with_mirror_image(eyes) if x == 0 else eyes
    if rng.random() < 0.5:
        nose = width * rng.uniform(0.1, 0.2)
        rgb = colors.third if rng.random() < 0.6 else DARK
        parts.append(Part("ball", (x, y - height * 0.1, z + depth), (nose, nose * 0.85, nose), rgb))
    if rng.random() < 0.75:
        rgb = DARK if rng.random() < 0.6 else (190, 50, 60)
        wide = width * rng.uniform(0.2, 0.45)
        low, back = y - height * rng.uniform(0.4, 0.55), z + depth * (1.0 if square else 0.84)
        parts.append(Part("ball", (x, low, back), (wide, height * rng.uniform(0.05, 0.13), depth * 0.12), rgb))
    return parts


def headgear_parts(center: Vector, size: Vector, rng: np.random.Generator, colors: Colors) -> list[Part]:
    """Ears, horns, hair, a hat, an antenna, or nothing."""
    x, y, z = center
    width, height, depth = size
    top = y + height
    match int(rng.integers(8)):
        case 0:  # round ears
            ear = width * rng.uniform(0.3, 0.45)
            ears = [Part("ball", (width * 0.72, top - height * 0.15, z), (ear, ear, ear * 0.4), colors.second)]
            return with_mirror_image(
                [
                    *ears,
                    Part(
                        "ball",
                        (width * 0.72, top - height * 0.15, z + ear * 0.3),
                        (ear * 0.55,) * 2 + (ear * 0.25,),
                        colors.third,
                    ),
                ]
            )
        case 1:  # pointed ears
            turn = rotation(roll=-0.3)
            size_ = (width * 0.26, height * rng.uniform(0.3, 0.5), width * 0.18)
            return with_mirror_image(
                [Part("cone", (width * 0.6, top + size_[1] * 0.5, z), size_, colors.second, turn, taper=0.05)]
            )
        case 2:  # long ears
            turn = rotation(roll=float(rng.uniform(-0.4, 0.1)))
            size_ = (width * 0.2, height * rng.uniform(0.5, 0.8), width * 0.14)
            return with_mirror_image([Part("ball", (width * 0.4, top + size_[1] * 0.6, z), size_, colors.second, turn)])
        case 3:  # horns
            turn = rotation(roll=float(rng.uniform(-0.7, 0.2)))
            size_ = (width * 0.15, height * rng.uniform(0.25, 0.45), width * 0.15)
            return with_mirror_image(
                [Part("cone", (width * 0.5, top + size_[1] * 0.4, z), size_, colors.third, turn, taper=0.1)]
            )
        case 4:  # hat with a brim
            rise = height * rng.uniform(0.3, 0.6)
            hat = colors.patterned(
                Part(
                    "cone",
                    (x, top + rise * 0.7, z),
                    (width * 0.62, rise, depth * 0.62),
                    colors.third,
                    None,
                    float(rng.uniform(0.05, 1)),
                ),
                0.4,
            )
            return [
                hat,
                Part("cone", (x, top - height * 0.12, z), (width * 0.98, height * 0.09, depth * 0.98), colors.second),
            ]
        case 5:  # hair or a cap
            return [
                Part(
                    "ball",
                    (x, y + height * 0.28, z - depth * 0.16),
                    (width * 1.06, height * 0.86, depth * 1.02),
                    colors.third,
                )
            ]
        case 6:  # antenna
            rod = height * rng.uniform(0.3, 0.55)
            return [
                Part("cone", (x, top + rod * 0.7, z), (width * 0.06, rod, width * 0.06), (90, 90, 96)),
                Part("ball", (x, top + rod * 1.6, z), (width * 0.18,) * 3, colors.third),
            ]
        case _:
            return []
