"""The guide that is rendered from a scene: in a real Blender process, with Cycles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from refused import refused

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth.generation.video import read_clip  # noqa: E402
from motionbooth_addon import compat  # noqa: E402
from motionbooth_addon._protocol.errors import InvalidInput  # noqa: E402
from motionbooth_addon._protocol.reports import ProgressReport  # noqa: E402
from motionbooth_addon.capture import shot_cache, shots  # noqa: E402
from motionbooth_addon.guide import render, request  # noqa: E402
from motionbooth_addon.job_store import GuideRender  # noqa: E402
from motionbooth_addon.operators.subjects import make_box  # noqa: E402
from motionbooth_addon.turntable import background_render  # noqa: E402
from PIL import Image  # noqa: E402

SIZE, FRAMES = (48, 32), 4
RENDERER = background_render.renderer("", system_python=False)


@pytest.fixture
def stage(scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]) -> Any:
    """A red cube that moves from left to right in front of a green wall, with the guide on."""
    cube, wall = add_cube(scene, (-3, 10, 0), "Cube"), add_cube(scene, (0, 20, 0), "Wall")
    wall.scale = (30, 1, 30)
    for thing, color in ((cube, (0.8, 0.02, 0.02)), (wall, (0.02, 0.5, 0.02))):
        material = bpy.data.materials.new(thing.name)
        if material.node_tree is None:
            material.use_nodes = True
        material.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = (*color, 1)
        thing.data.materials.append(material)
    for frame, x in ((1, -3), (24, 3)):
        cube.location.x = x
        cube.keyframe_insert("location", index=0, frame=frame)
    add_subject(scene, cube)
    scene.motionbooth.use_guide = True
    yield scene
    shot_cache.stop()


def wanted_for(scene: Any, folder: Path, size: tuple[int, int] = SIZE) -> tuple[GuideRender | None, Any]:
    shot = shots.read_shot(scene, FRAMES, size).shot
    return request.guide_render(scene, shot, size, folder), shot


def rendered(scene: Any, folder: Path, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """The frames of the guide and of its masks."""
    wanted, shot = wanted_for(scene, folder, size)
    assert wanted is not None
    seen: list[ProgressReport] = []
    clips = background_render.render_guide(RENDERER, wanted, shot, seen.append)
    assert seen[-1].step == seen[-1].steps == FRAMES * len(clips)
    read = [read_clip(clip) for clip in clips]
    assert all(abs(len(frames) / fps - 1) < 0.01 for frames, fps in read), "24 frames at 24 a second"
    return [frames.astype(int) for frames, _ in read]


def test_the_guide_shows_the_scene_and_the_masks_the_subject_where_its_boxes_are(stage: Any, tmp_path: Path) -> None:
    _, shot = wanted_for(stage, tmp_path)
    frames, masks = rendered(stage, tmp_path)
    assert frames.shape == masks.shape == (FRAMES, 32, 48, 3)
    for frame, mask, box in zip(frames, masks[..., 0], shot.subjects[0].boxes, strict=True):
        rows, columns = np.nonzero(mask > 127)
        # A pixel is in the mask from half of it on; boxes are exact.
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(found - np.array(box.as_tuple()) * (48, 32, 48, 32)).max() <= 1
        inside, outside = frame[mask == 255], frame[mask == 0]
        # Not all: pixels of the outline are filtered with their neighbors.
        assert (inside[:, 0] > inside[:, 1] + 50).mean() > 0.8, "the cube is red"
        assert (outside[:, 1] > outside[:, 0] + 30).mean() > 0.8, "the wall is green, and there is light without a lamp"


def test_a_transparent_film_and_the_colors_of_the_output_do_not_change_it(stage: Any, tmp_path: Path) -> None:
    bpy.data.objects.remove(bpy.data.objects["Wall"])
    stage.world = bpy.data.worlds.new("Sky")
    compat.paint_world(stage.world, (0.5, 0.5, 0.5))

    def seen(name: str) -> np.ndarray:
        wanted, _ = wanted_for(stage, tmp_path / name)
        task = wanted.folder, wanted.scene, [1.0], (0.0, 0.0, 1.0, 1.0), SIZE, 8.0, [], background_render.CYCLES
        (clip,) = render.render_library(*task, lambda done, total: None)
        with Image.open(clip) as opened:
            return np.asarray(opened.convert("RGB")).astype(int)

    plain = seen("plain")
    assert abs(plain[0, 0] - 188).max() <= 1, "0.5 in sRGB"
    output = stage.render.image_settings
    stage.render.film_transparent, output.color_management = True, "OVERRIDE"
    output.view_settings.view_transform = "AgX"
    assert (seen("as a compositor has it") == plain).all()


@pytest.mark.parametrize("framing", ["FIT", "CROP"])
def test_a_model_with_another_aspect_ratio_gets_its_own_frame(stage: Any, tmp_path: Path, framing: str) -> None:
    stage.motionbooth.framing = framing
    _, shot = wanted_for(stage, tmp_path, (40, 40))
    assert shot.model_frame is not None
    frames, masks = rendered(stage, tmp_path, (40, 40))
    assert frames.shape == (FRAMES, 40, 40, 3)
    middle = masks[1, ..., 0] > 127
    x1, y1, x2, y2 = np.array(shot.subjects[0].boxes[1].as_tuple()) * 40
    rows, columns = np.nonzero(middle)
    assert abs(rows.mean() + 0.5 - (y1 + y2) / 2) < 1
    assert abs(columns.mean() + 0.5 - (x1 + x2) / 2) < 1
    assert abs(np.ptp(columns) + 1 - (x2 - x1)) <= 2


def test_it_is_rendered_again_only_if_the_scene_has_changed(
    stage: Any, add_cube: Callable[..., Any], tmp_path: Path
) -> None:
    def folder() -> str:
        bpy.context.view_layer.update()
        wanted, _ = wanted_for(stage, tmp_path)
        assert wanted is not None
        return wanted.folder

    props = bpy.data.collections.new("Set")
    stage.collection.children.link(props)
    props.objects.link(add_cube(stage, (3, 12, 0), "Prop"))
    stage.collection.objects.unlink(bpy.data.objects["Prop"])
    first = folder()
    assert [folder() for _ in range(3)] == [first] * 3
    stage.frame_set(9)
    assert folder() == first, "another current frame is no change"
    rendered(stage, tmp_path)
    assert not (Path(first) / "scene.blend").exists()
    assert folder() == first
    assert not (Path(first) / "scene.blend").exists(), "nothing is written for a guide that is rendered"
    changes: list[Callable[[], None]] = [
        lambda: setattr(bpy.data.objects["Wall"], "location", (0, 21, 0)),
        lambda: setattr(
            bpy.data.materials["Wall"].node_tree.nodes["Principled BSDF"].inputs["Base Color"],
            "default_value",
            (0, 0, 1, 1),
        ),
        lambda: setattr(bpy.data.objects["Wall"], "visible_camera", False),
        lambda: setattr(bpy.data.objects["Wall"], "hide_render", True),
        lambda: setattr(props, "hide_render", True),
        lambda: setattr(bpy.context.view_layer.layer_collection.children["Set"], "exclude", True),
        lambda: setattr(stage, "frame_end", 30),
        lambda: shot_cache.forget_state(stage),  # as the button does
    ]
    seen = {first}
    for change in changes:
        change()
        assert folder() not in seen
        seen.add(folder())


def test_it_is_kept_while_nothing_is_drawn(stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an idle window, where nothing asks for the shot; changes are noted nevertheless."""
    monkeypatch.setattr(shot_cache, "EXPIRE_SECONDS", 0.0)
    before = shot_cache.state(stage)
    assert shot_cache.tick() is not None
    assert shot_cache.state(stage) == before
    shot_cache.tick()
    bpy.data.objects["Wall"].location.y = 22
    bpy.context.view_layer.update()
    assert shot_cache.state(stage) != before
    stage.motionbooth.use_guide = False
    assert shot_cache.tick() is None


