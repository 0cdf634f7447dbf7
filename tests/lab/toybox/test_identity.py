"""The identity network tells characters that it never saw; blobs and shuffled patches are nobody."""

from functools import cache

import numpy as np
import pytest
import torch
from motionbooth_lab.bench.identity import pasted
from motionbooth_lab.bench.subjects import YAWS, TrainingSet, on_grounds, unseen_subjects
from motionbooth_lab.toybox.autoencoder import latents_of_pixels, linear_inverse
from motionbooth_lab.toybox.backgrounds import draw_texture
from motionbooth_lab.toybox.bank import character_of
from motionbooth_lab.toybox.identity import (
    NO_SUBJECT,
    Gallery,
    bounds,
    crop,
    embed,
    gallery_of,
    identify,
    load_network,
    mean_color,
    shuffled_patches,
    top_1,
)
from motionbooth_lab.toybox.identity_train import CHARACTERS, SEED, contrast, draw_sprites, train
from motionbooth_lab.toybox.tracer import render
from motionbooth_protocol.motion import Box

HELD_OUT_SEED = 404
BOX = Box(0.3, 0.15, 0.7, 0.85)


@cache
def strangers() -> list[TrainingSet]:
    """Twenty characters of a seed that nothing is trained on."""
    found = []
    for number in range(20):
        person = character_of(HELD_OUT_SEED, number)
        views = render([person.seen_from(yaw) for yaw in YAWS], 96).numpy()
        masks = [np.where(view[..., 3] > 127, 255, 0).astype(np.uint8) for view in views]
        pictures = [view[..., :3].copy() for view in views]
        found.append(on_grounds(f"stranger {number}", "toy", ("grass",) * 4, list(zip(pictures, masks, strict=True))))
    return found


@cache
def galleries(without: int) -> dict[str, Gallery]:
    """Of all strangers, without one of each one's pictures."""
    kept = [number for number in range(len(YAWS)) if number != without]
    return {
        each.name: gallery_of([each.pictures[n] for n in kept], [each.masks[n] for n in kept]) for each in strangers()
    }


def in_a_scene(picture: np.ndarray, mask: np.ndarray, number: int) -> np.ndarray:
    """The crop (1, 48, 48, 3) of the picture's subject in a place, through the codec."""
    place = ("grass", "road", "wall", "snow")[number % 4]
    ground = draw_texture(place, np.random.default_rng([41, number]))[:64, :96]
    pixels = torch.from_numpy(pasted(ground, picture, mask, BOX)[0]).permute(2, 0, 1)[None].float() / 127.5 - 1
    coded = (linear_inverse(latents_of_pixels(pixels)).clamp(-1, 1) + 1) * 127.5
    return crop(coded[0].permute(1, 2, 0).byte().numpy(), BOX)[None]


def share(kind: str, grey: bool = False) -> float:
    """Top-1 of 20 over all strangers, each seen from a side that its gallery lacks."""
    hits = []
    for number, stranger in enumerate(strangers()):
        for side in (1, 3):
            picture, mask = stranger.pictures[side], stranger.masks[side]
            if kind == "blob":
                picture = np.broadcast_to(mean_color(picture, mask), picture.shape).astype(np.uint8)
            seen = in_a_scene(picture, mask, number)
            if kind == "shuffled":
                seen = shuffled_patches(seen[0], 1000 + number)[None]
            hits += top_1(seen, stranger.name, galleries(side), grey)
    return float(np.mean(hits))


@pytest.mark.parametrize(
    ("kind", "grey", "least", "most"),
    [
        ("real", False, 0.8, 1.0),
        ("real", True, 0.6, 1.0),
        ("blob", False, 0.0, 0.15),
        ("blob", True, 0.0, 0.15),
        ("shuffled", False, 0.0, 0.15),
    ],
)
def test_strangers_are_told_apart_through_the_codec_and_what_only_has_their_colors_is_not(
    kind: str, grey: bool, least: float, most: float
) -> None:
    assert least <= share(kind, grey) <= most


def test_the_network_was_trained_on_nobody_of_the_bench_or_the_base() -> None:
    assert len({1, SEED, HELD_OUT_SEED, 303}) == 4
    assert CHARACTERS >= 200


def test_the_weights_are_small_and_the_embeddings_of_length_one_and_always_the_same() -> None:
    assert sum(parameter.numel() for parameter in load_network().parameters()) < 320_000
    crops = np.random.default_rng(3).integers(0, 256, (4, 48, 48, 3), np.uint8)
    first = embed(crops)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)  # float32 sums of 96 squares
    np.testing.assert_array_equal(first, embed(crops))


def test_a_ranking_names_all_and_nobody_the_likest_first() -> None:
    robot, duck = unseen_subjects()[:2]
    both = {each.name: gallery_of(each.pictures, each.masks) for each in (robot, duck)}
    ranking = identify(crop(duck.pictures[2], bounds(duck.masks[2]))[None], both)[0]
    assert {name for name, _ in ranking} == {"robot", "duck", NO_SUBJECT}
    assert ranking[0] == ("duck", pytest.approx(1.0, abs=1e-5))  # it is in its own gallery
    assert [likeness for _, likeness in ranking] == sorted((likeness for _, likeness in ranking), reverse=True)


def test_in_gray_colors_do_not_matter() -> None:
    duck = unseen_subjects()[1]
    crops = crop(duck.pictures[2], bounds(duck.masks[2]))[None]
    plain = (crops @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)[..., None].repeat(3, -1)
    np.testing.assert_allclose(embed(crops, gray=True), embed(plain, gray=True), atol=0.05)  # rounded to 8 bits
    assert np.abs(embed(crops) - embed(plain)).max() > 0.05


def test_a_crop_is_the_square_around_the_box_also_of_large_pictures_and_at_edges() -> None:
    large = np.zeros((960, 1440, 3), np.uint8)
    large[240:720, 540:900] = 255
    seen = crop(large, Box(540 / 1440, 0.25, 900 / 1440, 0.75))
    assert seen.shape == (48, 48, 3)
    assert seen[24, 24].min() == 255
    assert seen[:, 1].max() == 0  # the box is higher than wide
    assert crop(large, Box(0.9, 0.9, 1.0, 1.0)).shape == (48, 48, 3)


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="covers nothing"):
        bounds(np.zeros((8, 8), np.uint8))


def test_contrast_is_less_where_ones_own_are_alike_and_more_where_decoys_are() -> None:
    ends = torch.eye(4)
    who = torch.tensor([0, 0, 1, 1])
    apart = contrast(ends[[0, 0, 1, 1]], who, ends[[2, 3]])
    assert apart < contrast(ends[[0, 1, 0, 1]], who, ends[[2, 3]])
    assert apart < contrast(ends[[0, 0, 1, 1]], who, ends[[0, 1]])


def test_a_training_of_a_few_steps_comes_out_the_same_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("motionbooth_lab.toybox.identity_train.PEOPLE", 3)
    sprites = draw_sprites(SEED, 3)
    first, second = (train(sprites, steps=2).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
