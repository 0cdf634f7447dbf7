from __future__ import annotations

import pytest

pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth_lab.bench.extension import _in_own_process, bench_extension


def test_boxes_and_camera_path_are_those_of_a_pinhole_camera() -> None:
    assert _in_own_process("projection")["projection_error"] <= 1e-5


def test_what_was_asked_is_shown_where_it_was_drawn_for_every_shape_and_base() -> None:
    """The bar is half a pixel of the smallest base, which is 96 pixels wide."""
    assert _in_own_process("framing")["framing_error"] <= 0.005


def test_a_long_shot_is_read_to_its_end_and_in_slices() -> None:
    """The bar is 50 ms on a quiet machine; in one piece it would be seconds, on any."""
    assert _in_own_process("long reading")["reading_10000_ms"] <= 500


@pytest.mark.slow
def test_reading_a_heavy_scene_costs_what_reading_an_empty_one_does() -> None:
    found = bench_extension()
    assert found.value("scene_kinds_exact") == 1.0
    assert found.value("heavy_scene_ratio") <= 1.5
    assert found.value("frame_set_ratio") <= 0.05
