"""Batch work in a desktop Blender, from the installed extension."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from drawing_backend import drawing_backend
from motionbooth.cli.demo import DEMO_SCENE

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.desktop


def test_a_subject_is_rendered_trained_and_generated_without_a_window(
    blender: str, environment: dict[str, str], extension_zip: Path, tmp_path: Path
) -> None:
    own = environment | {"BLENDER_USER_RESOURCES": str(tmp_path / "resources"), "XDG_DATA_HOME": str(tmp_path / "data")}

    def run(*command: object) -> str:
        words = [blender, "--python-use-system-env", "--command", *map(str, command)]
        done = subprocess.run(words, cwd=ROOT, env=own, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("extension", "install-file", "--repo", "user_default", "--enable", extension_zip)
    with drawing_backend(tmp_path / "home") as connection:  # its own: others look at the list of subjects
        run("motionbooth", "batch", DEMO_SCENE, "--connection", connection, "--out", tmp_path / "out")
    out = tmp_path / "out" / DEMO_SCENE.stem
    assert (out / "clip.mp4").stat().st_size > 0
    assert len(list((out / "training_pictures" / "Imp").iterdir())) == 16, "eight pictures with their masks"
