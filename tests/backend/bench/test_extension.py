from __future__ import annotations

import pytest

pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth.bench.extension import _in_own_process, bench_extension


def test_boxes_and_camera_path_are_those_of_a_pinhole_camera() -> None:
    assert _in_own_process("projection")["projection_error"] <= 1e-5


@pytest.mark.slow
def test_reading_a_heavy_scene_costs_what_reading_an_empty_one_does() -> None:
    found = bench_extension()
    assert found.value("heavy_scene_ratio") <= 1.5
    assert found.value("frame_set_ratio") <= 0.05
