"""Takes, strips and clips stay together through save, save as, pack, move, undo and crash; each looked at by a Blender
of its own that opens what was written."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth.generation.video import write_clip  # noqa: E402
from motionbooth_addon import compat, files, user_data  # noqa: E402
from motionbooth_addon._protocol.jobs import GenerateSpec  # noqa: E402
from motionbooth_addon._protocol.motion import CameraPath, Shot  # noqa: E402
from motionbooth_addon.job_store import JobRecord, TrainRequest  # noqa: E402
from motionbooth_addon.jobs import controller  # noqa: E402
from motionbooth_addon.preferences import preferences  # noqa: E402
from motionbooth_addon.timeline import clips, takes  # noqa: E402
from motionbooth_addon.ui_state import state  # noqa: E402

# Opens a file without the extension: what a render farm sees.
LOOK = """
import bpy, json, os, sys
bpy.ops.wm.open_mainfile(filepath=sys.argv[1])
editor = bpy.context.scene.sequence_editor
strips = editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all
seen = [[s.filepath, os.path.isfile(bpy.path.abspath(s.filepath))] for s in strips if s.type == "MOVIE"]
print("SEEN" + json.dumps(seen))
"""
# Opens it with the extension, and says where each take's clip is, and each strip's.
OPEN = """
import bpy, json, sys
import motionbooth_addon
motionbooth_addon.register()
from motionbooth_addon.timeline import clips
bpy.ops.wm.open_mainfile(filepath=sys.argv[1])
scene = bpy.context.scene
seen = []
for take in scene.motionbooth.takes:
    strip = clips.strip_of(scene, take.job_id)
    seen.append([str(clips.clip_of(take)), str(clips.absolute(strip.filepath)), strip.frame_final_duration])
