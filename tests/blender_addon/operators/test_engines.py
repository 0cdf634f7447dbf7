"""A shot for other engines from the window, by the backend's own program, and their clips as takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from refused import refused_by_operator

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from animating import animate  # noqa: E402
from motionbooth.generation.video import read_clip, write_clip  # noqa: E402
from motionbooth_addon._protocol.errors import InvalidInput  # noqa: E402
from motionbooth_addon.job_store import GuideRender  # noqa: E402
from motionbooth_addon.operators.engines import guide_option  # noqa: E402
from motionbooth_addon.preferences import preferences  # noqa: E402


@pytest.fixture
def shot(at_work: Any, scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]) -> Any:
    """A cube that moves to the right before a camera that zooms."""
    cube = add_cube(scene)
    animate(cube, "location", (-2, 10, 0), (2, 10, 0))
    animate(scene.camera.data, "lens", 35, 45)
    add_subject(scene, cube)
    return scene


def test_an_export_has_the_scenes_camera_and_its_clip_becomes_a_take(shot: Any, tmp_path: Path) -> None:
    preferences().clip_folder = str(tmp_path / "clips")
    shot.motionbooth.name = "Slide: 1"
    assert bpy.ops.motionbooth.export_shot(engine="recammaster", directory=str(tmp_path)) == {"FINISHED"}
    (folder,) = tmp_path.glob("*_recammaster")
    assert len(json.loads((folder / "camera_extrinsics.json").read_text())) == 81
    frames = np.full((33, 64, 96, 3), 100, np.uint8)
    write_clip(folder / "engine.mp4", frames, 16)
    bpy.context.preferences.edit.use_global_undo = True
    bpy.ops.ed.undo_push(message="before")
    assert bpy.ops.motionbooth.import_clip("EXEC_DEFAULT", True, filepath=str(folder / "engine.mp4")) == {"FINISHED"}
    bpy.ops.ed.undo()
    assert not bpy.context.scene.motionbooth.takes
    bpy.ops.ed.redo()
    shot = bpy.context.scene
    (take,) = shot.motionbooth.takes
    (clip,) = (tmp_path / "clips").glob("*.mp4")
    assert read_clip(clip)[0].shape == (24, 64, 96, 3)
    (strip,) = (
        shot.sequence_editor.strips if hasattr(shot.sequence_editor, "strips") else shot.sequence_editor.sequences
    )
    assert (strip.frame_final_start, strip.frame_final_end) == (1, 25)
    assert json.loads(take.settings)["shot"]["name"] == "Slide: 1"
    assert clip.with_suffix(".report.json").is_file()


def test_what_the_program_refuses_is_said_and_nothing_is_written(shot: Any, tmp_path: Path) -> None:
    with refused_by_operator(InvalidInput, code="uneven_pan"):
        bpy.ops.motionbooth.export_shot(engine="motionbooth-script", directory=str(tmp_path))
    assert not list(tmp_path.glob("*_motionbooth-script"))
    with refused_by_operator(InvalidInput, path=str(tmp_path / "none.mp4")):
        bpy.ops.motionbooth.import_clip(filepath=str(tmp_path / "none.mp4"))
    shot.motionbooth.prompt = "grass"
    with refused_by_operator(InvalidInput, subject=..., prompt="grass"):
        bpy.ops.motionbooth.export_shot(engine="ati", directory=str(tmp_path))


def test_the_shots_guide_is_given_to_the_export(tmp_path: Path) -> None:
    (tmp_path / "guide.png").touch()
    (tmp_path / "still.PNG").touch()
    rendered = GuideRender(str(tmp_path), "Scene", (96, 64), [1.0], 0.5, 0.3, [])
    assert guide_option(rendered) == ["--guide", str(tmp_path / "guide.png")]
    for name, option in (("still.PNG", ["--first-frame"]), ("playblast.mp4", ["--guide"]), ("gone.mp4", [])):
        if option:
            (tmp_path / name).touch()
        own = msgspec.structs.replace(rendered, folder="", clip=str(tmp_path / name))
        assert guide_option(own)[:1] == option


def test_without_a_subject_there_is_nothing_to_export(at_work: Any, scene: Any) -> None:
    assert not bpy.ops.motionbooth.export_shot.poll()
    assert not bpy.ops.motionbooth.import_clip.poll()
