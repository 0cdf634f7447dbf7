"""The cache of panels and overlay. Timers do not run in a script, so the tests call the timer's function."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth_addon._protocol.text import Text  # noqa: E402
from motionbooth_addon.capture import shot_cache  # noqa: E402

BODY = Text("rigid body")


@pytest.fixture
def shot(scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]) -> Iterator[Any]:
    """A scene with a moving cube."""
    shot_cache.stop()
    cube = add_cube(scene)
    for frame, x in ((1, -2), (24, 2)):
        cube.location.x = x
        cube.keyframe_insert("location", frame=frame)
    add_subject(scene, cube)
    yield scene
    shot_cache.stop()


def settle() -> None:
    bpy.context.view_layer.update()
    shot_cache.tick()
    time.sleep(shot_cache.SETTLE_SECONDS + 0.05)
    shot_cache.tick()
    while any(known.reader for known in shot_cache._caches.values()):  # read in slices
        bpy.context.view_layer.update()
        shot_cache.tick()


def test_get_evaluates_nothing_and_the_timer_reads_the_shot(shot: Any) -> None:
    assert shot_cache.get(shot).motion is None
    settle()
    motion = shot_cache.get(shot).motion
    assert motion is not None
    assert motion.moments[0] == 1
    assert motion.moments[-1] == 24
    assert len(motion.moments) >= 24
    assert all(seen.box for seen in motion.projections[0])


def test_the_shot_is_read_again_only_after_a_change(shot: Any) -> None:
    shot_cache.get(shot)
    settle()
    version = shot_cache.get(shot).version
    settle()
    assert shot_cache.get(shot).version == version
    shot.frame_set(12)
    settle()
    assert shot_cache.get(shot).version == version, "another frame is no change of the shot"
    bpy.data.objects["Cube"].scale.x = 3
    settle()
    assert shot_cache.get(shot).version == version + 1


def test_a_shot_that_is_read_after_its_cache_has_expired_is_drawn_anew(shot: Any) -> None:
    shot_cache.get(shot)
    settle()
    drawn = shot_cache.get(shot).version
    shot_cache.stop()
    bpy.data.objects["Cube"].scale.x = 3  # unnoticed
    shot_cache.get(shot)
    settle()
    assert shot_cache.get(shot).version != drawn


@pytest.mark.parametrize("setting", ["frame_end", "background_distance", "use_parallax", "subject"])
def test_settings_that_blender_does_not_report_are_noticed(shot: Any, setting: str) -> None:
    shot_cache.get(shot)
    settle()
    version = shot_cache.get(shot).version
    if setting == "frame_end":
        shot.frame_end = 48
    elif setting == "background_distance":
        shot.motionbooth.background_distance = 3
    elif setting == "use_parallax":
        shot.motionbooth.use_parallax = True
    else:
        shot.motionbooth.subjects.add().name = "Other"
    shot_cache.get(shot)
    settle()
    assert shot_cache.get(shot).version == version + 1


def test_warnings_are_cached_with_their_frames(shot: Any) -> None:
    shot.camera.keyframe_insert("location", frame=6)
    shot.camera.location.y += 2
    shot.camera.keyframe_insert("location", frame=18)
    shot_cache.get(shot)
    settle()
    moves = [warning for warning in shot_cache.get(shot).warnings if "toward" in warning.sentence.template]
    assert len(moves) == 1
    assert 6 <= moves[0].first < moves[0].last <= 18


def test_an_unreadable_shot_has_an_error(shot: Any) -> None:
    shot.camera = None
    shot_cache.get(shot)
    settle()
    known = shot_cache.get(shot)
    assert known.motion is None
    assert known.error is not None
    assert known.error.values == {"scene": "Scene"}


def test_a_deleted_proxy_object_is_not_shown(shot: Any) -> None:
    with bpy.context.temp_override(selected_objects=[shot.motionbooth.subjects[0].object]):
        bpy.ops.object.delete()
    shot_cache.get(shot)
    settle()
    assert shot.motionbooth.subjects[0].object is not None, "Blender keeps it for the subject"
    assert [seen.box for seen in shot_cache.get(shot).motion.projections[0] if seen.box] == []


def test_an_unexpected_error_is_shown_and_does_not_end_the_timer(
    shot: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shot_cache.ShotReader, "motion", property(lambda _: 1 / 0))
    shot_cache.get(shot)
    settle()
    assert shot_cache.get(shot).error.values == {"reason": "ZeroDivisionError: division by zero"}
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_subject_without_an_object_does_not_hide_the_others(shot: Any) -> None:
    shot.motionbooth.subjects.add().name = "Other"
    shot_cache.get(shot)
    settle()
    motion = shot_cache.get(shot).motion
    assert motion is not None
    assert motion.projections[0][0].box is not None
    assert motion.projections[1][0].box is None


def test_timer_and_handlers_are_removed_when_the_cache_expires(shot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shot_cache.get(shot)
    assert bpy.app.timers.is_registered(shot_cache.tick)
    monkeypatch.setattr(shot_cache, "EXPIRE_SECONDS", 0.0)
    time.sleep(0.01)
    assert shot_cache.tick() is None
    handlers = bpy.app.handlers
    for kind in (handlers.depsgraph_update_post, handlers.undo_post, handlers.load_post):
        assert not [handler for handler in kind if handler.__module__ == shot_cache.__name__]


def all_read(motion: Any) -> Any:
    return (motion.moments, motion.projections, motion.camera, [warning.sentence for warning in motion.warnings])


def read_at_once(shot: Any) -> Any:
    """The motion, read in one slice."""
    cache = shot_cache.ShotCache()
    shot_cache._read_on(shot, cache, math.inf)
    return cache.motion


def read_in_slices(shot: Any) -> tuple[Any, int]:
    """The motion and the number of ticks that reading it took."""
    bpy.context.view_layer.update()
    time.sleep(shot_cache.SETTLE_SECONDS + 0.05)
    ticks = 0
    while shot_cache.get(shot).outdated:
        shot_cache.tick()
        bpy.context.view_layer.update()
        ticks += 1
        assert ticks < 10_000, "it does not come to an end"
    return shot_cache.get(shot).motion, ticks


def test_a_long_shot_is_read_in_slices_to_the_same_result(shot: Any) -> None:
    shot.frame_end = 4000
    shot.camera.rotation_euler.z = 0.1
    shot.camera.keyframe_insert("rotation_euler", frame=1)
    shot.camera.rotation_euler.z = -0.1
    shot.camera.keyframe_insert("rotation_euler", frame=4000)
    shot.frame_set(7)
    whole = all_read(read_at_once(shot))
    shot_cache.stop()
    shot_cache.get(shot)
    motion, ticks = read_in_slices(shot)
    assert ticks > 5
    assert all_read(motion) == whole
    assert shot.frame_current == 7
    assert [scene.name for scene in bpy.data.scenes] == ["Scene"], "nothing stays between two slices"


def test_between_slices_there_is_progress_and_no_temporary_scene(shot: Any) -> None:
    shot.frame_end = 4000
    shot_cache.get(shot)
    time.sleep(shot_cache.SETTLE_SECONDS + 0.05)
    seen = []
    while shot_cache.get(shot).outdated:
        shot_cache.tick()
        bpy.context.view_layer.update()
        seen.append(shot_cache.get(shot).progress)
        assert [scene.name for scene in bpy.data.scenes] == ["Scene"]
    under_way = [progress for progress in seen if progress is not None]
    assert len(under_way) > 3
    assert under_way == sorted(under_way)
    assert under_way[0] < 0.5 < under_way[-1]
    assert seen[-1] is None


@pytest.mark.parametrize("edit", ["moved", "removed", "setting"])
def test_an_edit_during_reading_starts_it_over(shot: Any, edit: str) -> None:
    shot.frame_end = 4000
    shot_cache.get(shot)
    bpy.context.view_layer.update()
    time.sleep(shot_cache.SETTLE_SECONDS + 0.05)
    while (shot_cache.get(shot).progress or 0.0) < 0.2:
        shot_cache.tick()
    cube = bpy.data.objects["Cube"]
    if edit == "moved":
        cube.scale.x = 3
    elif edit == "setting":
        shot.motionbooth.background_distance = 3
    else:
        bpy.data.objects.remove(cube)
    bpy.context.view_layer.update()
    shot_cache.tick()
    assert shot_cache.get(shot).progress is None, "what was read so far is of the scene before"
    motion, _ = read_in_slices(shot)
    shot_cache.stop()
    assert all_read(motion) == all_read(read_at_once(shot))


def falling(shot: Any) -> Any:
    """The cube falls, with no floor under it."""
    cube = bpy.data.objects["Cube"]
    cube.animation_data_clear()
    bpy.context.view_layer.objects.active = cube
    cube.select_set(True)
    bpy.ops.rigidbody.object_add()
    return cube


def test_simulations_are_played_only_on_request(shot: Any) -> None:
    falling(shot)
    shot.frame_set(9)
    shot_cache.get(shot)
    settle()
    known = shot_cache.get(shot)
    assert known.motion.incomplete
    assert all(seen.box is None for seen in known.motion.projections[0])
    assert [c.sentence.values["reason"] for c in known.warnings if "reason" in c.sentence.values] == [BODY]
    bpy.ops.motionbooth.read_by_playing()
    motion, _ = read_in_slices(shot)
    assert not motion.incomplete
    assert [(method.name, method.playback_reason) for method in motion.read_methods] == [
        ("Camera", None),
        ("Imp", BODY),
    ]
    falls = [seen.box.center[1] for seen in motion.projections[0] if seen.box]
    assert falls[-1] - falls[0] > 0.1
    assert shot.frame_current == 9
    settle()
    assert not shot_cache.get(shot).motion.incomplete, "it stays until something changes"


def test_a_camera_that_needs_playback_is_reported_then_read(shot: Any) -> None:
    cube = falling(shot)
    shot.camera.parent = cube
    shot_cache.get(shot)
    settle()
    assert shot_cache.get(shot).motion is None
    assert shot_cache.get(shot).needs_playback
    assert shot_cache.get(shot).error.values == {"subject": Text("The camera"), "reason": BODY}
    bpy.ops.motionbooth.read_by_playing()
    motion, _ = read_in_slices(shot)
    assert motion.camera.offsets[-1].dy > 0.1


def test_a_hidden_object_that_could_not_be_played_is_read_once_it_is_shown(shot: Any) -> None:
    cube = falling(shot)
    cube.hide_set(True)
    shot_cache.get(shot)
    settle()
    bpy.ops.motionbooth.read_by_playing()
    shot_cache.tick()
    assert shot_cache.get(shot).error.values["object"] == "Cube"
    shot_cache.tick()  # in a window, Blender reports nothing before the next change
    cube.hide_set(False)
    cube.location.x = 0.1
    settle()
    assert shot_cache.get(shot).error is None
