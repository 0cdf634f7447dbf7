"""Files with several scenes: copies of a scene, and scenes of a linked library."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from refused import refused

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth_addon import compat  # noqa: E402
from motionbooth_addon._protocol.errors import InvalidInput  # noqa: E402
from motionbooth_addon.batch.generate_shots import open_shots  # noqa: E402
from motionbooth_addon.job_store import JobRecord, TrainRequest  # noqa: E402
from motionbooth_addon.operators import takes as takes_operators  # noqa: E402
from motionbooth_addon.timeline import takes  # noqa: E402


def job_of(scene: Any) -> JobRecord:
    return JobRecord(
        id="a" * 32, request=TrainRequest("Imp", "sks", "toy", "toybox"), title="Imp", created=1.0, backend="key",
        shot=takes.shot_id(scene), scene=scene.name, blend=bpy.data.filepath,
    )  # fmt: skip


def test_the_original_of_a_copied_scene_keeps_its_id_and_its_jobs(at_work: Any, scene: Any) -> None:
    job = job_of(scene)
    bpy.ops.scene.new(type="LINK_COPY")
    copy = bpy.context.scene
    copy.name = "A Copy"  # before "Scene" in Blender's list
    assert takes.scene_of(job) == scene
    assert takes.shot_id(scene) == job.shot, "although it is generated before the copy"
    assert takes.shot_id(copy) != job.shot


def test_removing_the_subject_of_a_copied_scene_keeps_the_box_of_the_original(at_work: Any, scene: Any) -> None:
    bpy.ops.motionbooth.add_subject_box()
    bpy.ops.scene.new(type="LINK_COPY")
    bpy.ops.motionbooth.remove_subject()
    assert len(bpy.context.scene.motionbooth.subjects) == 0
    assert scene.motionbooth.subjects[0].object.name in scene.objects


def test_a_linked_scene_is_no_shot_of_the_file_that_links_it(at_work: Any, scene: Any, tmp_path: Path) -> None:
    """What is changed in it is gone with the next save: its jobs wait for the file that it is in."""
    bpy.ops.motionbooth.add_subject_box()
    job = job_of(scene)
    bpy.ops.wm.save_mainfile()
    bpy.ops.wm.read_homefile(use_empty=True)
    with bpy.data.libraries.load(job.blend, link=True) as (_, wanted):
        wanted.scenes = ["Scene"]
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "edit.blend"))
    assert job.shot in [scene.motionbooth.uid for scene in bpy.data.scenes]
    assert takes.scene_of(job) is None
    with refused(InvalidInput, blend=str(tmp_path / "edit.blend")):
        open_shots(tmp_path / "edit.blend")


@pytest.mark.skipif(bpy.app.version < (5, 0, 0), reason="a sequencer shows the scene of its window before 5.0")
def test_a_take_that_the_timer_places_is_seen_in_the_sequencers(scene: Any) -> None:
    other = bpy.data.scenes.new("Edit")
    chosen, *empty = bpy.data.workspaces
    for workspace in empty:
        workspace.sequencer_scene = None
    chosen.sequencer_scene = other
    compat.show_in_sequencer(scene)
    assert chosen.sequencer_scene == other
    assert empty
    assert {workspace.sequencer_scene for workspace in empty} == {scene}


def test_the_takes_of_a_sequencer_are_those_of_the_scene_that_it_shows(scene: Any) -> None:
    edit = bpy.data.scenes.new("Edit")
    for name in ("One", "Two"):
        edit.motionbooth.takes.add().name = name
    shown = scene if bpy.app.version < (5, 0, 0) else edit

    def context(space: str | None, pinned: Any) -> Any:
        space_data = SimpleNamespace(type=space) if space else None
        return SimpleNamespace(scene=scene, space_data=space_data, sequencer_scene=pinned)

    assert compat.shown_scene(context("SEQUENCE_EDITOR", edit)) == shown
    assert {compat.shown_scene(context(space, edit)) for space in (None, "VIEW_3D")} == {scene}
    assert compat.shown_scene(context("SEQUENCE_EDITOR", None)) == scene
    poll = takes_operators._TakeOperator.poll.__func__
    assert poll(bpy.types.MOTIONBOOTH_OT_remove_take, context("SEQUENCE_EDITOR", edit)) == (shown == edit)