def test_a_clip_of_the_users_replaces_the_render_and_guides_boxes_too(stage: Any, tmp_path: Path) -> None:
    stage.motionbooth.subjects[0].object = make_box(stage)
    stage.motionbooth.guide_clip = str(tmp_path / "take.mp4")
    with refused(InvalidInput, path=...):
        wanted_for(stage, tmp_path / "guides")
    (tmp_path / "take.mp4").write_bytes(b"clip")
    wanted, shot = wanted_for(stage, tmp_path / "guides")
    assert wanted is not None
    assert (wanted.subject_strength, wanted.background_strength) == (0.5, pytest.approx(0.3))
    assert background_render.render_guide(RENDERER, wanted, shot, lambda report: None) == [tmp_path / "take.mp4"]
    assert not (tmp_path / "guides").exists()
    stage.motionbooth.use_guide = False
    assert wanted_for(stage, tmp_path / "guides")[0] is None


def test_a_subject_box_is_not_rendered_so_that_only_the_background_is_guided(stage: Any, tmp_path: Path) -> None:
    stage.motionbooth.subjects[0].object = make_box(stage)
    wanted, _ = wanted_for(stage, tmp_path)
    assert wanted is not None
    assert (wanted.subject_strength, wanted.masked) == (0.0, [])
    stage.motionbooth.guide_background = 0.0
    assert wanted_for(stage, tmp_path)[0] is None
    stage.motionbooth.use_guide = False
    assert wanted_for(stage, tmp_path)[0] is None


