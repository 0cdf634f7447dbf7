"""Drawn clips match their captions, boxes and cameras."""

import numpy as np
import pytest
from flows import scenery_flow_px
from motionbooth_lab.toybox.backgrounds import PLACES
from motionbooth_lab.toybox.draw import (
    FRAMES,
    HEIGHT_PX,
    MAX_PAN_PX,
    WIDTH_PX,
    draw_clip,
    held_out_combinations,
    kind_scene,
)
from motionbooth_lab.toybox.figures import COLORS, KINDS


def test_the_same_seed_draws_the_same_clip() -> None:
    scene = kind_scene("fish", "pink", "road")
    first, again = (draw_clip(scene, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.frames, again.frames)


def test_clips_have_the_models_size_and_a_phrase_from_their_caption() -> None:
    for seed, combination in enumerate(held_out_combinations()[:20]):
        clip = draw_clip(kind_scene(*combination), np.random.default_rng(seed))
        assert clip.frames.shape == (FRAMES, HEIGHT_PX, WIDTH_PX, 3)
        assert clip.frames.dtype == np.uint8
        assert clip.scene.phrase in clip.scene.caption
        assert PLACES[clip.scene.background] in clip.scene.caption


def test_boxes_are_the_bounds_of_the_masks() -> None:
    clip = draw_clip(kind_scene("star", "red", "sea"), np.random.default_rng(1))
    for mask, (x1, y1, x2, y2) in zip(clip.masks, clip.boxes_xyxy, strict=True):
        rows, columns = np.nonzero(mask)
        expected = (columns.min() / 96, rows.min() / 64, (columns.max() + 1) / 96, (rows.max() + 1) / 64)
        np.testing.assert_allclose((x1, y1, x2, y2), expected, atol=1e-6)


def test_held_out_combinations_leave_every_pair_of_two_to_training() -> None:
    held_out = set(held_out_combinations())
    assert len(held_out) >= 48
    for kind in KINDS:
        for color in COLORS:
            assert sum((kind, color, place) in held_out for place in PLACES) <= 1


def test_content_moves_against_the_camera() -> None:
    for seed in (2, 5, 8, 13):
        clip = draw_clip(kind_scene("ball", "green", "wall"), np.random.default_rng(seed))
        flow = scenery_flow_px(clip.frames, [mask > 0 for mask in clip.masks])
        error = np.linalg.norm(flow + np.diff(clip.camera_px, axis=0), axis=1)
        assert np.median(error) < 0.3
        assert np.abs(np.diff(clip.camera_px, axis=0)).max() <= MAX_PAN_PX + 1e-3


def test_an_unknown_kind_raises() -> None:
    with pytest.raises(KeyError):
        kind_scene("teapot", "red", "sea")