print("SEEN" + json.dumps(seen))
"""
Pump = Callable[..., None]


def seen(script: str, blend: Path) -> Any:
    done = subprocess.run([sys.executable, "-c", script, str(blend)], capture_output=True, text=True, timeout=120)
    lines = [line for line in done.stdout.splitlines() if line.startswith("SEEN")]
    assert lines, done.stdout + done.stderr
    return json.loads(lines[-1].removeprefix("SEEN"))


def make_clip(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_clip(path, np.full((24, 32, 48, 3), 128, np.uint8), 24)
    path.with_suffix(".report.json").write_text("{}")
    return path


def place(scene: Any, clip: Path, job: str = "a" * 32) -> Any:
    shot = Shot("Shot", 1, 24, 24.0, 48, 32, CameraPath.still(8))
    takes.place_take(scene, job, GenerateSpec(shot=shot, prompt="a dog", model="toybox", seed=1), clip)
    return scene.motionbooth.takes[-1]


@pytest.fixture
def unsaved(at_work: Any, scene: Any) -> Any:
    """A scene that was never saved, with a take."""
    bpy.ops.wm.read_homefile(use_empty=True)
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, 24
    place(scene, make_clip(files.unsaved_clips() / "take.mp4"))
    return scene


@pytest.mark.parametrize("remap", [True, False])
def test_the_first_save_copies_the_clip_beside_the_file(remap: bool, unsaved: Any, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "project" / "a.blend"), relative_remap=remap)
    assert seen(LOOK, tmp_path / "project" / "a.blend") == [["//motionbooth/take.mp4", True]]
    (take,) = bpy.context.scene.motionbooth.takes
    assert take.clip_path == "//motionbooth/take.mp4"
    assert clips.strip_of(bpy.context.scene, take.job_id).filepath == "//motionbooth/take.mp4"
    assert (tmp_path / "project" / "motionbooth" / "take.report.json").is_file()
    # The whole folder goes to another machine, where there is nothing else.
    (tmp_path / "project").rename(tmp_path / "elsewhere")
    shutil.rmtree(files.unsaved_clips())
    clip = str(tmp_path / "elsewhere" / "motionbooth" / "take.mp4")
    assert seen(OPEN, tmp_path / "elsewhere" / "a.blend") == [[clip, clip, 24]]


def test_a_saved_copy_gets_the_clip_and_the_unsaved_file_keeps_its_path(unsaved: Any, tmp_path: Path) -> None:
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "copy.blend"), copy=True)
    assert seen(LOOK, tmp_path / "copy.blend") == [["//motionbooth/take.mp4", True]]
    (take,) = bpy.context.scene.motionbooth.takes
    assert bpy.data.filepath == ""
    own = (files.unsaved_clips() / "take.mp4").resolve()
    assert clips.clip_of(take) == own
    assert clips.absolute(clips.strip_of(bpy.context.scene, take.job_id).filepath) == own
    assert own.is_file()


@pytest.mark.parametrize("remap", [True, False])
def test_after_save_as_elsewhere_takes_and_strips_show_the_same_clip(
    remap: bool, at_work: Any, scene: Any, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "motionbooth" / "take.mp4").resolve()
    place(scene, clip)
    bpy.ops.wm.save_mainfile()
    (tmp_path / "other" / "deep").mkdir(parents=True)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "other" / "deep" / "b.blend"), relative_remap=remap)
    (take,) = bpy.context.scene.motionbooth.takes
    assert take.clip_path == "//../../motionbooth/take.mp4"
    assert clips.clip_of(take) == clip
    # Where paths are not remapped at the user's wish, Blender loses the strip; the extension finds it when it opens it.
    assert seen(OPEN, tmp_path / "other" / "deep" / "b.blend") == [[str(clip), str(clip), 24]]
    if remap:
        assert seen(LOOK, tmp_path / "other" / "deep" / "b.blend") == [["//../../motionbooth/take.mp4", True]]
    assert seen(OPEN, tmp_path / "shot.blend") == [[str(clip), str(clip), 24]], "and the first file is as it was"


def test_saving_a_copy_elsewhere_does_not_change_the_open_file(at_work: Any, scene: Any, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "motionbooth" / "take.mp4").resolve()
    take = place(scene, clip)
    (tmp_path / "other").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "other" / "b.blend"), copy=True)
    assert take.clip_path == "//motionbooth/take.mp4"
    assert seen(OPEN, tmp_path / "other" / "b.blend") == [[str(clip), str(clip), 24]]


def test_a_failed_save_does_not_change_the_open_file(unsaved: Any, tmp_path: Path) -> None:
    (tmp_path / "a.blend@").mkdir()  # where Blender writes first
    (tmp_path / "a.blend").mkdir()
    with pytest.raises(RuntimeError):
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    (take,) = bpy.context.scene.motionbooth.takes
    assert clips.clip_of(take) == (files.unsaved_clips() / "take.mp4").resolve()


def test_if_the_folder_is_not_writable_the_clip_stays_and_an_error_says_so(unsaved: Any, tmp_path: Path) -> None:
    (tmp_path / "motionbooth").write_text("a file where the clips' folder should be")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    (take,) = bpy.context.scene.motionbooth.takes
    assert clips.clip_of(take) == (files.unsaved_clips() / "take.mp4").resolve()
    assert "cannot be copied to" in state().notice
    assert [there for _, there in seen(LOOK, tmp_path / "a.blend")] == [True]


def test_packing_and_making_paths_absolute_lose_no_clip(at_work: Any, scene: Any, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "motionbooth" / "take.mp4").resolve()
    place(scene, clip)
    bpy.ops.wm.save_mainfile()
    bpy.ops.file.pack_all()
    bpy.ops.file.make_paths_absolute()
    bpy.ops.wm.save_mainfile()
    assert seen(OPEN, tmp_path / "shot.blend") == [[str(clip), str(clip), 24]]
    bpy.ops.file.make_paths_relative()
    bpy.ops.wm.save_mainfile()
    assert seen(LOOK, tmp_path / "shot.blend") == [["//motionbooth/take.mp4", True]]


def test_a_file_that_was_moved_without_its_clip_folder_finds_its_clips(
    at_work: Any, scene: Any, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "first" / "motionbooth" / "take.mp4")
    place(scene, clip)
    (tmp_path / "b").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "b" / "b.blend"))
    shutil.move(tmp_path / "first" / "motionbooth", tmp_path / "b" / "motionbooth")
    found = str((tmp_path / "b" / "motionbooth" / "take.mp4").resolve())
    assert seen(OPEN, tmp_path / "b" / "b.blend") == [[found, found, 24]]


def test_images_and_camera_backgrounds_of_a_take_move_with_its_clip(unsaved: Any, tmp_path: Path) -> None:
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    unsaved.collection.objects.link(camera)
    unsaved.camera = camera
    unsaved.render.resolution_x, unsaved.render.resolution_y = 48, 32
    bpy.ops.motionbooth.take_as_background()
    bpy.ops.motionbooth.take_as_images()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    shutil.rmtree(files.unsaved_clips())
    (background,) = camera.data.background_images
    assert background.image.filepath == "//motionbooth/take.mp4"
    (pictures,) = [strip for strip in compat.strips(bpy.context.scene.sequence_editor) if strip.type == "IMAGE"]
    assert (Path(bpy.path.abspath(pictures.directory)) / pictures.elements[23].filename).is_file()


def test_a_strip_inside_a_meta_strip_is_found(unsaved: Any, tmp_path: Path) -> None:
    take = unsaved.motionbooth.takes[0]
    editor = unsaved.sequence_editor
    meta = compat.strips(editor).new_meta("meta", 5, 1)
    clips.strip_of(unsaved, take.job_id).move_to_meta(meta)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "a.blend"))
    assert seen(LOOK, tmp_path / "a.blend") == [["//motionbooth/take.mp4", True]]
    bpy.ops.motionbooth.remove_take(index=0)
    assert clips.strip_of(bpy.context.scene, "a" * 32) is None


# Jobs, with a real backend


@pytest.fixture
def shot(connected: Any, scene: Any) -> Any:
    """A saved scene that is ready for Generate."""
    bpy.ops.motionbooth.add_subject_box()
    subject = scene.motionbooth.subjects[0]
    subject.class_word, subject.token = "dog", ""
    bpy.ops.motionbooth.add_to_prompt()
    takes.shot_id(scene)
    bpy.ops.wm.save_mainfile()
    return scene


def film(pump: Pump) -> str:
    """The job, once its take is on the timeline."""
    bpy.ops.motionbooth.generate()
    pump(lambda: len(bpy.context.scene.motionbooth.takes) == 1)
    return bpy.context.scene.motionbooth.takes[0].job_id


# Another Blender: connects, films, and is killed as soon as the take is on the timeline.
FILM_AND_CRASH = """
import os, signal, sys, time
import bpy, motionbooth_addon
motionbooth_addon.register()
bpy.context.preferences.addons.new().module = "motionbooth_addon"
from motionbooth_addon.preferences import preferences
from motionbooth_addon.jobs.controller import job_controller
from motionbooth_addon.ui_state import state
preferences().connection_file = sys.argv[2]
bpy.ops.wm.open_mainfile(filepath=sys.argv[1])
ends = time.monotonic() + 60
def pump(until):
    while not until():
        assert time.monotonic() < ends
        time.sleep(job_controller().tick() / 5)