def test_the_masks_have_the_children_of_a_subject_too(stage: Any, add_cube: Callable[..., Any], tmp_path: Path) -> None:
    """As a character's eyes; without its hidden parts, which the render does not show."""
    cube = bpy.data.objects["Cube"]
    for name, height in (("Hat", 2.0), ("Hidden", 4.0)):
        part = add_cube(stage, (0, 0, height), name)
        part.parent, part.hide_render = cube, name == "Hidden"
    wanted, _ = wanted_for(stage, tmp_path)
    assert wanted is not None
    assert wanted.masked == ["Cube", "Hat"]
    empty = bpy.data.objects.new("Empty", None)
    stage.collection.objects.link(empty)
    stage.motionbooth.subjects[0].object = empty
    assert request.rendered_parts(stage.motionbooth.subjects[0]) == []
    cube.parent = empty
    assert len(request.rendered_parts(stage.motionbooth.subjects[0])) == 2


def test_instances_of_collections_are_in_the_masks_only_of_subjects(
    stage: Any, add_cube: Callable[..., Any], tmp_path: Path
) -> None:
    """As the sets and characters of a library are."""
    for name, where in (("Set", (0, 12, 2)), ("Character", (0, 10, -1))):
        part = add_cube(stage, (0, 0, 0), f"Part of {name}")
        stage.collection.objects.unlink(part)
        collection = bpy.data.collections.new(name)
        collection.objects.link(part)
        instance = bpy.data.objects.new(name, None)
        instance.instance_type, instance.instance_collection, instance.location = "COLLECTION", collection, where
        stage.collection.objects.link(instance)
    stage.motionbooth.subjects[0].object = bpy.data.objects["Character"]
    wanted, shot = wanted_for(stage, tmp_path)
    assert wanted is not None
    clips = background_render.render_guide(RENDERER, wanted, shot, lambda report: None)
    mask = read_clip(clips[1])[0][0, ..., 0] > 127
    x1, y1, x2, y2 = np.array(shot.subjects[0].boxes[0].as_tuple()) * (48, 32, 48, 32)
    rows, columns = np.nonzero(mask)
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert np.abs(found - (x1, y1, x2, y2)).max() <= 1


def test_a_simulation_is_played(stage: Any, add_cube: Callable[..., Any], tmp_path: Path) -> None:
    """A falling cube, which only playback moves, leaves the frame."""
    falling = add_cube(stage, (0, 8, 2), "Falling")
    bpy.ops.rigidbody.world_add()
    with bpy.context.temp_override(object=falling, active_object=falling, selected_objects=[falling]):
        bpy.context.view_layer.objects.active = falling
        bpy.ops.rigidbody.object_add(type="ACTIVE")
    frames, _ = rendered(stage, tmp_path)
    above = frames[:, 4:12, 20:28].astype(float)
    grey = (np.ptp(above, axis=-1) < 25).mean(axis=(1, 2))
    assert grey[0] > 0.5 > 0.1 > grey[-1], grey


def test_a_render_that_fails_says_so_in_one_sentence(stage: Any, tmp_path: Path) -> None:
    wanted, shot = wanted_for(stage, tmp_path)
    assert wanted is not None
    (Path(wanted.folder) / "scene.blend").write_bytes(b"broken")
    with refused(InvalidInput, reason=...):
        background_render.render_guide(RENDERER, wanted, shot, lambda report: None)
    (Path(wanted.folder) / "scene.blend").unlink()
    with refused(InvalidInput, code="gone"):
        background_render.render_guide(RENDERER, wanted, shot, lambda report: None)


def test_without_a_display_cycles_takes_over(stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(background_render.FIRST_SECONDS, "WORKBENCH", 20.0)
    wanted, shot = wanted_for(stage, tmp_path)
    assert wanted is not None
    assert wanted.engines == ["CYCLES"], "in the background"
    other = replace(wanted, engines=["WORKBENCH", "CYCLES"])  # as in a window
    assert all(clip.is_file() for clip in background_render.render_guide(RENDERER, other, shot, lambda report: None))
