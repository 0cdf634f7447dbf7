"""Masks that were found and may be wrong are reported, right ones on plain ground are not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from motionbooth.pictures.mask_doubts import BORDER, FULL_HINT, OTHERWISE, OUTSIDE_HINT, PIECES, doubts_about
from motionbooth.pictures.masks import Hint, find_mask
from motionbooth_lab.toybox.backgrounds import draw_texture
from motionbooth_protocol.motion import Box

SIZE = (240, 320)


def ground(seed: int = 0) -> np.ndarray:
    """A stretch of grass."""
    return cv2.resize(draw_texture("grass", np.random.default_rng(seed))[:180, :240], SIZE[::-1])


def toy(picture: np.ndarray, middle: tuple[int, int], radius: int = 50) -> np.ndarray:
    """A red ball with a white stripe in it."""
    drawn = picture.copy()
    cv2.circle(drawn, middle, radius, (210, 40, 40), -1)
    cv2.rectangle(drawn, (middle[0] - radius, middle[1] - 6), (middle[0] + radius, middle[1] + 6), (240, 240, 235), -1)
    return cv2.GaussianBlur(drawn, (0, 0), 1)


@pytest.mark.parametrize("middle", [(160, 120), (130, 110), (200, 130)])
def test_a_toy_on_grass_is_found_without_a_doubt(middle: tuple[int, int]) -> None:
    picture = toy(ground(), middle)
    mask = find_mask(picture)
    assert doubts_about(picture, mask) == ()
    assert doubts_about(picture, mask, Hint(point=(middle[0] / 320, middle[1] / 240))) == ()


def test_the_sea_taken_for_a_dog_is_doubted() -> None:
    picture = ground()
    picture[30:110, 20:300] = cv2.resize(draw_texture("sea", np.random.default_rng(1))[:80, :280], (280, 80))
    picture = toy(picture, (170, 170), radius=22)
    mask = find_mask(picture)
    assert mask[60:100, 40:280].mean() > 0.8  # GrabCut does take it
    assert OTHERWISE in doubts_about(picture, mask)


def test_what_any_finder_finds_is_looked_at() -> None:
    def finder(rgb: np.ndarray, hint: Hint) -> np.ndarray:
        raise AssertionError("it is asked once only")

    picture = toy(ground(), (160, 120))
    pieces = np.zeros(SIZE, np.float32)
    pieces[60:120, 60:120] = pieces[140:190, 180:240] = 1
    assert doubts_about(picture, pieces, finder=finder) == (PIECES,)
    near_the_border = np.zeros(SIZE, np.float32)
    near_the_border[80:160, 200:301] = 1  # GrabCut's own margin lies outside
    assert BORDER in doubts_about(picture, near_the_border)
    assert doubts_about(picture, near_the_border, finder=finder) == (), "a network has no margin"
    at_the_border = near_the_border.copy()
    at_the_border[80:160, 200:] = 1
    assert doubts_about(picture, at_the_border, finder=finder) == (BORDER,)
    box = Hint(box=Box(0.25, 0.25, 0.75, 0.75))
    full = np.zeros(SIZE, np.float32)
    full[60:180, 80:240] = 1
    assert doubts_about(picture, full, box, finder) == (FULL_HINT,)
    disc = (cv2.circle(np.zeros(SIZE, np.uint8), (160, 120), 60, 1, -1)).astype(np.float32)
    assert doubts_about(picture, disc, box, finder) == ()
    assert doubts_about(picture, disc, Hint(point=(0.05, 0.5)), finder) == (OUTSIDE_HINT,)


def test_a_hints_box_may_extend_outside_the_picture() -> None:
    rgb, mask = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.float32)
    mask[:, :20] = 1
    assert FULL_HINT in doubts_about(rgb, mask, Hint(Box(-0.1, -0.1, 0.5, 1.0)), finder=lambda rgb, hint: mask)
