"""How many frames a long shot has, and the windows of it that a model sees."""

from __future__ import annotations

from itertools import pairwise

import pytest
from motionbooth_protocol.limits import MAX_FRAMES
from motionbooth_protocol.long_shots import frames_at_rate, is_long, windows_of


def test_a_shot_is_long_from_a_quarter_above_the_models_clip() -> None:
    assert not is_long(6.3, 81, 16.0)
    assert is_long(6.4, 81, 16.0)


@pytest.mark.parametrize(
    ("seconds", "frames"), [(0.4, 81), (81 / 16, 81), (6.0, 97), (10.0, 161), (10.1, 161), (10.2, 165), (1000.0, 509)]
)
def test_a_long_shot_has_the_models_rate_and_whole_latent_frames(seconds: float, frames: int) -> None:
    found = frames_at_rate(seconds, 81, 16.0, 4)
    assert found == frames <= MAX_FRAMES
    if 81 < found < 509:
        assert abs(found - seconds * 16) <= 2, "half a latent frame at most"


@pytest.mark.parametrize(("own", "step"), [(8, 1), (24, 1), (9, 4), (81, 4), (5, 4), (2, 1), (1, 1)])
def test_windows_cover_every_frame_are_as_long_as_the_clip_and_overlap(own: int, step: int) -> None:
    window = 1 + (own - 1) // step
    for frames in range(own, 6 * own + 1, step):
        whole = 1 + (frames - 1) // step
        windows = windows_of(frames, own, step)
        assert {frame for each in windows for frame in each} == set(range(whole))
        assert {len(each) for each in windows} == {window}
        assert (len(windows) == 1) == (frames == own)
        for one, other in pairwise(windows):
            assert one.start < other.start
            assert one.stop - other.start >= window // 2 or window == 1
