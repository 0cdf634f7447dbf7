from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from refused import refused_by_operator

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth_addon._protocol.errors import InvalidInput  # noqa: E402
from motionbooth_addon.capture import shots  # noqa: E402
from motionbooth_addon.preferences import preferences  # noqa: E402


@pytest.fixture
def undo(at_work: Any) -> Callable[[], None]:
    """Blender's undo, with a step for the state before the operator, as in the window."""
    bpy.context.preferences.edit.use_global_undo = True
    bpy.ops.ed.undo_push(message="before")
    return bpy.ops.ed.undo


def asked_box(scene: Any) -> tuple[float, ...]:
    scene.motionbooth.subjects[0].class_word = "dog"
    box = shots.read_shot(scene, 8).shot.subjects[0].boxes[0]
    assert box is not None
    return box.as_tuple()


@pytest.mark.parametrize("kind", ["PERSP", "ORTHO"])
@pytest.mark.parametrize("size", [(960, 640), (640, 960)])
@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_a_new_box_is_centered_in_the_frame_of_any_camera(
    kind: str, size: tuple[int, int], shift: float, at_work: Any, scene: Any
) -> None:
    scene.camera.data.type, scene.camera.data.shift_x = kind, shift
    scene.render.resolution_x, scene.render.resolution_y = size
    bpy.ops.motionbooth.add_subject_box()
    assert asked_box(scene) == pytest.approx((0.35, 0.275, 0.65, 0.725), abs=1e-4)


def test_a_new_box_is_selected_hidden_in_renders_and_locked_to_its_plane(at_work: Any, scene: Any) -> None:
    bpy.ops.motionbooth.add_subject_box()
    box = bpy.context.active_object
    assert box.select_get()
    assert (box.parent, box.hide_render, box.lock_location[2]) == (scene.camera, True, True)
    assert scene.motionbooth.subjects[0].object == box


def test_each_new_subject_has_a_unique_name_token_and_color(at_work: Any, scene: Any) -> None:
    for _ in range(5):
        bpy.ops.motionbooth.add_subject_box()
    subjects = scene.motionbooth.subjects
    for kind in (lambda s: s.name, lambda s: s.token, lambda s: tuple(round(c, 2) for c in s.color)):
        assert len({kind(subject) for subject in subjects}) == 5
    assert scene.motionbooth.active_subject == 4


def test_one_undo_removes_a_new_box(at_work: Any, scene: Any, undo: Callable[[], None]) -> None:
    bpy.ops.motionbooth.add_subject_box("EXEC_DEFAULT", True)
    assert len(bpy.context.scene.motionbooth.subjects) == 1
    undo()
    assert len(bpy.context.scene.motionbooth.subjects) == 0
    assert "Subject Box" not in bpy.data.objects


def test_an_object_of_the_scene_becomes_a_subject_once(at_work: Any, scene: Any, add_cube: Callable[..., Any]) -> None:
    cube = add_cube(scene)
    bpy.context.view_layer.objects.active = cube
    bpy.ops.motionbooth.use_selected_object()
    (subject,) = scene.motionbooth.subjects
    assert (subject.name, subject.object, subject.training_object) == ("Cube", cube, cube)
    assert not bpy.ops.motionbooth.use_selected_object.poll()


def test_removing_a_subject_deletes_its_box_but_no_object_of_the_user(
    at_work: Any, scene: Any, add_cube: Callable[..., Any]
) -> None:
    cube = add_cube(scene)
    bpy.context.view_layer.objects.active = cube
    bpy.ops.motionbooth.use_selected_object()
    bpy.ops.motionbooth.add_subject_box()
    bpy.ops.motionbooth.remove_subject()
    bpy.ops.motionbooth.remove_subject()
    assert len(scene.motionbooth.subjects) == 0
    assert [thing.name for thing in scene.objects] == ["Camera", "Cube"]


def test_token_and_class_are_added_to_the_prompt(at_work: Any, scene: Any) -> None:
    bpy.ops.motionbooth.add_subject_box()
    with refused_by_operator(InvalidInput, subject=...):
        bpy.ops.motionbooth.add_to_prompt()
    scene.motionbooth.subjects[0].class_word = "toy"
    bpy.ops.motionbooth.add_to_prompt()
    bpy.ops.motionbooth.add_subject_box()
    scene.motionbooth.subjects[1].class_word = "dog"
    scene.motionbooth.subjects[1].token = ""
    bpy.ops.motionbooth.add_to_prompt()
    assert scene.motionbooth.prompt == "a sks toy and a dog"


def test_without_a_camera_backend_or_subject_the_buttons_are_disabled(at_work: Any, scene: Any) -> None:
    for name in ("generate", "train_subject", "remove_subject", "add_to_prompt", "cancel_job", "activate_take"):
        assert not getattr(bpy.ops.motionbooth, name).poll(), name
    scene.camera = None
    assert not bpy.ops.motionbooth.add_subject_box.poll()


def test_the_settings_of_a_shot_survive_saving_and_opening(at_work: Any, scene: Any) -> None:
    bpy.ops.motionbooth.add_subject_box()
    shot = scene.motionbooth
    shot.prompt, shot.quality, shot.steps, shot.take_count, shot.random_seed = "a sks toy", "CUSTOM", 17, 3, False
    uid = shot.uid
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
    shot = bpy.context.scene.motionbooth
    assert (shot.prompt, shot.quality, shot.steps, shot.take_count, shot.random_seed) == (
        "a sks toy", "CUSTOM", 17, 3, False,
    )  # fmt: skip
    assert (shot.uid, shot.subjects[0].object.name) == (uid, "Subject Box")


def test_a_copied_scene_gets_a_new_shot_id(at_work: Any, scene: Any) -> None:
    from motionbooth_addon.timeline import takes

    first = takes.shot_id(scene)
    copy = scene.copy()
    assert takes.shot_id(copy) != first
    assert takes.shot_id(scene) == first


def test_every_operator_has_a_tooltip(registered: Any) -> None:
    from motionbooth_addon import registration

    operators = [cls for cls in registration.CLASSES if issubclass(cls, bpy.types.Operator)]
    assert len(operators) > 15
    for cls in operators:
        group, name = cls.bl_idname.split(".")
        words = getattr(getattr(bpy.ops, group), name).get_rna_type().description
        assert len(words) > 15, cls.bl_idname
        assert not words.endswith("."), "Blender adds the stop"


def test_a_new_shot_has_the_default_model_and_quality(at_work: Any, scene: Any) -> None:
    preferences().default_model, preferences().default_quality = "zeroscope", "DRAFT"
    bpy.ops.motionbooth.add_subject_box()
    assert (scene.motionbooth.model, scene.motionbooth.quality) == ("zeroscope", "DRAFT")
    scene.motionbooth.model = "toybox"
    bpy.ops.motionbooth.add_subject_box()
    assert scene.motionbooth.model == "toybox", "an old shot is left as it is"