pump(lambda: state().connection == "CONNECTED")
bpy.ops.motionbooth.generate()
pump(lambda: len(bpy.context.scene.motionbooth.takes) == 1)
print("SEEN1", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_take_that_was_placed_and_lost_in_a_crash_is_placed_again(
    shot: Any, connected: Any, pump: Pump, tmp_path: Path
) -> None:
    connected.close()
    connection = preferences().connection_file
    blend = str(tmp_path / "shot.blend")
    crashed = subprocess.run([sys.executable, "-c", FILM_AND_CRASH, blend, connection], capture_output=True, text=True)
    assert crashed.returncode == -signal.SIGKILL, crashed.stderr
    assert "SEEN1" in crashed.stdout
    controller._controller = again = controller.JobController(connected.data)
    bpy.ops.wm.open_mainfile(filepath=blend)
    assert len(bpy.context.scene.motionbooth.takes) == 0

    def placed() -> int:
        again.tick()
        return len(bpy.context.scene.motionbooth.takes)

    pump(placed)
    bpy.ops.wm.save_mainfile()
    assert [clip == strip for clip, strip, _ in seen(OPEN, tmp_path / "shot.blend")] == [True]


def test_an_unsaved_take_is_placed_again_and_a_removed_one_is_not(shot: Any, pump: Pump) -> None:
    job = film(pump)
    bpy.ops.wm.revert_mainfile()
    assert len(bpy.context.scene.motionbooth.takes) == 0
    pump(lambda: [take.job_id for take in bpy.context.scene.motionbooth.takes] == [job])
    bpy.ops.motionbooth.remove_take(index=0)
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.revert_mainfile()
    for _ in range(10):
        controller.job_controller().tick()
    assert len(bpy.context.scene.motionbooth.takes) == 0
    bpy.ops.motionbooth.place_result()
    pump(lambda: [take.job_id for take in bpy.context.scene.motionbooth.takes] == [job])
    bpy.ops.motionbooth.place_result()
    for _ in range(10):
        controller.job_controller().tick()
    assert len(bpy.context.scene.motionbooth.takes) == 1, "the same take is not there twice"


def test_saving_a_copy_does_not_count_as_saving_the_open_file(
    shot: Any, connected: Any, pump: Pump, tmp_path: Path
) -> None:
    job = film(pump)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "copy.blend"), copy=True)
    assert not connected.store.records[job].placed
    bpy.ops.wm.save_mainfile()
    assert connected.store.records[job].placed


