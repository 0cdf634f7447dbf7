"""What the extension reads from rigged cameras, against Blender's own vector pass."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from motionbooth_protocol.motion import CameraPath

pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth_lab.bench import camera_rigs

# The vector pass has float32 positions of up to 1000 pixels: 1e-4 each, a few times over. Where positions are projected
# instead, a sample may be 0.01 pixels, the filter's width, away from the middle of its pixel.
LARGEST = {True: 0.02, False: 2e-3}


@pytest.mark.parametrize(
    "name", ["crane", camera_rigs.LAYERED, "shifted dolly zoom", "tall frame of oblong pixels", "orthographic zoom"]
)
def test_the_background_moves_as_in_the_vector_pass(registered: Any, name: str) -> None:
    assert camera_rigs.capture_error(name) <= LARGEST[name in camera_rigs.WITHOUT_VECTORS]


def test_another_motion_than_the_vector_pass_has_is_found(registered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it."""
    asked = camera_rigs.requested_flows_px
    monkeypatch.setattr(camera_rigs, "requested_flows_px", lambda *given: [motion / 2 for motion in asked(*given)])
    assert camera_rigs.capture_error("dolly") > 0.25


def test_the_moves_of_bench_camera_are_read_from_blend_files(registered: Any) -> None:
    paths = camera_rigs.read_paths((96, 64), 8)
    assert list(paths) == [*camera_rigs.MIXED, camera_rigs.LAYERED]
    for path in paths.values():
        read = msgspec.convert(msgspec.to_builtins(path), CameraPath)  # the extension has its own copy of it
        assert len(read.homographies) == 8
        assert read.moves
        assert (read.parallax is not None) == (path is paths[camera_rigs.LAYERED])
