"""The measured and the keyframed camera path."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from animating import animate, new_object, rectangle_on_camera  # noqa: E402
from motionbooth_addon.capture import shots  # noqa: E402

FRAMES = 8


def path_of(scene: Any, frames: int = FRAMES) -> np.ndarray:
    return np.array([(o.dx, o.dy) for o in shots.read_shot(scene, frames).shot.camera.offsets])


@pytest.fixture
def watched(scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]) -> Any:
    """A scene whose subject is a rectangle on the camera, so that the camera may go anywhere."""
    thing = rectangle_on_camera(scene, add_cube)
    scene.camera.animation_data_clear()
    scene.camera.location = (0, 0, 0)
    add_subject(scene, thing)
    return scene


def test_a_rotating_camera_travels_as_far_as_its_picture_slides(watched: Any) -> None:
    turn = math.radians(30)
    animate(watched.camera, "rotation_euler", (math.pi / 2, 0, turn / 2), (math.pi / 2, 0, -turn / 2))
    path = path_of(watched)
    assert path[0] == pytest.approx((0, 0))
    assert path[-1] == pytest.approx((turn * 35 / 36, 0), abs=1e-3)
    steps = np.diff(path[:, 0])
    assert (steps > 0).all()
    assert steps == pytest.approx(steps[::-1], abs=1e-4), "the default easing is symmetric"


def test_the_path_does_not_depend_on_the_models_frame_count(watched: Any) -> None:
    animate(watched.camera, "rotation_euler", (math.pi / 2, 0, 1.0), (math.pi / 2, 0, -1.0))
    assert path_of(watched, 3)[-1] == pytest.approx(path_of(watched, 47)[-1], abs=0.01)


def test_a_camera_that_tracks_beside_the_background_slides_by_similar_triangles(watched: Any) -> None:
    animate(watched.camera, "location", (0, 0, 0), (3, 0, -1))
    watched.motionbooth.background_distance = 12
    path = path_of(watched)
    assert path[-1] == pytest.approx((3 / 12 * 35 / 36, 1 / 12 * 35 / 36 * 1.5), abs=1e-5)


def test_a_lens_shift_is_a_pan(watched: Any) -> None:
    lens = watched.camera.data
    for frame, (x, y) in ((1, (0, 0)), (24, (0.25, 0.1))):
        lens.shift_x, lens.shift_y = x, y
        lens.keyframe_insert("shift_x", frame=frame)
        lens.keyframe_insert("shift_y", frame=frame)
    assert path_of(watched)[-1] == pytest.approx((0.25, -0.15), abs=1e-5)


def test_a_camera_that_tracks_a_target_follows_it(watched: Any) -> None:
    """The target is not part of the shot, but the constraint still follows it."""
    target = new_object(watched, "Target", None, (0, 10, 0))
    aim = watched.camera.constraints.new("TRACK_TO")
    aim.target, aim.track_axis, aim.up_axis = target, "TRACK_NEGATIVE_Z", "UP_Y"
    animate(target, "location", (0, 10, 0), (5, 10, 0))
    assert path_of(watched)[-1] == pytest.approx((math.atan2(5, 10) * 35 / 36, 0), abs=2e-3)


def test_a_keyframed_pan_is_relative_to_the_first_frame(watched: Any) -> None:
    watched.motionbooth.camera_mode = "KEYFRAMED"
    animate(watched.camera, "rotation_euler", (math.pi / 2, 0, 0), (math.pi / 2, 0, 1))
    for frame, pan in ((1, (0.1, 0.2)), (24, (0.5, -0.1))):
        watched.motionbooth.pan = pan
        watched.keyframe_insert("motionbooth.pan", frame=frame)
    watched.motionbooth.pan = (9, 9)
    path = path_of(watched)
    assert path[0] == pytest.approx((0, 0))
    assert path[-1] == pytest.approx((0.4, -0.3), abs=1e-6)
    assert len(np.unique(path[:, 0])) == FRAMES


def test_a_cut_by_markers_raises_a_warning_and_adds_no_travel(watched: Any) -> None:
    """Two parallel cameras side by side: as one camera, it would have tracked by half a frame."""
    animate(watched.camera, "location", (0, 0, 0), (0.6, 0, 0))
    alone = path_of(watched)
    other = new_object(watched, "Other", bpy.data.cameras.new("Other"), (5, 0, 0))
    other.rotation_euler, other.data.lens = (math.pi / 2, 0, 0), 50
    for frame, camera in ((1, watched.camera), (12, other)):
        watched.timeline_markers.new("cut", frame=frame).camera = camera
    reading = shots.read_shot(watched, FRAMES)
    warnings = [str(warning.sentence) for warning in reading.warnings]
    assert [w for w in warnings if 'cuts from camera "Camera" to "Other" at frame 12' in w]
    assert not [w for w in warnings if "zooms" in w or "sideways" in w]
    path = path_of(watched)
    assert path[:4] == pytest.approx(alone[:4], abs=1e-6)  # to frame 10.86
    assert path[4:] == pytest.approx(np.repeat(path[-1:], 4, axis=0), abs=1e-6), "the second camera stands still"
    assert abs(path[4, 0] - path[3, 0]) < 0.01
    box = reading.shot.subjects[0].boxes[-1]
    assert box is not None
    assert box.x1 < 0, "seen by the second camera, it is at the left edge"
