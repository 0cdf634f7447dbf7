"""The batch command for many files, against the real server and a model that draws."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth.cli.demo import DEMO_SCENE  # noqa: E402
from motionbooth_addon import compat  # noqa: E402
from motionbooth_protocol.client import Client  # noqa: E402
from motionbooth_protocol.connection import Connection  # noqa: E402

CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"  # as a .blend can make Blender do


@pytest.fixture(scope="module")
def files(registered: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one.blend, two.blend (two scenes) and broken.blend; their subjects are the model's own."""
    folder = tmp_path_factory.mktemp("files")
    bpy.ops.wm.open_mainfile(filepath=str(DEMO_SCENE))
    scene = bpy.context.scene
    scene.motionbooth.subjects[0].token = ""
    scene.motionbooth.prompt = "a toy on the grass"
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "one.blend"), copy=True)
    second = scene.copy()
    second.name, second.use_fake_user = "Again", True
    second.frame_start, second.frame_end = 10, 33
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "two.blend"), copy=True)
    (folder / "broken.blend").write_bytes(b"no blend")
    return folder


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "motionbooth.cli", "batch", *map(str, arguments)]


def run(*arguments: object) -> tuple[int, str]:
    """Exit status and what was printed."""
    process = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=200)
    return process.returncode, process.stdout


def jobs(connection_file: Path) -> list[Any]:
    with Client(Connection.read(connection_file)) as client:
        return client.jobs()


def strips_of(blend: Path) -> dict[str, list[tuple[int, int]]]:
    bpy.ops.wm.open_mainfile(filepath=str(blend))
    return {
        scene.name: [compat.strip_range(strip) for strip in compat.strips(scene.sequence_editor)]
        for scene in bpy.data.scenes
    }


def test_every_shot_of_every_file_is_generated_in_spite_of_a_broken_file(
    files: Path, connection_file: Path, tmp_path: Path
) -> None:
    given = [files / name for name in ("broken.blend", "one.blend", "two.blend")]
    before = [file.read_bytes() for file in given]
    options = ["--connection", connection_file, "--out", tmp_path, "--master", "exr"]
    status, printed = run(*given, *options)
    assert status == 1
    assert re.search(r"broken.blend .* failed .* cannot open", printed)
    assert "shots: 3; files: 3, of which failed: 1" in printed
    assert [file.read_bytes() for file in given] == before, "copies are made"
    assert strips_of(tmp_path / "one" / "shot.blend") == {"Hop": [(1, 48)]}
    assert strips_of(tmp_path / "two" / "shot.blend") == {"Hop": [(1, 48)], "Again": [(10, 33)]}
    master = tmp_path / "two" / "Again" / "clip"
    assert sorted(picture.name for picture in master.iterdir()) == [f"clip_00{frame}.exr" for frame in range(10, 34)]
    done = json.loads((tmp_path / "two" / "result.json").read_text())["done"]
    assert {shot["scene"]: shot["master"] for shot in done["shots"]}["Again"] == str(master)
    assert bpy.data.scenes["Again"].motionbooth.takes[0].master_path == "//Again/clip"

    # A second call keeps what is done, and a lost clip is made again.
    sent = len(jobs(connection_file))
    (tmp_path / "two" / "Again" / "clip.mp4").unlink()
    status, printed = run(*given[1:], *options)
    assert status == 0
    assert re.search(r"one.blend +Hop +1-48 +done before", printed)
    assert re.search(r"two.blend +Again +10-33 +done ", printed)
    assert (tmp_path / "two" / "Again" / "clip.mp4").is_file()
    assert len(jobs(connection_file)) == sent + 2


def test_with_in_place_the_file_itself_gets_the_strips_once(files: Path, connection_file: Path, tmp_path: Path) -> None:
    blend = Path(shutil.copy(files / "one.blend", tmp_path))
    bpy.ops.wm.open_mainfile(filepath=str(blend))
    settings = bpy.data.scenes["Hop"].motionbooth
    settings.model = "wantoy"
    own = settings.master, settings.long_shot, settings.model
    assert own == ("NONE", "WINDOWS", "wantoy")
    bpy.ops.wm.save_mainfile()
    options = ["--connection", connection_file, "--out", tmp_path / "out", "--in-place"]
    options += ["--master", "png", "--long-shot", "spread", "--model", "toybox"]
    assert run(blend, *options)[0] == 0
    assert run(blend, *options)[0] == 0
    assert strips_of(blend) == {"Hop": [(1, 48)]}
    settings = bpy.data.scenes["Hop"].motionbooth
    assert (settings.master, settings.long_shot, settings.model) == own, "the options are for this run alone"
    assert settings.takes[0].master_path
    assert not (tmp_path / "out" / "one" / "shot.blend").exists()


