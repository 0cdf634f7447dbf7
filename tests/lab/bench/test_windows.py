"""The figures of `bench windows` on clips whose answers are known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from motionbooth.models.sources import source_named
from motionbooth_lab.bench.bundled import Model, bundled_base
from motionbooth_lab.bench.cases import long_cases
from motionbooth_lab.bench.motion import Motion
from motionbooth_lab.bench.windows import Made, cuts, difference, part_of, seam_ratio, window_seams
from motionbooth_lab.toybox.draw import ClipFormat, draw_clip, kind_scene


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return draw_clip(kind_scene("ball", "red", "road"), np.random.default_rng(4)).frames


def test_a_moving_picture_is_no_difference_and_another_one_is(drawn: np.ndarray) -> None:
    other = draw_clip(kind_scene("car", "blue", "snow"), np.random.default_rng(5)).frames
    moves = [difference(one, two) for one, two in pairwise(drawn)]
    plain = np.abs(drawn[1:].astype(float) - drawn[:-1]).mean()
    assert difference(drawn[0], drawn[0]) < 0.1  # Farneback finds flow in its own rounding
    assert np.mean(moves) < 0.5 * plain
    assert difference(drawn[0], other[0]) > 3 * np.mean(moves)


def test_the_ratio_is_that_of_the_means() -> None:
    motion = Motion.__new__(Motion)
    clips = [Made(motion, 1.0, [3.0], [1.0, 2.0], 0.0), Made(motion, 1.0, [6.0], [3.0], 0.0)]
    assert seam_ratio(clips) == pytest.approx(4.5 / 2)


@pytest.mark.parametrize(
    ("model", "frames", "seams", "cut"),
    [("toybox", 24, {4, 8, 12, 16, 20}, {8, 16}), ("wantoy", 25, {5, 9, 13, 17}, {9, 17})],
)
def test_seams_are_where_windows_begin_or_end(model: str, frames: int, seams: set[int], cut: set[int]) -> None:
    base = bundled_base(Model(model))
    assert window_seams(base, frames) == seams
    assert cuts(base, frames) == cut


def test_a_part_of_a_long_case_starts_with_a_camera_at_rest() -> None:
    (case,) = long_cases(1, ClipFormat(24))
    part = part_of(case.spec, range(8, 16), seed=5)
    assert (part.shot.frames, part.seed, part.long_shot) == (8, 5, "spread")
    assert part.shot.subjects[0].boxes == case.boxes[8:16]
    moved, whole = part.shot.camera.offsets, case.camera.offsets
    assert moved[7].dx == pytest.approx(whole[15].dx - whole[8].dx)
    assert source_named("toybox").info.frames == part.shot.frames
