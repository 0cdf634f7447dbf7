from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refused import refused

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth.generation.video import write_clip  # noqa: E402
from motionbooth_addon import compat  # noqa: E402
from motionbooth_addon._protocol.errors import InvalidInput  # noqa: E402
from motionbooth_addon.timeline import clips, colors, strips  # noqa: E402

# Saturated, dark, bright and grey patches: what a view transform shifts most.
PATCHES = np.array(
    [
        [(220, 20, 30), (20, 200, 60), (30, 50, 230), (240, 220, 30)],
        [(0, 0, 0), (90, 90, 90), (180, 180, 180), (255, 255, 255)],
    ],
    np.uint8,
)

# Of a saturation of at most 0.2: skin, stone, leaves in the shade.
MUTED = np.array(
    [
        [(200, 165, 150), (110, 125, 100), (95, 105, 125), (150, 140, 120)],
        [(0, 0, 0), (90, 90, 90), (180, 180, 180), (255, 255, 255)],
    ],
    np.uint8,
)
CODEC_ERROR = 4  # of 255: H.264 with half as many color samples, which Blender 4.2 also converts less exactly


def make_clip(path: Path, frames: int, patches: np.ndarray = PATCHES) -> Path:
    picture = patches.repeat(32, axis=0).repeat(24, axis=1)  # 96 x 64
    write_clip(path, np.broadcast_to(picture, (frames, *picture.shape)).copy(), 24.0)
    return path


def render(scene: Any, path: Path) -> np.ndarray:
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(str(path))
    width, height = image.size
    return np.rint(np.array(image.pixels[:]).reshape(height, width, 4)[::-1, :, :3] * 255)


