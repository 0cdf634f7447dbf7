"""What panels and overlay are told of a shot. Timers do not run in a script, so the tests call the tick themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth_addon import readings  # noqa: E402


@pytest.fixture
def shot(scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]) -> Iterator[Any]:
    """A scene with a cube that walks."""
    readings.stop()
    cube = add_cube(scene)
    for frame, x in ((1, -2), (24, 2)):
        cube.location.x = x
        cube.keyframe_insert("location", frame=frame)
    add_subject(scene, cube)
    yield scene
    readings.stop()


def settle() -> None:
    bpy.context.view_layer.update()
    readings._tick()
    time.sleep(readings.SETTLE_SECONDS + 0.05)
    readings._tick()


def test_asking_costs_no_reading_and_the_next_tick_brings_one(shot: Any) -> None:
    assert readings.latest(shot).motion is None
    settle()
    motion = readings.latest(shot).motion
    assert motion is not None
    assert motion.moments[0] == 1
    assert motion.moments[-1] == 24
    assert len(motion.moments) >= 24
    assert all(seen.box for seen in motion.sights[0])


def test_nothing_is_read_again_until_something_moves(shot: Any) -> None:
    readings.latest(shot)
    settle()
    settle()
    assert readings.latest(shot).version == 1
    shot.frame_set(12)
    settle()
    assert readings.latest(shot).version == 1, "another frame is no change of the shot"
    bpy.data.objects["Cube"].scale.x = 3
    settle()
    assert readings.latest(shot).version == 2


@pytest.mark.parametrize("setting", ["frame_end", "background_distance", "subject"])
def test_a_setting_that_blender_does_not_report_is_noticed(shot: Any, setting: str) -> None:
    readings.latest(shot)
    settle()
    if setting == "frame_end":
        shot.frame_end = 48
    elif setting == "background_distance":
        shot.motionbooth.background_distance = 3
    else:
        shot.motionbooth.subjects.add().name = "Other"
    readings.latest(shot)
    settle()
    assert readings.latest(shot).version == 2


def test_panels_are_told_where_it_goes_wrong(shot: Any) -> None:
    shot.camera.keyframe_insert("rotation_euler", frame=6)
    shot.camera.rotation_euler.y = 0.5
    shot.camera.keyframe_insert("rotation_euler", frame=18)
    readings.concerns_of(shot)
    settle()
    rolls = [concern for concern in readings.concerns_of(shot) if "rolls" in concern.sentence]
    assert len(rolls) == 1
    assert 6 <= rolls[0].first < rolls[0].last <= 18


def test_a_shot_that_cannot_be_read_says_why(shot: Any) -> None:
    shot.camera = None
    readings.latest(shot)
    settle()
    known = readings.latest(shot)
    assert known.motion is None
    assert "has no camera" in known.trouble


def test_a_subject_without_an_object_does_not_hide_the_others(shot: Any) -> None:
    shot.motionbooth.subjects.add().name = "Other"
    motion = readings.read_now(shot).motion
    assert motion is not None
    assert motion.sights[0][0].box is not None
    assert motion.sights[1][0].box is None


def test_when_nobody_asks_any_more_nothing_is_left_running(shot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    readings.latest(shot)
    assert bpy.app.timers.is_registered(readings._tick)
    monkeypatch.setattr(readings, "FORGET_SECONDS", 0.0)
    time.sleep(0.01)
    assert readings._tick() is None
    handlers = bpy.app.handlers
    for kind in (handlers.depsgraph_update_post, handlers.undo_post, handlers.load_post):
        assert not [handler for handler in kind if handler.__module__ == readings.__name__]