def test_a_dry_run_validates_every_file_without_a_backend(files: Path, tmp_path: Path) -> None:
    status, printed = run(files / "one.blend", files / "two.blend", "--out", tmp_path, "--dry-run")
    assert status == 0
    assert len(re.findall(" checked ", printed)) == 3
    assert not list(tmp_path.rglob("*.mp4"))


def test_a_missing_file_is_refused_before_anything_is_started(files: Path, tmp_path: Path) -> None:
    words = map(str, command(files / "one.blend", "typo.blend", "--out", tmp_path / "o"))
    refused = subprocess.run([*words], capture_output=True, text=True, timeout=100)
    assert refused.returncode == 2
    assert "there is no file typo.blend; nothing was started" in refused.stderr
    assert not (tmp_path / "o").exists()


def test_a_crash_of_blender_is_reported_with_its_log(tmp_path: Path) -> None:
    from motionbooth_addon.batch import runner

    blend = tmp_path / "one.blend"
    blend.write_bytes(b"")
    wanted = runner.parser(tmp_path / "none.json").parse_args([str(blend), "--out", str(tmp_path / "out")])
    (outcome,) = runner.Batch(wanted, [sys.executable, "-c", CRASH]).run()
    assert outcome.error is not None
    assert outcome.error.values["status"] == -11
    assert (tmp_path / "out" / "one" / "blender.log").exists()


def test_an_interrupted_batch_cancels_its_jobs(files: Path, connection_file: Path, tmp_path: Path) -> None:
    options = ["--connection", connection_file, "--out", tmp_path, "--seed", 999]  # which takes a minute
    process = subprocess.Popen(command(files / "one.blend", *options), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if "sampling" in line:
                break
        process.send_signal(signal.SIGINT)
        subprocess.run(["pkill", "-INT", "-P", str(process.pid)], check=True)  # as a terminal would
        assert process.wait(30) == 130
    newest = jobs(connection_file)[0]
    deadline = time.monotonic() + 60  # the worker ends at its next step, which a busy machine delays
    while newest.state != "canceled" and time.monotonic() < deadline:
        time.sleep(0.1)
        newest = jobs(connection_file)[0]
    assert newest.state == "canceled"


def test_equal_file_and_scene_names_get_separate_folders(registered: Any, tmp_path: Path) -> None:
    bpy.ops.wm.open_mainfile(filepath=str(DEMO_SCENE))
    bpy.context.scene.name = "Hop A"
    second = bpy.context.scene.copy()
    second.name, second.use_fake_user = "Hop:A", True
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / folder / "shot.blend"), copy=True)
    blends = [tmp_path / "a" / "shot.blend", tmp_path / "b" / "shot.blend"]
    assert run(*blends, "--out", tmp_path / "out", "--dry-run")[0] == 0
    sent = sorted((tmp_path / "out").rglob("shot.json"))
    assert [str(path.parent.relative_to(tmp_path / "out")) for path in sent] == [
        "shot/Hop_A",
        "shot/Hop_A_2",
        "shot_2/Hop_A",
        "shot_2/Hop_A_2",
    ]


def test_blenders_command_prints_its_usage(registered: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from motionbooth_addon.batch import blender_command

    assert blender_command.execute([]) == 0
    assert blender_command.execute(["nonsense"]) == 2
    assert "batch FILE.blend" in capsys.readouterr().out


@pytest.mark.slow
def test_a_subject_shared_by_two_files_is_trained_once(registered: Any, connection_file: Path, tmp_path: Path) -> None:
    """Two Blenders render the same pictures to the last bit, so that their requests are equal."""
    bpy.ops.wm.open_mainfile(filepath=str(DEMO_SCENE))
    bpy.context.scene.motionbooth.seed = 1
    for name in ("first", "second"):
        bpy.context.scene.motionbooth.seed += 1
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / f"{name}.blend"), copy=True)
    before = {job.id for job in jobs(connection_file)}
    options = ["--connection", connection_file, "--out", tmp_path / "out", "--jobs", 2]
    status, printed = run(tmp_path / "first.blend", tmp_path / "second.blend", *options)
    assert status == 0, printed
    first, second = (json.loads((tmp_path / "out" / name / "shot.json").read_text()) for name in ("first", "second"))
    assert first["train"] == second["train"]
    weights = [sent["generate"]["shot"]["subjects"][0]["weights"] for sent in (first, second)]
    assert weights[0] == weights[1]
    trained = [job for job in jobs(connection_file) if job.kind == "train" and job.id not in before]
    assert sorted(job.attempt for job in trained) == [0, 1], "of two jobs one ran, and the other was answered from it"
