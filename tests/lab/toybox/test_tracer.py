"""The ray caster renders solids correctly, and all characters are different."""

import numpy as np
import torch
from motionbooth_lab.toybox.bank import build_bank, character_of, sprites_of
from motionbooth_lab.toybox.characters import NOUNS, random_character, side_view
from motionbooth_lab.toybox.tracer import Part, Solid, render, rotation

SIZE = 64


def cover(part: Part) -> float:
    """The share of the picture that a part covers."""
    return float(render([[part]], SIZE)[0, ..., 3].float().mean() / 255)


def test_each_shape_covers_its_own_silhouette() -> None:
    radii = (0.6, 0.4, 0.5)
    assert abs(cover(Part("ball", (0, 0, 0), radii, (255, 0, 0))) - np.pi * 0.6 * 0.4 / 4) < 0.01
    assert abs(cover(Part("cube", (0, 0, 0), radii, (255, 0, 0))) - 1.2 * 0.8 / 4) < 0.01
    assert abs(cover(Part("cone", (0, 0, 0), radii, (255, 0, 0), taper=0.5)) - 0.75 * 1.2 * 0.8 / 4) < 0.01


def test_the_nearer_part_hides_the_farther_one() -> None:
    red = Part("ball", (0, 0, -0.5), (0.6, 0.6, 0.3), (255, 0, 0))
    blue = Part("cube", (0, 0, 0.3), (0.3, 0.3, 0.1), (0, 0, 255))
    middle = render([[red, blue]], SIZE)[0, SIZE // 2, SIZE // 2].tolist()
    assert middle[2] > middle[0]
    side = render([[red, blue]], SIZE)[0, SIZE // 2, SIZE // 2 + 15].tolist()
    assert side[0] > side[2]


def test_a_turned_solid_is_the_solid_of_turned_parts() -> None:
    person = random_character(np.random.default_rng(4))
    at_once = render([person.fitted()], SIZE, turns=[side_view(0.5), rotation(1.0)])
    one: Solid = person.seen_from(0.5)
    # a pixel may fall to the other side of an edge, where rounding decides
    assert (at_once[0].int() - render([one], SIZE)[0].int()).abs().gt(2).float().mean() < 0.005


def test_a_character_fits_its_sprite_from_every_side_and_two_are_not_alike() -> None:
    sheets = [sprites_of(character_of(3, number)) for number in range(4)]
    for sheet in sheets:
        edge = torch.cat([sheet[:, 3, 0], sheet[:, 3, -1], sheet[:, 3, :, 0], sheet[:, 3, :, -1]], 1)
        assert (edge > 128).float().mean() < 0.06  # hardly cut
        assert (sheet[:, 3] > 128).float().mean() > 0.05
    assert (sheets[0].float() - sheets[1].float()).abs().mean() > 8


def test_every_family_can_be_drawn_and_the_same_seed_gives_the_same_bank() -> None:
    for family in NOUNS:
        person = random_character(np.random.default_rng(1), family)
        assert person.family == family
        assert person.noun in NOUNS[family]
        assert render([person.seen_from(0.2)], 32)[0, ..., 3].float().mean() > 20
    one, other = build_bank(1, 1, 1, seed=5), build_bank(1, 1, 1, seed=5)
    assert torch.equal(one.sprites, other.sprites)
    assert torch.equal(one.textures, other.textures)
    assert one.entries == other.entries
