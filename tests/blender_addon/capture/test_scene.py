"""What a scene needs to be read, that reading does not change it, and its cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from refused import refused

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from animating import animate, new_object  # noqa: E402
from motionbooth_addon._protocol.errors import InvalidInput  # noqa: E402
from motionbooth_addon.capture import shots  # noqa: E402

FRAMES = 8


def snapshot(scene: Any) -> Any:
    return (
        scene.frame_current,
        scene.frame_subframe,
        bpy.context.scene.name,
        sorted(bpy.data.scenes.keys()),
        sorted(bpy.data.objects.keys()),
        [thing.name for thing in bpy.context.selected_objects],
        bpy.context.view_layer.objects.active,
        [(thing.name, tuple(map(tuple, thing.matrix_world)), thing.users) for thing in scene.objects],
        [collection.name for collection in bpy.data.collections],
    )


def test_the_scene_does_not_change_even_if_reading_fails(
    scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]
) -> None:
    cube = add_cube(scene)
    animate(cube, "location", (-2, 10, 0), (2, 10, 0))
    add_subject(scene, cube)
    scene.frame_set(7, subframe=0.25)
    cube.select_set(True)
    before = snapshot(scene)
    shots.read_shot(scene, FRAMES)
    assert snapshot(scene) == before
    cube.hide_viewport = True
    with refused(InvalidInput, object="Cube"):
        shots.read_shot(scene, FRAMES)
    cube.hide_viewport = False
    animate(cube, "location", (0, -10, 0), (0, -10, 0))
    with refused(InvalidInput, subject=..., object="Cube"):
        shots.read_shot(scene, FRAMES)
    assert sorted(bpy.data.scenes.keys()) == ["Scene"]


def no_object(scene: Any, subject: Any) -> None:
    subject.object = None


def no_class(scene: Any, subject: Any) -> None:
    subject.class_word = ""


def twins(scene: Any, subject: Any) -> None:
    twin = scene.motionbooth.subjects.add()
    twin.name, twin.class_word, twin.object = subject.name.upper(), "dog", subject.object


def one_frame(scene: Any, subject: Any) -> None:
    scene.frame_start = scene.frame_end = 5


def too_many_frames(scene: Any, subject: Any) -> None:
    scene.frame_start, scene.frame_end = 1, 20_001


def panorama(scene: Any, subject: Any) -> None:
    scene.camera.data.type = "PANO"


def lamp(scene: Any, subject: Any) -> None:
    subject.object = new_object(scene, "Lamp", bpy.data.lights.new("Lamp", "POINT"))


def flat_camera(scene: Any, subject: Any) -> None:
    scene.camera.scale.z = 0


def deleted_proxy(scene: Any, subject: Any) -> None:
    with bpy.context.temp_override(selected_objects=[subject.object]):
        bpy.ops.object.delete()


def never_seen(scene: Any, subject: Any) -> None:
    subject.object.location = (500, 10, 0)


@pytest.mark.parametrize(
    ("spoil", "values"),
    [
        (no_object, {"subject": "Imp", "scene": "Scene"}),
        (no_class, {"subject": "Imp", "scene": "Scene"}),
        (twins, {"subject": "IMP", "scene": "Scene"}),
        (one_frame, {"start": 5, "scene": "Scene"}),
        (too_many_frames, {"frames": 20_001, "most": 20_000, "scene": "Scene"}),
        (panorama, {"camera": "Camera", "kind": "pano"}),
        (lamp, {"subject": "Imp", "scene": "Scene", "kind": "light", "object": "Lamp"}),
        (flat_camera, {"camera": "Camera"}),
        (deleted_proxy, {"subject": "Imp", "object": "Cube"}),
        (never_seen, {"subject": "Imp", "object": "Cube"}),
    ],
)
def test_an_invalid_scene_raises_an_error_that_says_what_to_do(
    spoil: Callable[..., None],
    values: dict[str, Any],
    scene: Any,
    add_cube: Callable[..., Any],
    add_subject: Callable[..., Any],
) -> None:
    spoil(scene, add_subject(scene, add_cube(scene)))
    with pytest.raises(InvalidInput) as caught:
        shots.read_shot(scene, FRAMES)
    assert caught.value.text.values == values


def test_a_scene_without_a_camera_or_a_subject_is_refused_with_what_to_do(scene: Any) -> None:
    with refused(InvalidInput, code="no_subjects"):
        shots.read_shot(scene, FRAMES)
    scene.camera = None
    with refused(InvalidInput, code="no_camera"):
        shots.read_shot(scene, FRAMES)


def test_the_shot_has_the_frame_range_rate_and_size_of_the_scene(
    scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]
) -> None:
    add_subject(scene, add_cube(scene))
    scene.frame_start, scene.frame_end = 3, 26
    scene.render.fps, scene.render.fps_base = 30, 1.001
    scene.render.resolution_y = 720
    scene.render.resolution_percentage = 70
    shot = shots.read_shot(scene, FRAMES).shot
    assert (shot.frame_start, shot.frame_end, shot.scene_frames) == (3, 26, 24)
    assert shot.fps == pytest.approx(30000 / 1001)
    assert (shot.width, shot.height, shot.frames) == (672, 504, FRAMES), "as Blender rounds"
    assert shot.name == "Scene"


def test_reading_does_not_evaluate_other_objects_of_the_scene(
    scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]
) -> None:
    """An object that is no subject is not evaluated: its driver never runs."""
    asked = []
    bpy.app.driver_namespace["heavy"] = lambda: asked.append(1) or 0.0
    bystander = add_cube(scene, name="Bystander")
    bystander.driver_add("location", 0).driver.expression = "heavy() + frame * 0"
    add_subject(scene, add_cube(scene))
    asked.clear()
    shots.read_shot(scene, FRAMES)
    assert asked == []


@pytest.mark.parametrize("rig", [False, True])
def test_children_are_looked_for_once_and_not_at_each_frame(
    rig: bool,
    scene: Any,
    add_cube: Callable[..., Any],
    add_subject: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blender looks at all objects of the file for them: 5 ms of 5,000 objects, for each subject and frame."""
    subject = add_cube(scene)
    if rig:
        subject.parent = subject = new_object(scene, "Rig", None)
    add_subject(scene, subject)
    find, found = bpy.types.Object.children_recursive.fget, []
    monkeypatch.setattr(bpy.types.Object, "children_recursive", property(lambda self: found.append(self) or find(self)))
    shots.read_motion(scene, 24)
    assert len(found) <= (4 if rig else 0)
