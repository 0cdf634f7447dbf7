from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth.cli.demo import DEMO_SCENE  # noqa: E402
from motionbooth_addon._protocol.motion import Shot  # noqa: E402
from motionbooth_addon.capture import shots  # noqa: E402

SCRIPT = Path(__file__).parents[2] / "lab" / "motionbooth_lab" / "make_demo_scene.py"


def read(path: Path) -> tuple[Shot, Any]:
    bpy.ops.wm.open_mainfile(filepath=str(path))
    scene = bpy.context.scene
    reading = shots.read_shot(scene, 8)
    assert reading.warnings == []
    return reading.shot, (scene.motionbooth.prompt, scene.motionbooth.model, scene.motionbooth.seed)


def numbers(shot: Shot) -> np.ndarray:
    boxes = [box.as_tuple() for track in shot.subjects for box in track.boxes if box]
    return np.concatenate([np.array(boxes).ravel(), [(o.dx, o.dy) for o in shot.camera.offsets]], axis=None)


def test_the_script_creates_the_scene_in_the_repository(registered: Any, tmp_path: Path) -> None:
    subprocess.run([sys.executable, SCRIPT, tmp_path / "again.blend"], check=True)
    kept, kept_words = read(DEMO_SCENE)
    made, made_words = read(tmp_path / "again.blend")
    assert made_words == kept_words
    # Blender keeps places in float32: 10 units off they are rounded by 1e-6, in a view that is a few units wide.
    assert numbers(made) == pytest.approx(numbers(kept), abs=1e-5)
    assert (made.frame_start, made.frame_end, made.fps) == (kept.frame_start, kept.frame_end, kept.fps) == (1, 48, 24)


def test_the_demo_has_an_eased_path_and_a_pan(registered: Any) -> None:
    """A curved path with easing, wholly in the frame, while the camera pans to the right."""
    shot, _ = read(DEMO_SCENE)
    centers = np.array([box.center for box in shot.subjects[0].boxes if box])
    chord = np.linspace(centers[0], centers[-1], len(centers))
    assert np.abs(centers - chord).max() > 0.15
    speed = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    assert speed.max() > 1.5 * speed.min()
    pan = np.array([(o.dx, o.dy) for o in shot.camera.offsets])
    assert 0.3 - 1e-3 <= pan[-1, 0] <= 0.6
    assert (np.diff(pan[:, 0]) > 0).all()
    assert np.abs(pan[:, 1]).max() < 0.01
    boxes = np.array([box.as_tuple() for box in shot.subjects[0].boxes if box])
    assert boxes.min() >= 0
    assert boxes.max() <= 1
