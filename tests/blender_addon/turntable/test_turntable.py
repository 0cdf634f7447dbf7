from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refused import refused

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth_addon._protocol.errors import InvalidInput  # noqa: E402
from motionbooth_addon.jobs import specs  # noqa: E402
from motionbooth_addon.turntable.turntable import (  # noqa: E402
    TrainingPicture,
    TurntableSettings,
    composite,
    render_library,
    render_turntable,
    varied_background,
    write_png,
)
from PIL import Image  # noqa: E402

SMALL = TurntableSettings(size=64, samples=8, directions=((0, 0), (90, 30), (180, 0)))
RED, BLUE = (0.8, 0.02, 0.02), (0.02, 0.02, 0.8)


@pytest.fixture
def toy(scene: Any, add_cube: Callable[..., Any]) -> Any:
    """A red cube whose front (-y) carries a blue one, hidden from renders, far from the origin."""
    body = add_cube(scene, (30, 5, 2), "Body")
    nose = add_cube(scene, (0, -1, 0), "Nose")
    nose.scale = (0.4, 0.4, 0.4)
    nose.parent = body
    for part, color in ((body, RED), (nose, BLUE)):
        material = bpy.data.materials.new(part.name)
        if material.node_tree is None:
            material.use_nodes = True
        material.node_tree.nodes["Principled BSDF"].inputs["Base Color"].default_value = (*color, 1)
        part.data.materials.append(material)
        part.hide_render = True
    return body


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def digest(pictures: list[TrainingPicture]) -> str:
    files = [file for picture in pictures for file in (picture.image, picture.mask) if file]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def blue_share(picture: TrainingPicture) -> float:
    image, mask = pixels(picture.image).astype(int), pixels(picture.mask)
    return float((image[..., 2] > image[..., 0] + 40)[mask == 255].mean())


def test_pictures_show_the_object_from_all_sides_with_exact_masks(scene: Any, toy: Any, tmp_path: Path) -> None:
    front, side, back = render_turntable(scene, toy, tmp_path, SMALL)
    assert blue_share(front) > 0.1 > 0.01 > blue_share(back), "the first picture is of the front"
    for picture in (front, side, back):
        image, mask = pixels(picture.image), pixels(picture.mask)
        assert image.shape == (64, 64, 3)
        assert mask.shape == (64, 64)
        assert 0.15 < (mask == 255).mean() < 0.7
        assert mask[0].max() == mask[-1].max() == mask[:, 0].max() == mask[:, -1].max() == 0, "nothing is cut off"
    rows, columns = np.nonzero(pixels(back.mask) > 127)
    # Seen straight on, a cube is a square: its mask is one too, to the pixel.
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 1
    assert (pixels(back.mask) > 127).sum() == pytest.approx((np.ptp(rows) + 1) * (np.ptp(columns) + 1), rel=0.02)


def test_plain_and_varied_backgrounds_alternate(scene: Any, toy: Any, tmp_path: Path) -> None:
    deviations = []
    for picture in render_turntable(scene, toy, tmp_path, SMALL):
        background = pixels(picture.image)[pixels(picture.mask) == 0].astype(float)
        deviations.append(background.std(axis=0).max())
    assert deviations[0] == deviations[2] == 0
    assert deviations[1] > 10


def test_the_same_object_gives_the_same_bytes(scene: Any, toy: Any, tmp_path: Path) -> None:
    first = digest(render_turntable(scene, toy, tmp_path / "a", SMALL))
    assert digest(render_turntable(scene, toy, tmp_path / "b", SMALL)) == first


def test_a_changed_object_gives_other_bytes(scene: Any, toy: Any, tmp_path: Path) -> None:
    first = digest(render_turntable(scene, toy, tmp_path / "a", SMALL))
    toy.scale = (1, 1, 1.5)
    assert digest(render_turntable(scene, toy, tmp_path / "b", SMALL)) != first