def centers(picture: np.ndarray) -> np.ndarray:
    """The colors of the patches."""
    height, width = picture.shape[:2]
    return picture[height // 4 :: height // 2, width // 8 :: width // 4]


def add_sun(scene: Any) -> None:
    sun = bpy.data.objects.new("Sun", bpy.data.lights.new("Sun", "SUN"))
    sun.data.energy, sun.data.color, sun.rotation_euler = 4.0, (1.0, 0.3, 0.1), (0.9, 0.2, 0.3)
    scene.collection.objects.link(sun)
    scene.render.engine, scene.cycles.samples, scene.cycles.use_adaptive_sampling = "CYCLES", 1, False
    scene.render.resolution_percentage = 20


@pytest.mark.parametrize("percentage", [100, 50])
def test_a_render_shows_the_clip_in_its_own_colors_and_full_size(percentage: int, scene: Any, tmp_path: Path) -> None:
    assert scene.view_settings.view_transform == "AgX", "what Blender comes with, and what shifts colors"
    scene.render.resolution_percentage = percentage
    strip = strips.place_clip(scene, make_clip(tmp_path / "clip.mp4", 24), "take", 1, 24)
    changed = colors.show_exact_colors(scene)
    assert changed is not None
    assert changed.values["view"] == "AgX"
    assert strip.colorspace_settings.name == "sRGB"
    scene.frame_set(12)
    picture = render(scene, tmp_path / "frame.png")
    assert picture.shape[1::-1] == (9.6 * percentage, 6.4 * percentage)
    assert np.abs(centers(picture) - PATCHES).max() <= CODEC_ERROR


@pytest.mark.parametrize(
    ("view", "patches"),
    [
        ("Standard", PATCHES),
        ("Raw", PATCHES),
        ("Filmic", PATCHES),
        pytest.param("ACES 2.0", PATCHES, marks=pytest.mark.skipif(bpy.app.version < (5, 0, 0), reason="since 5.0")),
        ("AgX", MUTED),
    ],
)
def test_the_scene_keeps_its_view_transform_and_the_clip_its_colors(
    view: str, patches: np.ndarray, scene: Any, add_cube: Callable[..., Any], tmp_path: Path
) -> None:
    """Renders of the 3D scene before and after, and of the timeline; AgX shows only muted colors exactly."""
    scene.view_settings.view_transform = view
    add_cube(scene)
    add_sun(scene)
    before = render(scene, tmp_path / "before.png")
    assert before.std() > 5, "there is something to be seen"
    strips.place_clip(scene, make_clip(tmp_path / "clip.mp4", 24, patches), "take", 1, 24)
    timeline = render(scene, tmp_path / "timeline.png")
    scene.render.use_sequencer = False
    after = render(scene, tmp_path / "after.png")
    assert scene.view_settings.view_transform == view
    assert np.array_equal(before, after)
    assert np.abs(centers(timeline) - patches).max() <= CODEC_ERROR


def test_a_saturated_color_is_closer_to_the_file_than_without_the_color_space(scene: Any, tmp_path: Path) -> None:
    strip = strips.place_clip(scene, make_clip(tmp_path / "clip.mp4", 24), "take", 1, 24)
    undone = np.abs(centers(render(scene, tmp_path / "undone.png")) - PATCHES)
    strip.colorspace_settings.name = "sRGB"
    plain = np.abs(centers(render(scene, tmp_path / "plain.png")) - PATCHES)
    assert undone.mean() < plain.mean() / 2
    assert colors.color_warning(scene) is not None


def test_a_strip_follows_the_view_transform_unless_the_user_sets_its_color_space(scene: Any, tmp_path: Path) -> None:
    strip = strips.place_clip(scene, make_clip(tmp_path / "clip.mp4", 24), "take", 1, 24)
    assert strip.colorspace_settings.name == "AgX Base sRGB"
    scene.view_settings.view_transform = "Filmic"
    colors.update_color_spaces(scene)
    assert strip.colorspace_settings.name == "Filmic sRGB"
    strip.colorspace_settings.name = "Rec.1886"
    colors.update_color_spaces(scene)
    assert strip.colorspace_settings.name == "Rec.1886"


@pytest.mark.parametrize(("setting", "value"), [("exposure", 1.0), ("gamma", 1.5), ("use_curve_mapping", True)])
def test_a_look_that_no_color_space_inverts_raises_a_warning(setting: str, value: float, scene: Any) -> None:
    scene.view_settings.view_transform = "Standard"
    assert colors.color_warning(scene) is None
    assert colors.show_exact_colors(scene) is None, "there is nothing to change"
    setattr(scene.view_settings, setting, value)
    assert colors.color_warning(scene)
    assert colors.show_exact_colors(scene)
    assert colors.color_warning(scene) is None


def test_the_strip_fills_exactly_the_range_wherever_it_begins(scene: Any, tmp_path: Path) -> None:
    strip = strips.place_clip(scene, make_clip(tmp_path / "clip.mp4", 31), "take", 100, 130)
    assert compat.strip_range(strip) == (100, 130)


def test_takes_are_stacked_on_free_channels_and_move_no_other_strip(scene: Any, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 10)
    first = strips.place_clip(scene, clip, "first", 1, 10)
    overlapping = strips.place_clip(scene, clip, "second", 5, 14)
    elsewhere = strips.place_clip(scene, clip, "third", 30, 39)
    touching = strips.place_clip(scene, clip, "fourth", 39, 48)
    assert [strip.channel for strip in (first, overlapping, elsewhere, touching)] == [1, 2, 1, 2]
    assert [compat.strip_range(strip) for strip in (first, overlapping, elsewhere)] == [(1, 10), (5, 14), (30, 39)]


def nothing(path: Path) -> None:
    path.unlink(missing_ok=True)


def garbage(path: Path) -> None:
    path.write_bytes(b"not a clip" * 100)


def one_frame(path: Path) -> None:
    make_clip(path, 1)


def too_short(path: Path) -> None:
    make_clip(path, 23)


@pytest.mark.parametrize(
    ("spoil", "values"),
    [
        (nothing, {"clip": ...}),
        (garbage, {"found": 1, "expected": 24}),
        (one_frame, {"found": 1, "expected": 24}),
        (too_short, {"found": 23, "expected": 24}),
    ],
)
def test_an_invalid_clip_raises_an_error_and_adds_no_strip(
    spoil: Callable[[Path], None], values: dict[str, Any], scene: Any, tmp_path: Path
) -> None:
    spoil(tmp_path / "clip.mp4")
    with refused(InvalidInput, **values):
        strips.place_clip(scene, tmp_path / "clip.mp4", "take", 1, 24)
    assert not scene.sequence_editor or len(compat.strips(scene.sequence_editor)) == 0


def test_a_clip_below_the_blends_folder_has_a_relative_path_and_others_an_absolute_one(
    scene: Any, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 24)
    assert clips.path_for(clip) == str(clip)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert clips.path_for(clip) == "//clip.mp4"
    (tmp_path / "project").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "project" / "shot.blend"))
    assert clips.path_for(clip) == str(clip)
