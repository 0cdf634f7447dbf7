from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth.video import write_clip  # noqa: E402
from motionbooth_addon import compat, strips  # noqa: E402
from motionbooth_addon._protocol.errors import InvalidInput  # noqa: E402

# Saturated, dark, bright and grey patches: what a view transform shifts most.
PATCHES = np.array(
    [
        [(220, 20, 30), (20, 200, 60), (30, 50, 230), (240, 220, 30)],
        [(0, 0, 0), (90, 90, 90), (180, 180, 180), (255, 255, 255)],
    ],
    np.uint8,
)


def make_clip(path: Path, frames: int, fps: float = 24.0) -> Path:
    picture = PATCHES.repeat(32, axis=0).repeat(24, axis=1)  # 96 x 64
    write_clip(path, np.broadcast_to(picture, (frames, *picture.shape)).copy(), fps)
    return path


def render(scene: Any, path: Path) -> np.ndarray:
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True, scene=scene.name)
    image = bpy.data.images.load(str(path))
    width, height = image.size
    return np.rint(np.array(image.pixels[:]).reshape(height, width, 4)[::-1, :, :3] * 255)


@pytest.mark.parametrize("percentage", [100, 50])
def test_the_clip_comes_out_of_a_render_in_its_own_colours_and_fills_the_frame(
    percentage: int, scene: Any, tmp_path: Path
) -> None:
    assert scene.view_settings.view_transform == "AgX", "what Blender comes with, and what shifts colours"
    scene.render.resolution_percentage = percentage
    strips.place_clip(scene, make_clip(tmp_path / "clip.mp4", 24), "take", 1, 24)
    assert "was AgX and is Standard now" in (strips.show_true_colors(scene) or "")
    scene.frame_set(12)
    picture = render(scene, tmp_path / "frame.png")
    height, width = picture.shape[:2]
    assert (width, height) == (9.6 * percentage, 6.4 * percentage)
    centers = picture[height // 4 :: height // 2, width // 8 :: width // 4]
    assert np.abs(centers - PATCHES).max() <= 4


def test_colours_that_are_true_already_are_left_alone(scene: Any) -> None:
    scene.view_settings.view_transform = "Standard"
    assert strips.show_true_colors(scene) is None


def test_the_strip_fills_exactly_the_range_wherever_it_begins(scene: Any, tmp_path: Path) -> None:
    strip = strips.place_clip(scene, make_clip(tmp_path / "clip.mp4", 31), "take", 100, 130)
    assert compat.strip_range(strip) == (100, 130)


def test_takes_are_stacked_on_free_channels_and_never_move_what_is_there(scene: Any, tmp_path: Path) -> None:
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
    ("spoil", "sentence"),
    [
        (nothing, "is not there"),
        (garbage, "1 readable frames and the shot 24"),
        (one_frame, "1 readable frames"),
        (too_short, "23 readable"),
    ],
)
def test_a_clip_that_does_not_fit_is_an_error_and_no_strip(
    spoil: Callable[[Path], None], sentence: str, scene: Any, tmp_path: Path
) -> None:
    spoil(tmp_path / "clip.mp4")
    with pytest.raises(InvalidInput, match=sentence):
        strips.place_clip(scene, tmp_path / "clip.mp4", "take", 1, 24)
    assert not scene.sequence_editor or len(compat.strips(scene.sequence_editor)) == 0


def test_a_clip_beside_the_blend_has_a_relative_path_and_one_elsewhere_an_absolute_one(
    scene: Any, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 24)
    assert strips.path_for(clip) == str(clip)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert strips.path_for(clip) == "//clip.mp4"
    (tmp_path / "project").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "project" / "shot.blend"))
    assert strips.path_for(clip) == str(clip)