def test_the_object_is_rendered_at_the_first_frame_of_the_shot(scene: Any, toy: Any, tmp_path: Path) -> None:
    """Not at the user's current frame."""
    for frame, height in ((1, 1.0), (12, 2.0)):
        toy.scale = (1, 1, height)
        toy.keyframe_insert("scale", frame=frame)
    scene.frame_start = 12
    scene.frame_set(1)
    rows, columns = np.nonzero(pixels(render_turntable(scene, toy, tmp_path, SMALL)[2].mask) > 127)
    assert np.ptp(rows) > 1.7 * np.ptp(columns), "twice as high as it is wide"


def counts() -> dict[str, int]:
    kinds = ("objects", "scenes", "meshes", "worlds", "cameras", "lights", "materials", "collections", "actions")
    return {kind: len(getattr(bpy.data, kind)) for kind in kinds}


def test_a_helper_that_is_hidden_in_renders_is_not_in_the_pictures(
    scene: Any, toy: Any, add_cube: Callable[..., Any], tmp_path: Path
) -> None:
    for part in (toy, *toy.children):
        part.hide_render = False
    before = digest(render_turntable(scene, toy, tmp_path / "before", SMALL))
    cage = add_cube(scene, (0, 0, 0), "Cage")
    cage.parent, cage.scale, cage.hide_render = toy, (2, 2, 2), True
    assert digest(render_turntable(scene, toy, tmp_path / "after", SMALL)) == before


@pytest.mark.parametrize("linked", [False, True])
def test_another_blender_renders_the_object_with_its_children(
    linked: bool, scene: Any, toy: Any, tmp_path: Path
) -> None:
    if linked:
        (tmp_path / "props").mkdir()
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "props" / "toy.blend"))
        bpy.ops.wm.read_homefile(use_empty=True)
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
        with bpy.data.libraries.load(str(tmp_path / "props" / "toy.blend"), link=True, relative=True) as (_, wanted):
            wanted.objects = ["Body", "Nose"]
        toy, scene = wanted.objects[0], bpy.context.scene
    request = specs._library(scene, toy, tmp_path / "job", 32)
    assert request.collection not in bpy.data.collections
    bpy.ops.wm.read_homefile(use_empty=True)
    task = request.blend, request.collection, request.frame, request.size, str(tmp_path / "pictures")
    (image, mask), *others = render_library(*task, lambda done, total: None)
    assert len(others) == 7
    assert blue_share(TrainingPicture(Path(image), Path(mask))) > 0.05, "its child, in front"


def test_the_users_scene_is_unchanged(scene: Any, toy: Any, tmp_path: Path) -> None:
    scene.frame_set(7)
    before = counts(), scene.frame_current, scene.render.engine, [(o.name, o.hide_render) for o in scene.objects]
    told = []
    render_turntable(scene, toy, tmp_path, SMALL, lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert (
        counts(),
        scene.frame_current,
        scene.render.engine,
        [(o.name, o.hide_render) for o in scene.objects],
    ) == before
    assert bpy.context.scene == scene


def test_an_object_without_a_surface_is_refused_and_nothing_is_left(scene: Any, tmp_path: Path) -> None:
    empty = bpy.data.objects.new("Empty", None)
    scene.collection.objects.link(empty)
    before = counts()
    with refused(InvalidInput, object="Empty"):
        render_turntable(scene, empty, tmp_path, SMALL)
    assert counts() == before


def test_half_covered_pixels_are_half_background() -> None:
    rgba = np.array([[[200, 100, 0, 128], [200, 100, 0, 0], [200, 100, 0, 255]]], np.uint8)
    over = composite(rgba, np.full((1, 3, 3), 50, np.uint8))
    assert over.tolist() == [[[125, 75, 25], [50, 50, 50], [200, 100, 0]]]


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_pngs_have_the_pixels_that_were_written(shape: tuple[int, ...], tmp_path: Path) -> None:
    written = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    write_png(tmp_path / "a.png", written)
    assert (pixels(tmp_path / "a.png") == written).all()


def test_varied_backgrounds_differ() -> None:
    first, second = (varied_background(np.random.default_rng(seed), 64) for seed in (1, 2))
    assert np.abs(first.astype(int) - second).mean() > 10
