"""The background's homographies against Blender's own projection of points, and where a shot has none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from animating import animate, new_object, rectangle_on_camera  # noqa: E402
from bpy_extras.object_utils import world_to_camera_view  # noqa: E402
from mathutils import Vector  # noqa: E402
from motionbooth_addon.capture import shots  # noqa: E402

FRAMES, DISTANCE = 8, 12.0
LEVEL = (math.pi / 2, 0.0, 0.0)
Animate = Callable[[Any, Any], None]


@pytest.fixture
def watched(scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]) -> Any:
    """A scene whose subject is a rectangle on the camera, so that the camera may go anywhere."""
    thing = rectangle_on_camera(scene, add_cube)
    scene.camera.animation_data_clear()
    scene.camera.location, scene.camera.rotation_euler = (0, 0, 0), LEVEL
    scene.motionbooth.background_distance = DISTANCE
    add_subject(scene, thing)
    return scene


def turned(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> tuple[float, ...]:
    return (LEVEL[0] + math.radians(x), math.radians(y), math.radians(z))


def lens(camera: Any, **ends: tuple[float, float]) -> None:
    for name, (first, last) in ends.items():
        animate(camera.data, name, first, last)


def track_to(scene: Any, camera: Any) -> None:
    aim = camera.constraints.new("TRACK_TO")
    aim.target, aim.track_axis, aim.up_axis = new_object(scene, "Target", None), "TRACK_NEGATIVE_Z", "UP_Y"
    animate(camera, "location", (-3, 0, 0), (3, 2, 1))


def orthographic(scene: Any, camera: Any) -> None:
    camera.data.type, camera.data.ortho_scale = "ORTHO", 8
    animate(camera, "location", (0, 0, 0), (1, 2, -1))


def tall(scene: Any, camera: Any) -> None:
    scene.render.resolution_x, scene.render.resolution_y, scene.render.pixel_aspect_x = 400, 900, 1.5
    camera.data.sensor_fit = "VERTICAL"
    animate(camera, "rotation_euler", LEVEL, turned(8, 10, -12))


MOVES: dict[str, Animate] = {
    "pan": lambda scene, camera: animate(camera, "rotation_euler", LEVEL, turned(z=-25)),
    "tilt": lambda scene, camera: animate(camera, "rotation_euler", LEVEL, turned(x=15)),
    "roll": lambda scene, camera: animate(camera, "rotation_euler", LEVEL, turned(y=20)),
    "zoom": lambda scene, camera: lens(camera, lens=(35, 50)),
    "dolly": lambda scene, camera: animate(camera, "location", (0, 0, 0), (0, 4, 0)),
    "dolly back from an angle": lambda scene, camera: (
        animate(camera, "location", (0, 0, 0), (1, -6, 1)),
        animate(camera, "rotation_euler", turned(5, 3, -10), turned(-4, -2, 8)),
    ),
    "dolly zoom": lambda scene, camera: (
        animate(camera, "location", (0, 0, 0), (0, -5, 0)),
        lens(camera, lens=(35, 50)),
    ),
    "track": lambda scene, camera: animate(camera, "location", (0, 0, 0), (3, 0, -1)),
    "track and pan": lambda scene, camera: (
        animate(camera, "location", (0, 0, 0), (3, 0, -1)),
        animate(camera, "rotation_euler", LEVEL, turned(z=12)),
    ),
    "orbit": track_to,
    "lens shift": lambda scene, camera: lens(camera, shift_x=(0, 0.25), shift_y=(0, 0.1)),
    "shifted zoom with a roll": lambda scene, camera: (
        lens(camera, shift_x=(0.1, -0.1), lens=(50, 30)),
        animate(camera, "rotation_euler", turned(y=-10), turned(y=15)),
    ),
    "orthographic": orthographic,
    "orthographic zoom with a turn": lambda scene, camera: (
        orthographic(scene, camera),
        lens(camera, ortho_scale=(8, 5)),
        animate(camera, "rotation_euler", LEVEL, turned(5, 10, 20)),
    ),
    "tall frame of oblong pixels": tall,
}


def matrices(camera: Any) -> np.ndarray:
    """The path's homographies (F, 3, 3); those of the pan that it is, if it has none."""
    if camera.homographies:
        return np.array(camera.homographies)
    return np.array([[[1, 0, -offset.dx], [0, 1, -offset.dy], [0, 0, 1]] for offset in camera.offsets])