def test_a_deleted_clip_is_downloaded_from_the_backend_again(
    shot: Any, connected: Any, pump: Pump, tmp_path: Path
) -> None:
    film(pump)
    bpy.ops.wm.save_mainfile()
    clip = clips.clip_of(bpy.context.scene.motionbooth.takes[0])
    content = clip.read_bytes()
    clip.unlink()
    bpy.ops.wm.revert_mainfile()
    pump(clip.is_file)
    assert clip.read_bytes() == content
    for _ in range(10):
        controller.job_controller().tick()
    assert len(bpy.context.scene.motionbooth.takes) == 1
    # And where its strip is gone, too, it comes when the take is shown.
    clip.unlink()
    compat.remove_strip(bpy.context.scene.sequence_editor, clips.strip_of(bpy.context.scene, _job()))
    bpy.ops.motionbooth.activate_take(index=0)
    pump(lambda: clips.strip_of(bpy.context.scene, _job()) is not None)
    assert clip.is_file()


def _job() -> str:
    return bpy.context.scene.motionbooth.takes[0].job_id


def test_the_take_of_an_unsaved_file_can_be_placed_in_another_scene(
    connected: Any, shot: Any, pump: Pump, tmp_path: Path
) -> None:
    bpy.ops.wm.read_homefile(use_empty=True)
    scene = bpy.context.scene
    scene.camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    scene.collection.objects.link(scene.camera)
    scene.frame_end = 24
    bpy.ops.motionbooth.add_subject_box()
    scene.motionbooth.subjects[0].class_word, scene.motionbooth.subjects[0].token = "dog", ""
    bpy.ops.motionbooth.add_to_prompt()
    job = film(pump)
    assert clips.clip_of(scene.motionbooth.takes[0]).parent == files.unsaved_clips().resolve()
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert job not in [row.job for row in state().jobs]
    state().all_files = True
    bpy.ops.motionbooth.place_result(job=job)
    pump(lambda: [take.job_id for take in bpy.context.scene.motionbooth.takes] == [job])
    bpy.ops.wm.save_mainfile()
    assert seen(LOOK, tmp_path / "shot.blend") == [[f"//motionbooth/{_name()}", True]]
    # The next Blender tidies up: the clip is with its .blend now.
    assert (files.unsaved_clips() / _name()).is_file()
    state().all_files = False
    controller.JobController(connected.data)
    assert not (files.unsaved_clips() / _name()).exists()
    assert clips.clip_of(bpy.context.scene.motionbooth.takes[0]).is_file()


def _name() -> str:
    return clips.clip_of(bpy.context.scene.motionbooth.takes[0]).name


def test_without_a_clip_folder_the_default_is_used(at_work: Any, tmp_path: Path) -> None:
    """Not the folder in which Blender was started."""
    assert files.clip_folder("", "") == files.unsaved_clips()
    assert files.clip_folder("", str(tmp_path / "a.blend")) == tmp_path.resolve() / "motionbooth"


def test_the_clip_of_a_data_folder_behind_a_link_is_not_taken_for_a_copy(
    at_work: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a save that could not copy it, its record has the path without links."""
    (tmp_path / "link").symlink_to(tmp_path / "user", target_is_directory=True)
    clip = tmp_path / "user" / "motionbooth" / "blender" / "clips" / "take.mp4"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(b"a clip")
    record = JobRecord(
        id="a" * 32, request=TrainRequest("Imp", "sks", "toy", "toybox"), title="Imp", created=1.0, backend="key",
        clip=str(clip.resolve()),
    )  # fmt: skip
    at_work.store.put(record)
    monkeypatch.setenv("XDG_DATA_HOME" if sys.platform != "win32" else "LOCALAPPDATA", str(tmp_path / "link"))
    controller.JobController(user_data.data_folder())
    assert clip.is_file()
