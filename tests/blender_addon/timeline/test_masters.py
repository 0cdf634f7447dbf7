"""Blender shows each master in the clip's own colors; a take names its master, and converts to it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from refused import refused

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth.generation.masters import write_master  # noqa: E402
from motionbooth.generation.video import write_clip  # noqa: E402
from motionbooth_addon import files  # noqa: E402
from motionbooth_addon._protocol.errors import InvalidInput  # noqa: E402
from motionbooth_addon._protocol.jobs import GenerateSpec  # noqa: E402
from motionbooth_addon._protocol.masters import Master  # noqa: E402
from motionbooth_addon._protocol.motion import CameraPath, Shot  # noqa: E402
from motionbooth_addon.jobs.masters import unpack  # noqa: E402
from motionbooth_addon.timeline import clips, colors, image_sequence, strips, takes  # noqa: E402
from motionbooth_addon.ui_state import state  # noqa: E402

# Saturated, dark, bright and grey patches, which move one to the right with each frame.
PATCHES = np.array(
    [
        [(220, 20, 30), (20, 200, 60), (30, 50, 230), (240, 220, 30)],
        [(0, 0, 0), (90, 90, 90), (180, 180, 180), (255, 255, 255)],
    ],
    np.uint8,
)
SHOT = Shot("Shot", 1, 8, 24.0, 256, 128, CameraPath.still(4))
# Of 255: half a level in 10 bits and limited range, of brightness and of color. Blender 4.3 reads only 8 bits.
ROUNDING = 0.5 if bpy.app.version >= (5, 0, 0) else 1.0


def make_take(scene: Any, folder: Path, master: Master) -> Any:
    frames = np.stack([np.roll(PATCHES, step, axis=1).repeat(64, axis=0).repeat(64, axis=1) for step in range(4)])
    clip = folder / "clip.mp4"
    write_clip(clip, frames, SHOT.fps, SHOT.scene_frames)
    write_master(master, clip, frames.astype(np.float32) / 255, SHOT)
    scene.frame_start, scene.frame_end = 1, 8
    scene.render.resolution_x, scene.render.resolution_y = 256, 128
    colors.show_exact_colors(scene)
    takes.place_take(scene, "a" * 32, GenerateSpec(SHOT, "a dog", master=master), clip)
    return scene.motionbooth.takes[-1]


def rendered(scene: Any, frame: int, path: Path) -> np.ndarray:
    """The colors of the patches (2, 4, 3), 0..255."""
    scene.frame_set(frame)
    scene.render.image_settings.file_format, scene.render.image_settings.color_depth = "PNG", "16"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., 2::-1] / 257
    height, width = picture.shape[:2]
    return picture[height // 4 :: height // 2, width // 8 :: width // 4]


@pytest.mark.parametrize("master", Master)
def test_blender_shows_a_master_in_the_clips_colors(master: Master, scene: Any, tmp_path: Path) -> None:
    take = make_take(scene, tmp_path, master)
    if master.is_sequence:
        for _ in image_sequence.write_images(scene, 0):
            pass
        strip = next(strip for strip in scene.sequence_editor.strips if strip.type == "IMAGE")
        assert strip.elements[0].filename.endswith(master.suffix), "the master, not a copy of the mp4"
    else:
        clips.strip_of(scene, take.job_id).mute = True
        strips.place_clip(scene, takes.master_of(take), "master", 1, 8)
    for frame, step in ((1, 0), (8, 3)):
        found = rendered(scene, frame, tmp_path / f"{frame}.png")
        assert np.abs(found - np.roll(PATCHES, step, axis=1)).max() <= ROUNDING, frame


def test_a_conversion_whose_scene_was_undone_in_another_window_ends(scene: Any, tmp_path: Path) -> None:
    make_take(scene, tmp_path, Master.PRORES)
    before = set(bpy.data.scenes)
    writing = image_sequence.write_images(scene, 0)
    next(writing)
    (renderer,) = set(bpy.data.scenes) - before
    bpy.data.scenes.remove(renderer)
    writing.close()


def test_a_movie_master_becomes_images_in_16_bits(scene: Any, tmp_path: Path) -> None:
    make_take(scene, tmp_path, Master.FFV1)
    for _ in image_sequence.write_images(scene, 0):
        pass
    picture = cv2.imread(str(tmp_path / "clip" / "clip_0001.png"), cv2.IMREAD_UNCHANGED)
    assert picture.dtype == np.uint16
    assert np.abs(picture[32::64, 32::64, 2::-1] / 257 - PATCHES).max() <= ROUNDING


@pytest.mark.parametrize("master", [Master.PRORES, Master.PNG])
def test_a_master_moves_with_its_take(master: Master, at_work: Any, scene: Any, tmp_path: Path) -> None:
    bpy.ops.wm.read_homefile(use_empty=True)  # a file that was never saved
    scene = bpy.context.scene
    files.unsaved_clips().mkdir(parents=True)
    take = make_take(scene, files.unsaved_clips(), master)
    before = takes.master_of(take)
    assert take.master_path == str(before), "absolute"
    if master is Master.PRORES:
        strips.place_clip(scene, before, "master", 1, 8)
    else:
        bpy.ops.motionbooth.take_as_images()
    (tmp_path / "project").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "project" / "a.blend"))
    (take,) = scene.motionbooth.takes
    name = "clip.mov" if master is Master.PRORES else "clip"
    assert take.master_path == f"//motionbooth/{name}"
    placed = next(strip for strip in scene.sequence_editor.strips if strip.name in ("master", "Shot take 1 pictures"))
    path = placed.filepath if master is Master.PRORES else placed.directory
    assert path.rstrip("/") == f"//motionbooth/{name}"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "b.blend"))
    assert take.master_path == f"//project/motionbooth/{name}"


@pytest.fixture
def shot(connected: Any, scene: Any) -> Any:
    """A saved scene of four frames, ready for Generate with an EXR master."""
    bpy.ops.motionbooth.add_subject_box()
    subject = scene.motionbooth.subjects[0]
    subject.class_word, subject.token = "dog", ""
    bpy.ops.motionbooth.add_to_prompt()
    scene.frame_start, scene.frame_end = 10, 13
    scene.motionbooth.master = "exr"
    return scene


def test_a_sequence_arrives_beside_the_clip_is_fetched_again_and_restored(
    shot: Any, pump: Callable[..., None], tmp_path: Path
) -> None:
    bpy.ops.motionbooth.generate()
    pump(lambda: len(shot.motionbooth.takes) == 1)
    (take,) = shot.motionbooth.takes
    folder = takes.master_of(take)
    pictures = sorted(folder.iterdir())
    assert [picture.name for picture in pictures] == [f"{folder.name}_00{frame}.exr" for frame in range(10, 14)]
    assert sorted(path.suffix for path in folder.parent.iterdir()) == ["", ".mp4"], "the zip is gone"
    assert state().notice.startswith("Placed"), state().notice
    pictures[0].unlink()
    folder.rename(tmp_path / "away")
    assert take.master_path == ""
    bpy.ops.motionbooth.place_result()
    pump(lambda: takes.master_of(shot.motionbooth.takes[0]) is not None)
    assert pictures[0].is_file()
    shot.motionbooth.master = "NONE"
    bpy.ops.motionbooth.restore_take_settings(index=0)
    assert shot.motionbooth.master == "exr"


def test_a_take_whose_master_cannot_be_written_is_placed_and_says_so(
    shot: Any, pump: Callable[..., None], connected: Any, tmp_path: Path
) -> None:
    bpy.ops.motionbooth.generate()
    (record,) = connected.store.records.values()
    (tmp_path / "motionbooth").mkdir()
    (tmp_path / "motionbooth" / f"{bpy.path.clean_name(record.title)}_{record.id[:8]}").write_text("in the way")
    pump(lambda: "master was not fetched" in state().notice)
    assert len(shot.motionbooth.takes) == 1


def test_a_zip_that_is_no_sequence_writes_nothing(tmp_path: Path) -> None:
    contents = {"../0001.png": zipfile.ZIP_STORED, "run.py": zipfile.ZIP_STORED, "0001.png": zipfile.ZIP_DEFLATED}
    for number, (name, compression) in enumerate(contents.items()):
        packed = tmp_path / f"clip{number}.zip"
        with zipfile.ZipFile(packed, "w", compression) as written:
            written.writestr(name, b"0" * 1000)
        with refused(InvalidInput):
            unpack(packed)
    (tmp_path / "clip3.zip").write_bytes(b"no zip")
    with refused(InvalidInput):
        unpack(tmp_path / "clip3.zip")
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".zip"] == []