@pytest.mark.parametrize("name", MOVES)
def test_points_of_the_background_move_as_blender_projects_them(watched: Any, name: str) -> None:
    MOVES[name](watched, watched.camera)
    shot = shots.read_shot(watched, FRAMES).shot
    maps = matrices(shot.camera)
    first = np.linalg.norm(maps[0] - np.eye(3))
    assert first < 1e-9
    errors, shown = [], 0
    points: list[Any] = []
    for matrix, moment in zip(maps, shot.times, strict=True):
        whole = math.floor(moment)
        watched.frame_set(whole, subframe=moment - whole)
        camera = watched.camera
        if not points:  # a grid on the plane, wider than the frame
            points = [camera.matrix_world @ Vector((x, y, -DISTANCE)) for x in range(-9, 10) for y in range(-6, 7)]
            start = [world_to_camera_view(watched, camera, point) for point in points]
        for point, before in zip(points, start, strict=True):
            now = world_to_camera_view(watched, camera, point)
            x, y, w = matrix @ (before.x, 1 - before.y, 1)
            assert (w > 0) == (now.z > 0) or camera.data.type == "ORTHO"
            if now.z > 0 and 0 <= now.x <= 1 and 0 <= now.y <= 1:
                shown += 1
                errors.append(math.hypot(x / w - now.x, y / w - (1 - now.y)))
    assert shown > 100
    assert max(errors) <= 1e-4  # Blender's matrices and points are float32: 1e-6 of 12 units, a few times over


@pytest.mark.parametrize("name", [name for name in MOVES if "orthographic" not in name])
def test_points_are_where_a_pose_shows_them(watched: Any, name: str) -> None:
    MOVES[name](watched, watched.camera)
    watched.unit_settings.scale_length = 0.5  # meters a scene unit
    shot = shots.read_shot(watched, FRAMES).shot
    assert len(shot.camera.poses) == FRAMES
    errors = []
    for pose, moment in zip(shot.camera.poses, shot.times, strict=True):
        watched.frame_set(math.floor(moment), subframe=moment % 1)
        to_world = np.array(pose.to_world)
        for point in [Vector((x, y, z)) for x in (-4, 0, 4) for y in (6, 12, 20) for z in (-2, 0, 3)]:
            now = world_to_camera_view(watched, watched.camera, point)
            if now.z <= 0.5:
                continue
            seen = (0.5 * np.array(point) - to_world[:, 3]) @ to_world[:, :3]  # the rotation's transpose inverts it
            shown = np.array(pose.focal) * seen[:2] / seen[2] + pose.center
            errors.append(max(abs(shown[0] - now.x), abs(shown[1] - (1 - now.y))))
    assert len(errors) > 100
    assert max(errors) <= 1e-4  # as above


def test_an_orthographic_camera_has_no_poses(watched: Any) -> None:
    MOVES["orthographic"](watched, watched.camera)
    assert shots.read_shot(watched, FRAMES).shot.camera.poses == []


@pytest.mark.parametrize(
    ("name", "pan"), [("lens shift", True), ("track", True), ("orthographic", True), ("pan", False), ("zoom", False)]
)
def test_a_pan_of_the_flat_background_has_offsets_alone(watched: Any, name: str, pan: bool) -> None:
    """So that it is generated as before. A camera that turns sees the background get narrower at one side."""
    MOVES[name](watched, watched.camera)
    camera = shots.read_shot(watched, FRAMES).shot.camera
    assert (camera.homographies == []) == pan
    assert camera.moves


def test_in_the_models_frame_the_homographies_are_its_own(watched: Any) -> None:
    """A square frame inside the shot's: x is stretched about the center."""
    MOVES["shifted zoom with a roll"](watched, watched.camera)
    watched.motionbooth.framing = "CROP"
    wide = matrices(shots.read_shot(watched, FRAMES).shot.camera)
    shot = shots.read_shot(watched, FRAMES, (512, 512)).shot
    frame = shot.model_frame
    assert frame is not None
    inside = np.array([[1 / (frame.x2 - frame.x1), 0, -frame.x1 / (frame.x2 - frame.x1)], [0, 1, 0], [0, 0, 1]])
    assert (frame.y1, frame.y2) == pytest.approx((0, 1))
    assert matrices(shot.camera) == pytest.approx(inside @ wide @ np.linalg.inv(inside), abs=1e-6)


@pytest.mark.parametrize("end", [(0, 13, 0), (0, 12, 0)])
def test_a_camera_that_reaches_the_background_pans_with_a_warning(
    watched: Any, end: tuple[float, float, float]
) -> None:
    animate(watched.camera, "location", (0, 0, 0), end)
    captured = shots.read_shot(watched, FRAMES)
    assert captured.shot.camera.homographies == []
    assert any("reaches the background's plane" in str(warning.sentence) for warning in captured.warnings)


def test_a_cut_has_no_homographies(watched: Any) -> None:
    MOVES["zoom"](watched, watched.camera)
    other = new_object(watched, "Other", bpy.data.cameras.new("Other"), (5, 0, 0))
    other.rotation_euler = LEVEL
    for frame, camera in ((1, watched.camera), (12, other)):
        watched.timeline_markers.new("cut", frame=frame).camera = camera
    assert shots.read_shot(watched, FRAMES).shot.camera.homographies == []


@pytest.mark.parametrize("name", ["zoom", "roll", "pan"])
def test_what_the_clip_follows_raises_no_warning(watched: Any, name: str) -> None:
    MOVES[name](watched, watched.camera)
    assert shots.read_shot(watched, FRAMES).warnings == []
