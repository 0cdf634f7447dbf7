from __future__ import annotations

import pytest

pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth_lab.bench.extension import bench_extension, in_own_process

MODULE = "motionbooth_lab.bench.extension"


def test_boxes_and_camera_path_are_those_of_a_pinhole_camera() -> None:
    assert in_own_process(MODULE, "projection")["projection_error"] <= 1e-5


def test_subjects_are_displayed_where_they_were_drawn_for_every_aspect_ratio_and_base_model() -> None:
    """The target is half a pixel of the smallest base model, which is 96 pixels wide."""
    assert in_own_process(MODULE, "framing")["framing_error"] <= 0.005


def test_a_long_shot_is_read_completely_in_slices() -> None:
    """The target is 50 ms on an idle machine; without slices it would be seconds on any machine."""
    assert in_own_process(MODULE, "long reading")["reading_10000_ms"] <= 500


@pytest.mark.slow
def test_reading_a_heavy_scene_is_as_fast_as_reading_an_empty_one() -> None:
    found = bench_extension()
    assert found.value("scene_kinds_exact") == 1.0
    assert found.value("heavy_scene_ratio") <= 1.5
    assert found.value("frame_set_ratio") <= 0.05
