"""A subject's mask: given, from alpha, or found; and the masks that nothing can be trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from motionbooth.pictures.masks import Hint, find_mask, picture_with_mask
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.motion import Box
from motionbooth_protocol.text import Text
from PIL import Image, ImageDraw, ImageFilter
from refused import refused

ELLIPSE = (60, 40, 180, 160)


def disc(mode: str, inside: object, outside: object, size: tuple[int, int] = (240, 200)) -> Image.Image:
    picture = Image.new(mode, size, outside)
    ImageDraw.Draw(picture).ellipse(ELLIPSE, fill=inside)
    return picture


TRUTH = np.asarray(disc("L", 255, 0)) >= 128


def overlap(mask: np.ndarray) -> float:
    found = mask > 0.5
    return float((found & TRUTH).sum() / (found | TRUTH).sum())


def test_a_given_mask_is_taken_as_it_is(tmp_path: Path) -> None:
    Image.new("RGB", (240, 200), "green").save(tmp_path / "p.png")
    disc("L", 255, 0).save(tmp_path / "m.png")
    rgb, mask, _ = picture_with_mask(tmp_path / "p.png", tmp_path / "m.png", "picture 1 of 1")
    assert rgb.shape == (200, 240, 3)
    assert overlap(mask) == 1


def labels(colour: tuple[int, int, int]) -> Image.Image:
    """A palette picture of 0 and 1."""
    palette = disc("P", 1, 0)
    palette.putpalette([0, 0, 0, *colour])
    return palette


@pytest.mark.parametrize(
    "mask",
    [
        *(disc("1", 1, 0), disc("L", 1, 0), disc("RGB", (255, 0, 0), 0), labels((128, 0, 0)), labels((255, 255, 255))),
        *(disc("RGBA", (255, 255, 255, 255), (0, 0, 0, 0)), disc("RGBA", (0, 0, 0, 255), (0, 0, 0, 0))),
        *(disc("LA", (255, 255), (0, 255)), Image.fromarray(np.asarray(disc("L", 255, 0)).astype(np.uint16) * 257)),
    ],
    ids=["bit", "0 and 1", "red", "red label", "white label", "white on clear", "clear", "grey and alpha", "16 bits"],
)
def test_masks_as_other_programs_write_them_are_understood(tmp_path: Path, mask: Image.Image) -> None:
    Image.new("RGB", (240, 200), "green").save(tmp_path / "p.png")
    mask.save(tmp_path / "m.png")
    assert overlap(picture_with_mask(tmp_path / "p.png", tmp_path / "m.png", "picture 1 of 1")[1]) == 1


def test_a_given_mask_of_another_size_is_fitted_and_of_another_shape_refused(tmp_path: Path) -> None:
    Image.new("RGB", (240, 200), "green").save(tmp_path / "p.png")
    disc("L", 255, 0).resize((480, 400)).save(tmp_path / "m.png")
    assert overlap(picture_with_mask(tmp_path / "p.png", tmp_path / "m.png", "picture 1 of 1")[1]) > 0.97
    disc("L", 255, 0).resize((200, 240)).save(tmp_path / "m.png")
    with refused(InvalidInput, width=200, height=240, picture_width=240, picture_height=200):
        picture_with_mask(tmp_path / "p.png", tmp_path / "m.png", "picture 1 of 1")


def test_the_pictures_own_alpha_is_its_mask(tmp_path: Path) -> None:
    disc("RGBA", (200, 40, 40, 255), (0, 0, 0, 0)).save(tmp_path / "p.png")
    assert overlap(picture_with_mask(tmp_path / "p.png", None, "picture 1 of 1")[1]) == 1


def test_without_either_the_subject_is_found(tmp_path: Path) -> None:
    picture = disc("RGB", (200, 60, 40), (90, 140, 190)).filter(ImageFilter.GaussianBlur(2))
    noise = np.random.default_rng(0).normal(0, 6, (200, 240, 3))
    noisy = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "p.png")
    rgb, mask, _ = picture_with_mask(tmp_path / "p.png", None, "picture 1 of 1")
    assert overlap(mask) > 0.9
    assert np.array_equal(mask, find_mask(rgb))


def test_a_box_leads_the_search_to_one_of_two(tmp_path: Path) -> None:
    picture = Image.new("RGB", (240, 100), (90, 140, 190))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((20, 20, 100, 90), fill=(200, 60, 40))
    draw.ellipse((150, 30, 210, 80), fill=(200, 60, 40))
    picture.filter(ImageFilter.GaussianBlur(1)).save(tmp_path / "p.png")
    hint = Hint(box=Box(0.58, 0.2, 0.92, 0.9))
    _, mask, _ = picture_with_mask(tmp_path / "p.png", None, "picture 1 of 1", hint)
    assert mask[55, 180] == 1
    assert not mask[:, :130].any()


def test_an_opaque_alpha_channel_is_no_mask(tmp_path: Path) -> None:
    disc("RGBA", (200, 60, 40, 255), (90, 140, 190, 255)).save(tmp_path / "p.png")
    assert overlap(picture_with_mask(tmp_path / "p.png", None, "picture 1 of 1")[1]) > 0.9


@pytest.mark.parametrize(("grey", "values"), [(0, {"found": Text("is empty")}), (255, {})])
def test_a_mask_that_says_nothing_names_the_picture(tmp_path: Path, grey: int, values: dict[str, Text]) -> None:
    Image.new("RGB", (240, 200), "green").save(tmp_path / "p.png")
    Image.new("L", (240, 200), grey).save(tmp_path / "m.png")
    with refused(InvalidInput, picture="picture 2 of 4", mask=Text("its mask"), **values):
        picture_with_mask(tmp_path / "p.png", tmp_path / "m.png", "picture 2 of 4")


def test_a_tiny_mask_names_the_picture(tmp_path: Path) -> None:
    Image.new("RGB", (240, 200), "green").save(tmp_path / "p.png")
    speck = Image.new("L", (240, 200), 0)
    speck.putpixel((100, 100), 255)
    speck.save(tmp_path / "m.png")
    covered = Text("covers only {share:.2%} of it", {"share": pytest.approx(1 / 240 / 200)})
    with refused(InvalidInput, picture="picture 2 of 4", mask=Text("its mask"), found=covered):
        picture_with_mask(tmp_path / "p.png", tmp_path / "m.png", "picture 2 of 4")


def test_a_plain_picture_has_no_subject(tmp_path: Path) -> None:
    Image.new("RGB", (240, 200), "green").save(tmp_path / "p.png")
    with refused(InvalidInput, mask=Text("the subject found in it"), found=Text("is empty")):
        picture_with_mask(tmp_path / "p.png", None, "picture 1 of 1")


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (3, 3), (5000, 3)])
def test_pictures_too_small_for_a_subject_are_refused_not_crashed_on(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.effect_noise(size, 90).convert("RGB").save(tmp_path / "p.png")
    with pytest.raises(InvalidInput):
        picture_with_mask(tmp_path / "p.png", None, "picture 1 of 1")
