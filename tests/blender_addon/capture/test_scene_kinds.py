"""Every kind of scene is read as Blender plays it, without playback if possible; unreadable scenes raise an error."""

from __future__ import annotations

import pytest

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth_addon.capture import shots  # noqa: E402
from motionbooth_lab.bench import scene_kinds  # noqa: E402

BODY = "rigid body"
PLAYED = {
    "simulation_nodes": "simulation nodes",
    "rigid_body": BODY,
    "child_of_a_rigid_body": BODY,
    "follows_a_rigid_body": BODY,
    "driven_by_a_rigid_body": BODY,
    "instances_of_a_rigid_body": BODY,
    "cloth": "cloth",
    "pinned_cloth_that_is_subdivided": "cloth",
    "soft_body": "soft body",
    "particles": "particles",
    "driven_by_the_scenes_frame": "driven by the scene",
    "driven_by_a_property_of_the_scene": "driven by the scene",
    "driven_through_an_object_by_the_scene": "driven by the scene",
    "shape_key_driven_by_the_scene": "driven by the scene",
    "driven_by_an_expression_of_python": "driver walked() + frame * 0",
    "moved_by_a_script_at_each_frame": "script move_thing",
}
REFUSED = {"hidden_rigid_body": "bake it to keyframes from frame 1 to 22"}


@pytest.fixture(autouse=True)
def _registered(registered: object) -> None:
    """The extension, in Blender."""


@pytest.mark.parametrize("name", sorted(set(scene_kinds.KINDS) - set(REFUSED)))
def test_a_scene_is_read_as_it_plays(name: str) -> None:
    scene_kinds.new_scene(name)
    boxes, travel = scene_kinds.truth(bpy.context.scene)
    assert max(abs(boxes - boxes[0]).max(), abs(travel).max()) > 0.01, "nothing moves in this scene"
    error = scene_kinds.error_of(name)
    assert isinstance(error, float), error
    assert error <= scene_kinds.EXACT


@pytest.mark.parametrize("name", sorted(set(scene_kinds.KINDS) - set(REFUSED)))
def test_read_methods_are_reported_and_the_current_frame_is_restored(name: str) -> None:
    scene = scene_kinds.new_scene(name)
    scene.frame_set(5)
    camera, subject = shots.read_shot(scene, 8).read_methods
    assert str(subject.playback_reason or "") == PLAYED.get(name, "")
    assert str(camera.playback_reason or "") == (
        BODY if name == "camera_on_a_rigid_body" else "script move_thing" if "script" in name else ""
    )
    assert scene.frame_current == 5
    assert [known.name for known in bpy.data.scenes] == ["Scene"]


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_unreadable_scenes_raise_an_error_that_says_what_to_do(name: str) -> None:
    error = scene_kinds.error_of(name)
    assert isinstance(error, str)
    assert REFUSED[name] in error


def test_a_simulation_is_interpolated_between_frames() -> None:
    """Between two frames, Blender interpolates the caches."""
    scene = scene_kinds.new_scene("rigid_body")
    projections = shots.read_motion(scene, 2 * 21 + 1).projections[0]
    heights = [seen.box.center[1] for seen in projections if seen.box]
    assert len(heights) == 43
    for before, between, after in zip(heights[0:12:2], heights[1:12:2], heights[2:14:2], strict=True):
        assert before < between < after, "it falls from half a frame to the next"


def test_a_simulation_in_a_hidden_scene_is_played() -> None:
    scene = scene_kinds.new_scene("rigid_body")
    expected, _ = scene_kinds.truth(scene_kinds.new_scene("rigid_body"))
    scene = scene_kinds.new_scene("rigid_body")
    bpy.context.window.scene = bpy.data.scenes.new("Other") if bpy.context.window else scene
    read = [box.as_tuple() for box in shots.read_shot(scene, 8).shot.subjects[0].boxes if box]
    assert read == pytest.approx(expected, abs=scene_kinds.EXACT)


def test_there_are_enough_kinds() -> None:
    assert len(scene_kinds.KINDS) >= 24
