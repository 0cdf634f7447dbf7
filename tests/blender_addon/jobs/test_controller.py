"""The extension's operators against a real backend whose model only draws."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from refused import refused, refused_by_operator

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth.generation.video import read_clip  # noqa: E402
from motionbooth.server import keys  # noqa: E402
from motionbooth_addon import compat  # noqa: E402
from motionbooth_addon._protocol.errors import (  # noqa: E402
    InvalidInput,
    MotionBoothError,
    NotFound,
)
from motionbooth_addon._protocol.jobs import JobState, Style  # noqa: E402
from motionbooth_addon._protocol.limits import MAX_STYLES  # noqa: E402
from motionbooth_addon.job_store import JobStore  # noqa: E402
from motionbooth_addon.jobs import controller, specs  # noqa: E402
from motionbooth_addon.jobs.events import StateChanged, Submitted  # noqa: E402
from motionbooth_addon.operators.jobs import last_guide  # noqa: E402
from motionbooth_addon.preferences import preferences  # noqa: E402
from motionbooth_addon.timeline import clips, takes  # noqa: E402
from motionbooth_addon.ui_state import state  # noqa: E402
from motionbooth_protocol.client import Client  # noqa: E402
from motionbooth_protocol.connection import Connection  # noqa: E402
from running_backend import RunningBackend  # noqa: E402

Pump = Callable[..., None]


@pytest.fixture
def shot(connected: Any, scene: Any) -> Any:
    """A scene with one box, whose subject needs no training."""
    bpy.ops.motionbooth.add_subject_box()
    subject = scene.motionbooth.subjects[0]
    subject.class_word, subject.token = "dog", ""
    bpy.ops.motionbooth.add_to_prompt()
    return scene


def strips(scene: Any) -> list[Any]:
    return list(compat.strips(scene.sequence_editor)) if scene.sequence_editor else []


def states() -> list[str]:
    return [row.state for row in state().jobs]


def generate(scene: Any, pump: Pump, **settings: Any) -> None:
    """Generate a take, and wait until it is on the timeline."""
    for name, value in settings.items():
        setattr(scene.motionbooth, name, value)
    before = len(scene.motionbooth.takes)
    bpy.ops.motionbooth.generate()
    pump(lambda: len(bpy.context.scene.motionbooth.takes) == before + scene.motionbooth.take_count)


def make_pictures(folder: Path) -> Path:
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64), (80 * number, 40, 200)).save(folder / f"toy{number}.png")
    Image.new("L", (64, 64), 255).save(folder / "toy0_mask.png")
    return folder


def test_a_generated_shot_is_placed_on_the_timeline_with_its_settings(shot: Any, pump: Pump, tmp_path: Path) -> None:
    assert shot.view_settings.view_transform == "AgX"
    generate(shot, pump, random_seed=False, seed=5)
    assert shot.view_settings.view_transform == "AgX", "the look of the 3-D scene is its user's"
    assert "desaturates strong colors" in state().notice
    (strip,) = strips(shot)
    assert compat.strip_range(strip) == (shot.frame_start, shot.frame_end)
    assert (strip.name, strip.mute) == ("Scene take 1", False)
    (take,) = shot.motionbooth.takes
    assert (take.seed, strip[clips.JOB]) == (5, take.job_id)
    assert takes.spec_of(take).prompt == "a dog"
    assert Path(bpy.path.abspath(take.clip_path)).parent == tmp_path / "motionbooth", "beside the .blend"


def test_a_new_take_is_placed_above_the_old_ones_and_mutes_them(shot: Any, pump: Pump) -> None:
    generate(shot, pump, take_count=2)
    first, second = strips(shot)
    assert (first.channel, first.mute, second.channel, second.mute) == (1, True, 2, False)
    assert len({take.seed for take in shot.motionbooth.takes}) == 2, "each take has a seed of its own"


def test_a_fixed_seed_counts_up_over_the_takes(shot: Any, pump: Pump) -> None:
    generate(shot, pump, take_count=3, random_seed=False, seed=7)
    assert sorted(take.seed for take in shot.motionbooth.takes) == [7, 8, 9]


def test_prompt_words_are_validated_as_the_backend_matches_them(shot: Any) -> None:
    settings = shot.motionbooth
    settings.subjects[0].token = "<new>"  # no letter at its ends
    settings.prompt, settings.background_phrase = "a <new>  dog in a parking lot", "parking lot"
    specs.check_prompt(shot)
    settings.background_phrase = "park"
    with refused(MotionBoothError, background="park"):
        specs.check_prompt(shot)


def test_the_seed_after_the_largest_one_is_zero(shot: Any) -> None:
    settings = shot.motionbooth
    settings.random_seed, settings.seed, settings.take_count = False, 2**31 - 2, 3
    assert specs.seeds(settings) == [2**31 - 2, 2**31 - 1, 0]


def test_takes_are_swapped_compared_starred_and_removed(shot: Any, pump: Pump) -> None:
    generate(shot, pump, take_count=2)
    bpy.ops.motionbooth.activate_take(index=0)
    assert [strip.mute for strip in strips(shot)] == [False, True]
    bpy.ops.motionbooth.compare_takes(index=1)
    assert [strip.mute for strip in strips(shot)] == [False, False]
    assert [strip.crop.max_x for strip in strips(shot)] == [0, 48], "half of 96 pixels"
    bpy.ops.motionbooth.star_take(index=1)
    assert [take.starred for take in shot.motionbooth.takes] == [False, True]
    bpy.ops.motionbooth.remove_take(index=0)
    (strip,) = strips(shot)
    assert (strip.name, strip.mute, strip.crop.max_x) == (shot.motionbooth.takes[0].name, False, 0)


def test_showing_a_take_restores_its_deleted_strip(shot: Any, pump: Pump) -> None:
    generate(shot, pump)
    compat.strips(shot.sequence_editor).remove(strips(shot)[0])
    bpy.ops.motionbooth.activate_take(index=0)
    assert [strip.name for strip in strips(shot)] == ["Scene take 1"]


def test_the_settings_of_a_take_are_restored(shot: Any, pump: Pump) -> None:
    generate(shot, pump, random_seed=False, seed=11, quality="DRAFT", negative_prompt="rain")
    shot.motionbooth.seed, shot.motionbooth.quality, shot.motionbooth.negative_prompt = 1, "FINE", "snow"
    shot.motionbooth.long_shot, shot.motionbooth.hold_frames = "SPREAD", True
    bpy.ops.motionbooth.restore_take_settings()
    settings = shot.motionbooth
    assert (settings.seed, settings.random_seed, settings.quality) == (11, False, "DRAFT")
    assert settings.negative_prompt == "rain"
    assert (settings.long_shot, settings.hold_frames, settings.upscale) == ("WINDOWS", False, False)


def test_a_shot_of_two_clips_is_read_and_sent_as_the_scene_asks(shot: Any, pump: Pump) -> None:
    shot.frame_end = shot.frame_start + 2 * shot.render.fps - 1
    generate(shot, pump, long_shot="SPREAD", hold_frames=True, upscale=True)
    generate(shot, pump, long_shot="WINDOWS", hold_frames=False, upscale=False)
    spread, windows = (takes.spec_of(take) for take in shot.motionbooth.takes)
    assert (spread.shot.frames, spread.long_shot, spread.hold_frames, spread.upscale) == (8, "spread", True, True)
    assert (windows.shot.frames, windows.long_shot, windows.hold_frames, windows.upscale) == (
        16, "windows", False, False,
    )  # fmt: skip


def style_list(shot: Any) -> list[tuple[str, float]]:
    return [(Path(bpy.path.abspath(style.path)).name, style.strength) for style in shot.motionbooth.styles]


def test_styles_are_uploaded_used_and_restored_each_with_its_strength(shot: Any, pump: Pump, tmp_path: Path) -> None:
    contents = {"ink wash.safetensors": b"\xf0 a LoRA", "grain.safetensors": b"\x10 another"}
    for (name, content), strength in zip(contents.items(), (0.5, -0.25), strict=True):
        (tmp_path / name).write_bytes(content)
        bpy.ops.motionbooth.add_style(filepath=str(tmp_path / name))
        shot.motionbooth.styles[-1].strength = strength
    chosen = [("ink wash.safetensors", 0.5), ("grain.safetensors", -0.25)]
    generate(shot, pump)
    (take,) = shot.motionbooth.takes
    sent = [Style(hashlib.sha256(contents[name]).hexdigest(), strength) for name, strength in chosen]
    assert takes.spec_of(take).styles == sent
    frames, _ = read_clip(Path(bpy.path.abspath(take.clip_path)))
    assert abs(int(frames[0, 2, 2, 0]) - 0xF0) < 4, "the backend's worker had the file"

    shot.motionbooth.styles[0].strength = 1
    shot.motionbooth.styles.move(0, 1)
    bpy.ops.motionbooth.restore_take_settings()
    assert style_list(shot) == chosen
    bpy.ops.motionbooth.retry_job()
    pump(lambda: len(shot.motionbooth.takes) == 2)
    assert takes.spec_of(shot.motionbooth.takes[1]).styles == sent

    bpy.ops.motionbooth.remove_style(index=0)
    generate(shot, pump)
    assert takes.spec_of(shot.motionbooth.takes[2]).styles == sent[1:]

    (tmp_path / "ink wash.safetensors").write_bytes(b"another LoRA")
    bpy.ops.motionbooth.add_style(filepath=str(tmp_path / "ink wash.safetensors"))
    assert specs.restore_settings(shot, takes.spec_of(take)) is not None
    assert style_list(shot)[1] == chosen[1]
    assert (shot.motionbooth.styles[0].path, shot.motionbooth.styles[0].strength) == ("", 0.5), (
        "its file is another one"
    )
    shot.motionbooth.styles.remove(0)
    assert specs.restore_settings(shot, takes.spec_of(shot.motionbooth.takes[2])) is None


def test_a_shot_has_at_most_as_many_styles_as_a_job(shot: Any, tmp_path: Path) -> None:
    (tmp_path / "style.safetensors").write_bytes(b"a LoRA")
    for _ in range(MAX_STYLES):
        bpy.ops.motionbooth.add_style(filepath=str(tmp_path / "style.safetensors"))
    assert not bpy.ops.motionbooth.add_style.poll()
    bpy.ops.motionbooth.remove_style(index=0)
    with refused_by_operator(InvalidInput, path=...):
        bpy.ops.motionbooth.add_style(filepath=str(tmp_path / "nowhere.safetensors"))
    assert len(shot.motionbooth.styles) == MAX_STYLES - 1


def test_a_missing_style_is_refused_and_nothing_is_sent(shot: Any, connected: Any) -> None:
    shot.motionbooth.styles.add().path = "//nowhere.safetensors"
    with refused_by_operator(InvalidInput, scene="Scene", path=...):
        bpy.ops.motionbooth.generate()
    assert not connected.store.records


def test_a_clip_is_canceled_before_its_style_is_sent(
    shot: Any, connected: Any, pump: Pump, tmp_path: Path, drawing_home: Path
) -> None:
    (tmp_path / "large.safetensors").write_bytes(bytes(300_000_000))
    shot.motionbooth.styles.add().path = "//large.safetensors"
    bpy.ops.motionbooth.generate()
    (record,) = connected.store.records.values()
    assert len(record.styles) == 1
    stored = JobStore(connected.folder / "jobs").records[record.id]
    assert stored.styles == record.styles, "a next Blender would send it"
    bpy.ops.motionbooth.cancel_job()
    pump(lambda: record.ended)
    assert record.state == JobState.CANCELED
    with Client(Connection.read(drawing_home / "connection.json")) as client:
        assert record.id not in [job.id for job in client.jobs()]


def test_the_scenes_render_guides_the_takes(shot: Any, pump: Pump) -> None:
    """It is rendered once for all takes, shown in the panel, and its strengths are restored."""
    settings = shot.motionbooth
    settings.use_guide, settings.guide_subject, settings.guide_background = True, 0.7, 0.2
    settings.subjects[0].object.hide_render = False
    generate(shot, pump, take_count=2)
    first, second = (takes.spec_of(take).guide for take in settings.takes)
    assert first is not None
    assert first == second
    assert (first.subject_strength, first.background_strength) == (0.7, 0.2)
    assert first.masks is not None
    shown = last_guide(shot)
    assert shown is not None
    assert [path.name for path in sorted(Path(shown.folder).glob("*.png"))] == ["guide.png", "masks.png", "preview.png"]
    generate(shot, pump, take_count=1)
    again = last_guide(shot)
    assert again is not None
    assert again.folder == shown.folder, "takes on the timeline are no change"
    settings.use_guide, settings.guide_subject = False, 0.1
    bpy.ops.motionbooth.restore_take_settings()
    assert (settings.use_guide, settings.guide_subject) == (True, pytest.approx(0.7))


def test_a_take_in_the_camera_is_in_sync_with_the_timeline(shot: Any, pump: Pump) -> None:
    generate(shot, pump)
    bpy.ops.motionbooth.take_as_background()
    bpy.ops.motionbooth.take_as_background()
    (picture,) = shot.camera.data.background_images
    assert shot.camera.data.show_background_images
    camera, shot.camera = shot.camera, shot.motionbooth.subjects[0].object
    assert not bpy.ops.motionbooth.take_as_background.poll(), "any object can be the active camera"
    shot.camera = camera
    assert (picture.image_user.frame_start, picture.image_user.frame_duration) == (1, 24)


def test_a_take_becomes_an_image_sequence_above_it(shot: Any, pump: Pump) -> None:
    preferences().clip_folder = "//{shots}"  # not a template of Blender's
    shot.frame_start, shot.frame_end = 10, 13
    generate(shot, pump)
    bpy.ops.motionbooth.take_as_images()
    movie, pictures = strips(shot)
    assert (movie.mute, compat.strip_range(pictures)) == (True, (10, 13))
    folder = Path(bpy.path.abspath(pictures.directory))
    assert len(pictures.elements) == 4
    for element in pictures.elements:
        with Image.open(folder / element.filename) as written:
            assert written.size == (96, 64)
            reds, greys = (written.convert("RGB").getpixel(place) for place in ((48, 32), (2, 2)))
            assert reds[0] - reds[2] > 100, "the box is in the middle"
            assert max(greys) - min(greys) < 10, "and only there"
    assert [scene.name for scene in bpy.data.scenes] == ["Scene"]
    blocked = folder / pictures.elements[2].filename
    blocked.unlink()
    blocked.mkdir()
    with refused_by_operator(InvalidInput, path=str(blocked)):
        bpy.ops.motionbooth.take_as_images()
    Path(bpy.path.abspath(shot.motionbooth.takes[0].clip_path)).write_bytes(b"no clip any more")
    with refused_by_operator(InvalidInput, clip=..., found=..., expected=...):
        bpy.ops.motionbooth.take_as_images()
    assert [scene.name for scene in bpy.data.scenes] == ["Scene"]


def test_a_subject_is_trained_on_pictures_and_then_generated(
    shot: Any, connected: Any, pump: Pump, tmp_path: Path
) -> None:
    subject = shot.motionbooth.subjects[0]
    subject.token, subject.class_word, subject.training_images = "sks", "toy", str(make_pictures(tmp_path / "toys"))
    shot.motionbooth.prompt = "a sks toy"
    bpy.ops.motionbooth.train_subject()
    pump(lambda: bpy.context.scene.motionbooth.subjects[0].weights)
    assert states() == ["done"]
    generate(shot, pump)
    assert takes.spec_of(shot.motionbooth.takes[0]).shot.subjects[0].weights == subject.weights
    pump(lambda: subject.weights in [row.weights for row in state().trained])
    assert specs.trained_otherwise(shot, subject) is None
    subject.class_word = "doll"
    assert specs.trained_otherwise(shot, subject).values == {"phrase": "sks toy", "model": shot.motionbooth.model}


def test_captions_beside_the_pictures_are_sent_and_must_name_the_subject(
    shot: Any, connected: Any, pump: Pump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys = make_pictures(tmp_path / "toys")
    subject = shot.motionbooth.subjects[0]
    subject.token, subject.class_word, subject.training_images = "sks", "toy", str(toys)
    (toys / "toy1.txt").write_text("a sks dog\non a sofa")
    with refused_by_operator(InvalidInput, file=str(toys / "toy1.txt"), phrase="sks toy"):
        bpy.ops.motionbooth.train_subject()
    (toys / "toy1.txt").write_text("a sks toy " * 101)
    with refused_by_operator(InvalidInput, file=str(toys / "toy1.txt"), count=1009, most=1000):
        bpy.ops.motionbooth.train_subject()
    (toys / "toy1.txt").write_text("a sks toy\non a sofa")
    events, seen = connected.jobs.events, []
    monkeypatch.setattr(connected.jobs, "events", lambda: [seen.append(event) or event for event in events()])
    bpy.ops.motionbooth.train_subject()
    pump(lambda: bpy.context.scene.motionbooth.subjects[0].weights)
    (spec,) = [event.spec for event in seen if isinstance(event, Submitted)]
    assert [picture.caption for picture in spec.subject.pictures] == ["", "a sks toy on a sofa", ""]
    (toys / "toy1.txt").write_text("a sks dog\non a sofa")
    with refused_by_operator(InvalidInput, file=str(toys / "toy1.txt"), phrase="sks toy"):
        bpy.ops.motionbooth.train_subject()  # again


def test_subjects_trained_on_another_machine_are_listed_with_their_pictures(
    shot: Any, connected: Any, pump: Pump, tmp_path: Path
) -> None:
    subject = shot.motionbooth.subjects[0]
    subject.name, subject.token, subject.class_word = "Rex", "sks", "toy"
    subject.training_images = str(make_pictures(tmp_path / "toys"))
    bpy.ops.motionbooth.train_subject()
    pump(lambda: bpy.context.scene.motionbooth.subjects[0].weights)
    # The same person in front of another machine: nothing is there but the connection.
    connected.close()
    controller._controller = elsewhere = controller.JobController(tmp_path / "elsewhere")

    def shown() -> bool:
        elsewhere.tick()
        return any(row.name == "Rex" and row.picture and Path(row.picture).is_file() for row in state().trained)

    pump(shown)
    (row,) = [row for row in state().trained if row.name == "Rex"]
    assert Path(row.picture).is_relative_to(tmp_path / "elsewhere")
    assert Path(row.picture).read_bytes() == (tmp_path / "toys" / "toy0.png").read_bytes()


def test_a_3d_object_is_rendered_in_another_process(
    shot: Any, connected: Any, pump: Pump, add_cube: Callable[..., Any]
) -> None:
    subject = shot.motionbooth.subjects[0]
    subject.token, subject.class_word, subject.training_object = "sks", "toy", add_cube(shot)
    bpy.ops.motionbooth.train_subject()
    stages = set()

    def trained() -> str:
        stages.update(row.stage for row in state().jobs)
        return bpy.context.scene.motionbooth.subjects[0].weights

    pump(trained, seconds=90)
    assert "rendering pictures" in stages
    assert len(list((connected.folder / "training").glob("*/*_mask.png"))) == 8


def test_a_training_is_canceled_during_rendering(
    shot: Any, connected: Any, pump: Pump, add_cube: Callable[..., Any]
) -> None:
    subject = shot.motionbooth.subjects[0]
    subject.token, subject.class_word, subject.training_object = "sks", "toy", add_cube(shot)
    bpy.ops.motionbooth.train_subject()
    pump(lambda: any(row.stage == "rendering pictures" for row in state().jobs))
    bpy.ops.motionbooth.cancel_job()
    pump(lambda: states() == ["canceled"])


def test_a_job_is_canceled_run_again_and_removed(shot: Any, connected: Any, pump: Pump) -> None:
    shot.motionbooth.random_seed, shot.motionbooth.seed = False, 999  # takes a minute
    bpy.ops.motionbooth.generate()
    pump(lambda: states() == ["running"] and state().jobs[0].stage == "sampling")
    bpy.ops.motionbooth.cancel_job()
    pump(lambda: states() == ["canceled"])
    bpy.ops.motionbooth.retry_job()
    pump(lambda: states() == ["running", "canceled"])
    bpy.ops.motionbooth.cancel_job(job=state().jobs[0].job)
    pump(lambda: states() == ["canceled", "canceled"])
    gone = state().jobs[1].job
    bpy.ops.motionbooth.remove_job(job=gone)
    assert [row.job for row in state().jobs] == list(connected.store.records)
    with Client(connected.jobs.threads.connection) as client:
        pump(lambda: gone not in [job.id for job in client.jobs()])


def test_a_job_survives_another_file_and_another_blender(shot: Any, connected: Any, pump: Pump, tmp_path: Path) -> None:
    bpy.ops.wm.save_mainfile()
    bpy.ops.motionbooth.generate()
    job = next(iter(connected.store.records))
    bpy.ops.wm.read_homefile(use_empty=True)
    assert not state().jobs, "not of this file"
    pump(lambda: connected.store.records[job].state == "done")
    # Another Blender, later, with the same user's folder.
    connected.close()
    controller._controller = again = controller.JobController(connected.data)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert [row.job for row in state().jobs] == [job]

    def placed() -> int:
        again.tick()
        return len(bpy.context.scene.motionbooth.takes)

    pump(placed)
    assert [strip[clips.JOB] for strip in strips(bpy.context.scene)] == [job]


def test_a_job_of_another_blender_is_found_when_its_file_is_opened(
    shot: Any, connected: Any, pump: Pump, tmp_path: Path
) -> None:
    bpy.ops.wm.save_mainfile()
    other = controller.JobController(connected.data)  # of a Blender that was started before
    other.tick()
    bpy.ops.motionbooth.generate()
    job = next(iter(connected.store.records))
    pump(lambda: connected.store.records[job].state == "running")
    connected.close()
    controller._controller = other
    assert not other.store.records
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert [row.job for row in state().jobs] == [job]

    def placed() -> int:
        other.tick()
        return len(bpy.context.scene.motionbooth.takes)

    pump(placed)


def test_a_fault_is_said_and_does_not_end_the_timer(shot: Any, connected: Any, pump: Pump) -> None:
    """Blender removes a timer that raises."""
    bpy.ops.motionbooth.generate()
    shutil.rmtree(connected.folder / "jobs")

    def noticed() -> bool:
        assert controller._tick() > 0
        return state().notice_is_error

    pump(noticed)
    assert str(connected.folder / "jobs") in state().notice
    (connected.folder / "jobs").mkdir()
    pump(lambda: controller._tick() and len(bpy.context.scene.motionbooth.takes) == 1)


def test_jobs_wait_for_a_backend_that_is_restarted(
    shot: Any, connected: Any, pump: Pump, drawing_home: Path, tmp_path: Path
) -> None:
    """A job without a connection is kept, and sent when the backend is back."""
    good = preferences().connection_file
    connection = Connection.read(Path(good))
    away = Connection("tcp://127.0.0.1:9", connection.server_public, connection.client_public, connection.client_secret)
    away.write(tmp_path / "away.json")
    preferences().connection_file = str(tmp_path / "away.json")
    pump(lambda: state().connection == "DISCONNECTED")
    assert "tcp://127.0.0.1:9" in state().connection_text
    bpy.ops.motionbooth.generate()
    assert states() == ["sending"]
    bpy.ops.motionbooth.generate()
    bpy.ops.motionbooth.cancel_job(job=state().jobs[0].job)
    pump(lambda: states() == ["canceled", "sending"])
    preferences().connection_file = good
    pump(lambda: len(bpy.context.scene.motionbooth.takes) == 1)
    assert states() == ["canceled", "done"]


def test_a_corrupt_clip_is_reported(shot: Any, connected: Any, pump: Pump) -> None:
    generate(shot, pump, random_seed=False, seed=3)
    record = next(iter(connected.store.records.values()))
    shot.motionbooth.takes.clear()
    Path(record.clip).write_bytes(b"broken")
    bpy.ops.motionbooth.place_result()
    pump(lambda: state().notice_is_error)
    assert not shot.motionbooth.takes


def test_a_backend_on_another_machine_needs_online_access(at_work: Any, pump: Pump, tmp_path: Path) -> None:
    key = "x" * 40
    Connection("tcp://render-box:5599", key, key, key).write(tmp_path / "box.json")
    preferences().connection_file = str(tmp_path / "box.json")
    if bpy.app.online_access:
        pytest.skip("this Blender may go online")
    pump(lambda: state().connection == "OFFLINE")
    assert at_work.jobs.threads is None


def test_connecting_by_an_invitation_adds_the_users_own_keys(at_work: Any, tmp_path: Path) -> None:
    bpy.ops.motionbooth.export_public_key(filepath=str(tmp_path / "me.pub"))
    public = (tmp_path / "me.pub").read_text().strip()
    (tmp_path / "box.json").write_text('{"address": "tcp://127.0.0.1:9", "server_public": "' + "x" * 40 + '"}')
    bpy.ops.motionbooth.connect_by_file(filepath=str(tmp_path / "box.json"), address="tcp://localhost:9")
    kept = Path(preferences().connection_file)
    assert kept.stat().st_mode & 0o077 == 0, "for its owner's eyes only"
    connection = Connection.read(kept)
    assert (connection.address, connection.client_public) == ("tcp://localhost:9", public)
    bpy.ops.motionbooth.use_local_backend()
    assert preferences().connection_file == ""


def test_connecting_by_address_uses_the_users_own_keys(at_work: Any, tmp_path: Path) -> None:
    bpy.ops.motionbooth.export_public_key(filepath=str(tmp_path / "me.pub"))
    bpy.ops.motionbooth.connect_by_address(address="tcp://127.0.0.1:9", server_public=" " + "x" * 40)
    connection = Connection.read(Path(preferences().connection_file))
    assert (connection.address, connection.server_public) == ("tcp://127.0.0.1:9", "x" * 40)
    assert connection.client_public == (tmp_path / "me.pub").read_text().strip()
    with refused_by_operator(InvalidInput, expected=40, found=3):
        bpy.ops.motionbooth.connect_by_address(address="tcp://127.0.0.1:9", server_public="abc")


def test_a_key_exported_from_blender_is_authorized_by_the_backends_owner(
    at_work: Any, backend: RunningBackend, pump: Pump, tmp_path: Path
) -> None:
    backend.start()
    bpy.ops.motionbooth.export_public_key(filepath=str(tmp_path / "ann.pub"))
    shown = backend.connection
    bpy.ops.motionbooth.connect_by_address(address=shown.address, server_public=shown.server_public)
    pump(lambda: "refuses this key" in state().connection_text)
    keys.authorize(backend.home, "ann", (tmp_path / "ann.pub").read_text().strip())
    pump(lambda: state().connection == "CONNECTED")


@pytest.mark.parametrize(
    ("file", "address", "expected", "value"),
    [
        ("{}", "", InvalidInput, "problem"),
        ("not json", "", InvalidInput, "problem"),
        (None, "", NotFound, "path"),
        ("good", "render-box", InvalidInput, "address"),
    ],
)
def test_an_invalid_connection_file_is_refused_with_a_sentence(
    file: str | None, address: str, expected: type[Exception], value: str, at_work: Any, tmp_path: Path
) -> None:
    if file is not None:
        good = '{"address": "tcp://127.0.0.1:9", "server_public": "' + "x" * 40 + '"}'
        (tmp_path / "box.json").write_text(good if file == "good" else file)
    with refused_by_operator(expected, **{value: ...}):
        bpy.ops.motionbooth.connect_by_file(filepath=str(tmp_path / "box.json"), address=address)


def test_a_local_backend_is_started_found_again_and_stopped(at_work: Any, pump: Pump, tmp_path: Path) -> None:
    program = tmp_path / "motionbooth"
    server = Path(__file__).parents[1] / "drawing_server.py"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{server}" "$3"\n')
    program.chmod(0o755)
    preferences().backend_command = str(program)
    bpy.context.preferences.is_dirty = False
    bpy.ops.motionbooth.start_local_backend()
    assert bpy.context.preferences.is_dirty, "or the next Blender connects to the remote backend again"
    assert not bpy.ops.motionbooth.start_local_backend.poll(), "a second click, while it starts"
    pump(lambda: state().connection == "CONNECTED")
    assert not bpy.ops.motionbooth.start_local_backend.poll()
    again = controller.JobController(at_work.data)
    assert again.backend.local.running, "another Blender finds it"
    bpy.ops.motionbooth.stop_local_backend()
    pump(lambda: state().connection == "NONE")
    assert state().notice == ""


def test_a_local_backend_that_cannot_start_reports_why(at_work: Any, pump: Pump, tmp_path: Path) -> None:
    preferences().backend_command = str(tmp_path / "nowhere")
    with refused_by_operator(NotFound, preferred=str(tmp_path / "nowhere")):
        bpy.ops.motionbooth.start_local_backend()
    program = tmp_path / "motionbooth"
    program.write_text("#!/bin/sh\necho the disk is full\nexit 3\n")
    program.chmod(0o755)
    preferences().backend_command = str(program)
    bpy.ops.motionbooth.start_local_backend()
    pump(lambda: "the disk is full" in state().notice)
    assert state().connection == "NONE"


def test_a_folder_that_cannot_be_used_is_named_in_the_status_bar(
    scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(controller, "job_controller", lambda: controller.JobController(tmp_path / "file"))
    assert controller._tick() == controller.AFTER_ERROR_SECONDS
    assert str(tmp_path / "file") in state().notice
    state().notice = ""


def test_a_tick_stays_short_while_many_jobs_report(connected: Any) -> None:
    """Events beyond the budget wait for the next tick; none is lost."""
    queued = [StateChanged(f"nobodys-{number:06d}", JobState.RUNNING, 1) for number in range(200_000)]
    connected.jobs.threads._events.extend(queued)
    connected.tick()
    assert 0 < len(connected.jobs.threads._events) < len(queued)
