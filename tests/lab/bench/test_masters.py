"""What bench masters says of its hard frames: lossless masters are exact, 4444 holds them, and damage would be seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from motionbooth.generation import masters as writing
from motionbooth_lab.bench.masters import master_measures, noise_frames, psnr, saturated_frames

SHAPE = (2, 128, 288, 3)


@pytest.mark.parametrize("make", [saturated_frames, noise_frames])
def test_hard_frames_come_back(make: Callable[[tuple[int, ...]], np.ndarray]) -> None:
    frames = make(SHAPE)
    assert frames.shape == SHAPE
    found = {measure.name.removeprefix("master_roundtrip_"): measure.value for measure in master_measures("x", frames)}
    assert (found["differing_x_ffv1"], found["differing_x_png"]) == (0, 0)
    assert found["exr_half_steps_x"] <= 0.5
    assert found["db_x_prores_4444"] >= 45
    assert found["db_x_prores"] < 45, "one color for two pixels is not enough for these"
    assert found["mp4_roundtrip_db_x"] < found["db_x_prores"]


def test_a_damaged_picture_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    write = writing._write_png

    def damaged(path: Path, frame: np.ndarray) -> None:
        write(path, np.concatenate([frame[:-1], 1 - frame[-1:]]))

    monkeypatch.setattr(writing, "_write_png", damaged)
    found = {measure.name: measure.value for measure in master_measures("x", saturated_frames(SHAPE))}
    assert found["master_roundtrip_differing_x_png"] == SHAPE[0] * SHAPE[2] * SHAPE[3]


def test_the_ratio_of_an_error_of_a_hundredth_is_40_db() -> None:
    assert psnr(np.full((2, 2), 0.51), np.full((2, 2), 0.5, np.float32)) == pytest.approx(40)
