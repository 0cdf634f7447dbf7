from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from motionbooth_addon._protocol.motion import Box
from motionbooth_addon._protocol.text import Text
from motionbooth_addon.capture.projection import Travel, View, accumulate, measure_steps
from motionbooth_addon.capture.shot_warnings import (
    SMALLEST_HEIGHT,
    SMALLEST_WIDTH,
    camera_warnings,
    followed_in_part,
    spread_note,
    subject_warnings,
    windows_note,
)
from refused import assert_says

MOMENTS = list(range(1, 41))


def moving(move: np.ndarray, **columns: np.ndarray) -> Travel:
    """A camera with only the given motion, over 40 frames."""
    still = {"zoom": np.ones(40), "lens": np.ones(40), "lag": np.zeros((40, 2))}
    return Travel(offsets=move, **{**still, **columns}, cuts=[])


def between(first: int, last: int, size: float) -> np.ndarray:
    """0 up to frame `first`, then evenly to `size` at frame `last`, for frames 1 to 40."""
    return np.interp(MOMENTS, [first, last], [0, size])


STILL = np.zeros((40, 2))


def test_a_pan_raises_no_warning() -> None:
    assert camera_warnings(moving(np.linspace([0, 0], [2, 1], 40)), MOMENTS) == []


@pytest.mark.parametrize(
    ("columns", "value"),
    [
        ({"zoom": np.exp(between(10, 24, 0.7))}, {"share": pytest.approx(math.exp(0.7))}),
        ({"zoom": np.exp(between(10, 24, -0.7))}, {"share": pytest.approx(math.exp(-0.7))}),
        ({"lag": np.stack([between(10, 24, -0.3), np.zeros(40)], axis=1)}, {"lag": pytest.approx(0.3)}),
    ],
)
def test_unsupported_camera_moves_raise_warnings_with_their_frames(
    columns: dict[str, np.ndarray], value: dict[str, Any]
) -> None:
    (warning,) = camera_warnings(moving(STILL, **columns), MOMENTS)
    assert (warning.first, warning.last) == (10, 24)
    assert_says(warning.sentence, first=10, last=24, **value)


def test_a_dolly_zoom_is_a_move() -> None:
    """The background keeps its size, although both the lens and the camera change."""
    (found,) = camera_warnings(moving(STILL, lens=np.exp(between(5, 30, 0.5))), MOMENTS)
    assert_says(found.sentence, share=pytest.approx(math.exp(-0.5)))


@pytest.mark.parametrize(
    "columns",
    [
        {"zoom": np.exp(between(10, 24, 0.7)), "lens": np.exp(between(10, 24, 0.7))},
        {"zoom": np.exp(between(1, 40, 0.04))},
        {"lag": np.stack([between(1, 40, 0.04), STILL[:, 0]], axis=1)},
    ],
)
def test_zooms_and_imperceptible_moves_raise_no_warning(columns: dict[str, np.ndarray]) -> None:
    assert camera_warnings(moving(STILL, **columns), MOMENTS) == []


def test_a_jump_of_the_camera_raises_a_warning_at_its_frame() -> None:
    ahead = View(np.eye(4), np.array([[2.0, 0, 0, 0], [0, 3, 0, 0], [0, 0, -1, -0.2], [0, 0, -1, 0]]))
    back = View(np.diag([-1.0, 1, -1, 1]), ahead.view_to_clip)
    (warning,) = camera_warnings(accumulate([measure_steps([ahead, ahead, back, back], 10.0)]), [1, 2, 3, 4])
    assert warning.sentence.values == {"frame": 3}


def box(x: float, width: float = 0.2, height: float = 0.4) -> Box:
    return Box(x, 0.3, x + width, 0.3 + height)


def warnings_about(boxes: list[Box | None], behind: list[bool] | None = None) -> list[Text]:
    """The warnings about a subject with these boxes at frames 1, 8, 15, ..."""
    moments = [1 + 7 * number for number in range(len(boxes))]
    return [c.sentence for c in subject_warnings("Imp {x}", boxes, behind or [False] * len(boxes), moments)]


def test_the_view_says_in_which_frames_the_camera_is_followed_in_part() -> None:
    assert followed_in_part([]) is None
    lag = np.stack([between(10, 20, 0.5), np.zeros(40)], axis=1)
    jump = moving(STILL, lag=lag)
    jump.cuts.append(29)
    line = followed_in_part(camera_warnings(jump, MOMENTS))
    assert line is not None
    first, last, cut = map(int, re.findall(r"\d+", str(line)))
    assert (first, last) == pytest.approx((10, 20), abs=1)  # 2 % of the change at each end count as still
    assert cut == 30


def test_a_walk_across_the_frame_raises_no_warning() -> None:
    assert warnings_about([box(0.1 * number) for number in range(8)]) == []


def test_each_stretch_out_of_the_frame_or_behind_the_camera_has_its_own_warning() -> None:
    boxes = [None, box(0.1), None, None, box(0.1), None]
    said = warnings_about(boxes, [False, False, False, False, False, True])
    assert list(map(str, said)) == [
        '"Imp {x}" is behind the camera at frame 36 and will not be visible.',
        '"Imp {x}" is outside the frame at frame 1 and will not be visible.',
        '"Imp {x}" is outside the frame from frame 15 to 22 and will not be visible.',
    ]


def test_only_a_box_smaller_than_a_cell_raises_a_warning() -> None:
    assert warnings_about([box(0.1, SMALLEST_WIDTH + 1e-9, SMALLEST_HEIGHT + 1e-9)]) == []
    for small in (box(0.1, width=0.05), box(0.1, height=0.09)):
        (said,) = warnings_about([small])
        assert_says(said, first=1, width=SMALLEST_WIDTH, height=SMALLEST_HEIGHT)


def test_only_the_part_inside_the_frame_counts_for_the_size() -> None:
    (said,) = warnings_about([box(0.98)])
    assert_says(said, first=1, width=SMALLEST_WIDTH)


def test_a_jump_by_more_than_the_box_raises_a_warning_between_its_frames() -> None:
    (said,) = warnings_about([box(0.1), box(0.1), box(0.31), box(0.31)])
    assert_says(said, first=8, last=15)
    assert warnings_about([box(0.1), box(0.29)]) == []


def test_a_shot_longer_than_the_models_clip_says_what_becomes_of_it() -> None:
    spread = spread_note(10.0, 81, 16.0)
    assert (spread.values["seconds"], spread.values["own"]) == (10.0, 81 / 16)
    assert spread.values["times"] == pytest.approx(1.975, abs=1e-3)
    windows = windows_note(10.0, 161, 81, 16.0, 4)
    assert windows.values == {"seconds": 10.0, "own": 81 / 16, "frames": 161, "windows": 3}
