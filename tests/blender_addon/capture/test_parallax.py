"""The depth that is read from the scene, and where it takes points of the scenery, against Blender's projection."""

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

FRAMES, DISTANCE = 6, 12.0
LEVEL = (math.pi / 2, 0.0, 0.0)


def wall(name: str, left: float, right: float, depth: float) -> Any:
    """Upright, seen by a camera that looks along +y."""
    mesh = bpy.data.meshes.new(name)
    corners = [(left, depth, -40), (right, depth, -40), (right, depth, 40), (left, depth, 40)]
    mesh.from_pydata(corners, [], [(0, 1, 2, 3)])
    return new_object(bpy.context.scene, name, mesh, (0, 0, 0))


@pytest.fixture
def walls(scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]) -> Any:
    """A wall 4 units away up to x = 0.3, and one at the background's distance, from -30 to 3.5; nothing beside it."""
    thing = rectangle_on_camera(scene, add_cube)
    scene.camera.animation_data_clear()
    scene.camera.location, scene.camera.rotation_euler = (0, 0, 0), LEVEL
    scene.motionbooth.background_distance, scene.motionbooth.use_parallax = DISTANCE, True
    add_subject(scene, thing)
    wall("Near", -30, 0.3, 4.0)
    wall("Far", -30, 3.5, DISTANCE)
    return scene


def nearness(camera: Any) -> np.ndarray:
    parallax = camera.parallax
    return np.frombuffer(parallax.nearness, "<f2").reshape(FRAMES, parallax.rows, parallax.columns).astype(float)


MOVES: dict[str, Callable[[Any], Any]] = {
    "track": lambda camera: animate(camera, "location", (0, 0, 0), (1, 0, 0.2)),
    "dolly": lambda camera: animate(camera, "location", (0, 0, 0), (0.2, 2, 0)),
    "orbit": lambda camera: (
        animate(camera, "location", (0, 0, 0), (1.5, 0.5, 0)),
        animate(camera, "rotation_euler", LEVEL, (LEVEL[0], 0.1, 0.2)),
    ),
    "pan with a shifted lens": lambda camera: (
        setattr(camera.data, "shift_x", 0.1),
        animate(camera, "rotation_euler", LEVEL, (LEVEL[0] + 0.05, 0.0, -0.2)),
        animate(camera.data, "lens", 35, 45),
    ),
}


@pytest.mark.parametrize("meters", [1.0, 0.01])
@pytest.mark.parametrize("name", MOVES)
def test_points_of_both_walls_move_as_blender_projects_them(walls: Any, name: str, meters: float) -> None:
    MOVES[name](walls.camera)
    walls.unit_settings.scale_length = meters
    shot = shots.read_shot(walls, FRAMES).shot
    camera = shot.camera
    plane, infinity, near = np.array(camera.homographies), np.array(camera.parallax.infinity), nearness(camera)
    errors, compared = [], 0
    for frame, moment in enumerate(shot.times):
        for depth in (4.0, DISTANCE):
            for x, z in ((x, z) for x in (-1.0, 0.0, 0.25, 2.0, 3.0) for z in (-1.0, 0.5)):
                point = Vector((x, depth, z))
                walls.frame_set(1)
                start = world_to_camera_view(walls, walls.camera, point)
                walls.frame_set(math.floor(moment), subframe=moment % 1)
                now = world_to_camera_view(walls, walls.camera, point)
                maps = infinity[frame] + DISTANCE / depth * (plane[frame] - infinity[frame])
                moved = maps @ (start.x, 1 - start.y, 1)
                errors.append(np.abs(moved[:2] / moved[2] - (now.x, 1 - now.y)).max())
                place = walls.camera.matrix_world.translation
                at_near = place.lerp(point, (4.0 - place.y) / (depth - place.y)).x - 0.3  # over the near wall's edge
                shown = 0 < now.x < 1 and 0 < now.y < 1 and (at_near > 0) == (depth > 4.0)
                if shown and abs(at_near) > 0.2:  # a cell is 0.17 units wide on the near wall
                    seen = near[frame, int((1 - now.y) * near.shape[1]), int(now.x * near.shape[2])]
                    assert seen == pytest.approx(DISTANCE / depth, rel=2e-3)  # float16
                    compared += 1
    assert compared > 20
    assert max(errors) <= 1e-4  # Blender's matrices and points are float32: 1e-6 of 12 units, a few times over


def test_subjects_and_their_parts_are_no_scenery_and_nothing_is_as_near_as_the_background(
    walls: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]
) -> None:
    MOVES["track"](walls.camera)
    cube, part = (add_cube(walls, (0.0, 2.5, z), name) for z, name in ((-0.5, "Cube"), (0.5, "Part")))
    part.parent = cube
    add_subject(walls, cube, "Other")
    assert {float(value) for value in nearness(shots.read_shot(walls, FRAMES).shot.camera).flat} == {1.0, 3.0}
    walls.motionbooth.subjects.remove(1)
    assert nearness(shots.read_shot(walls, FRAMES).shot.camera).max() == pytest.approx(8.0)  # 1.5 units away


def test_what_needs_playback_is_left_out(walls: Any) -> None:
    MOVES["track"](walls.camera)
    bpy.data.objects["Near"].modifiers.new("Cloth", "CLOTH")
    assert shots.read_shot(walls, FRAMES).shot.camera.parallax is None


@pytest.mark.parametrize("why", ["flat", "orthographic", "off", "keyframed"])
def test_without_depth_or_without_a_perspective_camera_nothing_changes(walls: Any, why: str) -> None:
    MOVES["track"](walls.camera)
    if why == "flat":
        bpy.data.objects["Near"].hide_render = True
    elif why == "orthographic":
        walls.camera.data.type = "ORTHO"
    elif why == "keyframed":
        walls.motionbooth.camera_mode = "KEYFRAMED"
    else:
        walls.motionbooth.use_parallax = False
    with_setting = shots.read_shot(walls, FRAMES).shot.camera
    walls.motionbooth.use_parallax = False
    assert with_setting == shots.read_shot(walls, FRAMES).shot.camera
    assert with_setting.parallax is None


def test_with_depth_nothing_warns_of_a_flat_background(walls: Any) -> None:
    MOVES["dolly"](walls.camera)
    assert shots.read_shot(walls, FRAMES).warnings == []
    walls.motionbooth.use_parallax = False
    assert shots.read_shot(walls, FRAMES).warnings


def test_reading_depth_leaves_the_scene_as_it_was(walls: Any) -> None:
    MOVES["track"](walls.camera)
    walls.frame_set(5)
    shots.read_shot(walls, FRAMES)
    assert walls.frame_current == 5
    assert [scene.name for scene in bpy.data.scenes if scene.name.startswith(".")] == []
