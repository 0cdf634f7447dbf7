"""`motionbooth demo` with all its real parts, with few training and sampling steps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from motionbooth.generation.video import read_clip
from motionbooth.models.sources import source_named
from PIL import Image

pytest.importorskip("bpy", reason="the demo needs the bpy module: Python 3.11 or 3.13", exc_type=ImportError)

FRAMES = 48  # of demo.blend
QUICK = ("--training-steps", "2", "--sampling-steps", "4")
READ_STRIPS = """
import bpy, json, sys
bpy.ops.wm.open_mainfile(filepath=sys.argv[1])
scene = bpy.data.scenes["Hop"]
strips = [[s.type, s.filepath, s.frame_final_start, s.frame_final_end] for s in scene.sequence_editor.strips]
print("STRIPS" + json.dumps([strips, [scene.frame_start, scene.frame_end], scene.view_settings.view_transform]))
"""


def start_demo(out: Path, cache: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "motionbooth.cli", "demo", "--out", str(out), *QUICK, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(cache), "COLUMNS": "200"},
    )


def processes_about(path: Path) -> list[str]:
    """Command lines of running processes that name `path`."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(path) in line:
            lines.append(line)
    return lines


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "out"
    process = start_demo(folder, cache)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    assert "motion report" in output
    assert "camera flow error" in output
    assert processes_about(folder) == []
    return folder


@pytest.mark.timeout(1000)
def test_the_demo_writes_all_its_files(out: Path) -> None:
    made = {path.name for path in out.iterdir()}
    assert {"clip.mp4", "shot.blend", "shot.json", "report.json", "contact_sheet.png", "training_pictures"} <= made
    frames, fps = read_clip(out / "clip.mp4")
    assert (len(frames), fps) == (FRAMES, 24.0)
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width > 1000


def test_the_report_measures_the_requested_boxes_and_camera(out: Path) -> None:
    report = json.loads((out / "report.json").read_bytes())
    (asked,) = json.loads((out / "shot.json").read_bytes())["generate"]["shot"]["subjects"]
    (subject,) = report["motion"]["subjects"]
    assert [frame["asked"] for frame in subject["frames"]] == asked["boxes"]
    assert len(report["motion"]["camera"]) == len(asked["boxes"]) - 1
    assert report["seconds"]["training"] > 0


def test_the_clip_fills_the_shots_frame_range_on_the_copys_timeline(out: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ_STRIPS, str(out / "shot.blend")], capture_output=True, text=True, check=True
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("STRIPS")]
    strips, shot_range, view_transform = json.loads(line.removeprefix("STRIPS"))
    assert strips == [["MOVIE", "//clip.mp4", 1, FRAMES + 1]]
    assert shot_range == [1, FRAMES]
    assert view_transform == "AgX"


@pytest.mark.timeout(600)
def test_a_second_run_reuses_the_trained_subject_and_gives_the_same_clip(out: Path, cache: Path) -> None:
    before = (out / "clip.mp4").read_bytes()
    output, _ = start_demo(out, cache).communicate(timeout=500)
    report = json.loads((out / "report.json").read_bytes())
    assert "training" not in report["seconds"], output
    assert (out / "clip.mp4").read_bytes() == before


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_with_a_guide_the_clip_starts_from_the_scenes_render(out: Path, cache: Path, tmp_path: Path) -> None:
    guided = shutil.copytree(out, tmp_path / "out")
    process = start_demo(guided, cache, "--guide")
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output
    guide = json.loads((guided / "shot.json").read_bytes())["generate"]["guide"]
    assert (guide["subject_strength"], guide["background_strength"]) == (0.0, 0.7), "the demo's subject is a box"
    assert (guided / "clip.mp4").read_bytes() != (out / "clip.mp4").read_bytes()
    with Image.open(guided / "contact_sheet.png") as sheet, Image.open(out / "contact_sheet.png") as before:
        assert sheet.height > before.height, "with a row for the render"


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_the_demo_runs_on_the_other_bundled_model_at_its_length_and_size(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "out"
    process = start_demo(folder, cache, "--model", "wantoy")
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0, output
    settings = source_named("wantoy").settings
    sent = json.loads((folder / "shot.json").read_bytes())
    assert {sent["generate"]["model"], sent["train"][0]["model"]} == {"wantoy"}
    (asked,) = sent["generate"]["shot"]["subjects"]
    assert asked["weights"]
    (subject,) = json.loads((folder / "report.json").read_bytes())["motion"]["subjects"]
    assert [frame["asked"] for frame in subject["frames"]] == asked["boxes"]
    assert len(asked["boxes"]) == settings.frames != source_named("toybox").settings.frames
    frames, fps = read_clip(folder / "clip.mp4")
    assert (frames.shape, fps) == ((FRAMES, settings.height, settings.width, 3), 24.0)
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.width > 1000


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("starting Blender", marks=pytest.mark.slow),
        "rendering pictures",
        pytest.param("loading the model", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_leaves_no_process_behind(stage: str, tmp_path: Path, cache: Path) -> None:
    process = start_demo(tmp_path / "out", cache)
    assert process.stdout is not None
    for line in process.stdout:
        if stage in line:
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode not in (0, 2)
    assert "Traceback" not in output
    assert processes_about(tmp_path) == []


def test_a_missing_scene_gives_a_message_and_exit_status_2(tmp_path: Path, cache: Path) -> None:
    process = start_demo(tmp_path / "out", cache, "--scene", str(tmp_path / "nothing.blend"))
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 2
    assert "There is no file" in output
    assert "Traceback" not in output
    assert processes_about(tmp_path) == []
