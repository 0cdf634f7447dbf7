"""What the user sees: training and generation in one step, an unreachable backend, messages, pickers, previews."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from drawing_backend import DRAWING_SERVER
from motionbooth_protocol.client import Client
from PIL import Image
from refused import refused_by_operator
from running_backend import wait_until

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth_addon import properties, thumbnails  # noqa: E402
from motionbooth_addon._protocol.errors import InvalidInput, MotionBoothError  # noqa: E402
from motionbooth_addon._protocol.text import Text  # noqa: E402
from motionbooth_addon.jobs import controller, specs  # noqa: E402
from motionbooth_addon.operators.jobs import is_connected  # noqa: E402
from motionbooth_addon.panels import jobs as panel  # noqa: E402
from motionbooth_addon.preferences import preferences  # noqa: E402
from motionbooth_addon.timeline import takes  # noqa: E402
from motionbooth_addon.ui_state import state  # noqa: E402

Pump = Callable[..., None]


@pytest.fixture
def shot(connected: Any, scene: Any, tmp_path: Path) -> Any:
    """A scene with a subject that is not trained yet, with training images."""
    (tmp_path / "toys").mkdir()
    Image.new("RGB", (64, 64), (200, 40, 40)).save(tmp_path / "toys" / "toy.png")
    bpy.ops.motionbooth.add_subject_box()
    subject = scene.motionbooth.subjects[0]
    subject.name, subject.token, subject.class_word = "Nib", "sks", "toy"
    subject.training_images = str(tmp_path / "toys")
    bpy.ops.motionbooth.add_to_prompt()
    bpy.ops.wm.save_mainfile()
    return scene


def train_slowly(shot: Any) -> None:
    """With another class each time: the backend returns an earlier training at once."""
    subject = shot.motionbooth.subjects[0]
    subject.class_word = f"slow {uuid.uuid4().hex[:8]}x"
    shot.motionbooth.prompt = f"a sks {subject.class_word}"


def states() -> dict[str, str]:
    """The state of the newest job of each kind."""
    return {row.kind: row.state for row in reversed(state().jobs)}


def weights_of_take() -> str | None:
    shot = bpy.context.scene.motionbooth
    return takes.spec_of(shot.takes[0]).shot.subjects[0].weights if shot.takes else None


# Train, then generate


def test_one_click_trains_and_generates(
    shot: Any, connected: Any, pump: Pump, capfd: pytest.CaptureFixture[str]
) -> None:
    bpy.ops.motionbooth.generate()
    assert states() == {"train": "sending", "generate": "waiting"}
    assert "Waiting for the training of Nib" in capfd.readouterr().out
    chosen = state().jobs[state().active_job]
    assert (chosen.kind, chosen.awaits) == ("generate", "Nib"), "the new job is the selected one"
    pump(lambda: weights_of_take())
    assert states() == {"train": "done", "generate": "done"}
    assert weights_of_take() == bpy.context.scene.motionbooth.subjects[0].weights


def test_doubts_about_training_masks_are_shown_with_the_job(shot: Any, pump: Pump) -> None:
    subject = shot.motionbooth.subjects[0]
    subject.class_word = "doubtful toy"
    shot.motionbooth.prompt = f"a sks {subject.class_word}"
    bpy.ops.motionbooth.train_subject()
    pump(lambda: state().jobs[0].doubts and Path(state().jobs[0].doubts).is_file())
    assert tuple(map(str, panel.mask_doubts(state().jobs[0].doubts))) == (
        "The mask of picture 1 of 1 (toy.png) may be wrong: it reaches the picture's border.",
        "The mask of picture 1 of 1 (toy.png) may be wrong: a search from other starting points finds something else.",
    )
    assert panel.mask_doubts("nowhere.json") == ()


def test_a_clip_waits_for_a_running_training_and_no_subject_is_trained_twice(shot: Any, pump: Pump) -> None:
    train_slowly(shot)
    bpy.ops.motionbooth.train_subject()
    with refused_by_operator(InvalidInput, subject="Nib"):
        bpy.ops.motionbooth.train_subject()
    shot.motionbooth.take_count = 2
    bpy.ops.motionbooth.generate()
    pump(lambda: states()["train"] == "running")
    assert [row.state for row in state().jobs] == ["waiting", "waiting", "running"]
    assert state().jobs[state().active_job].name == "Scene 1 of 2", "the first to be made is selected"
    pump(lambda: len(bpy.context.scene.motionbooth.takes) == 2)
    assert [row.state for row in state().jobs] == ["done", "done", "done"]


def test_a_clip_is_run_again_after_its_training_was_removed_from_the_list(shot: Any, pump: Pump) -> None:
    bpy.ops.motionbooth.generate()
    pump(weights_of_take)
    training, clip = (next(row.job for row in state().jobs if row.kind == kind) for kind in ("train", "generate"))
    bpy.ops.motionbooth.remove_job(job=training)
    bpy.ops.motionbooth.retry_job(job=clip)
    assert state().jobs[0].state == "sending", "its subject is trained"
    pump(lambda: len(bpy.context.scene.motionbooth.takes) == 2)


def test_a_waiting_clip_survives_closing_blender(shot: Any, connected: Any, pump: Pump, tmp_path: Path) -> None:
    train_slowly(shot)
    bpy.ops.motionbooth.generate()
    pump(lambda: states()["train"] == "running")
    bpy.ops.wm.save_mainfile()
    connection = connected.jobs.threads.connection
    training = next(record.id for record in connected.store.records.values() if record.kind == "train")
    connected.close()  # Blender ends; the training does not
    with Client(connection) as client:
        wait_until(lambda: client.get(training).state == "done")
        assert not [
            job for job in client.jobs() if job.kind == "generate" and job.created > client.get(training).created
        ]
    controller._controller = again = controller.JobController(connected.data)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))

    def placed() -> str | None:
        again.tick()
        return weights_of_take()

    wait_until(placed)
    assert weights_of_take() == bpy.context.scene.motionbooth.subjects[0].weights


def test_a_clip_whose_training_is_canceled_fails_with_a_reason(shot: Any, connected: Any, pump: Pump) -> None:
    train_slowly(shot)
    bpy.ops.motionbooth.generate()
    pump(lambda: states()["train"] == "running")
    training = next(row.job for row in state().jobs if row.kind == "train")
    bpy.ops.motionbooth.cancel_job(job=training)
    pump(lambda: states() == {"train": "canceled", "generate": "failed"})
    (error,) = [row.error for row in state().jobs if row.error]
    assert error == 'Subject "Nib" was not trained; train it, then generate again.'


def test_a_waiting_clip_is_canceled_and_its_training_continues(shot: Any, connected: Any, pump: Pump) -> None:
    bpy.ops.motionbooth.generate()
    bpy.ops.motionbooth.cancel_job()
    assert states()["generate"] == "canceled"
    pump(lambda: states()["train"] == "done")
    pump(lambda: bpy.context.scene.motionbooth.subjects[0].weights)
    assert states()["generate"] == "canceled"


def test_a_subject_without_training_images_disables_the_button(shot: Any) -> None:
    shot.motionbooth.subjects[0].training_images = ""
    assert not bpy.ops.motionbooth.generate.poll()
    shot.motionbooth.subjects[0].token = ""
    assert bpy.ops.motionbooth.generate.poll(), "as the model knows it"


# A backend that is gone


class OwnBackend:
    """A backend that a test may kill."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.start()

    def start(self) -> None:
        (self.home / "connection.json").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, str(DRAWING_SERVER), str(self.home)], stdout=subprocess.DEVNULL
        )
        wait_until((self.home / "connection.json").exists)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def own(at_work: Any, tmp_path: Path, pump: Pump) -> Iterator[OwnBackend]:
    own = OwnBackend(tmp_path / "own")
    preferences().connection_file = str(own.home / "connection.json")
    pump(lambda: state().connection == "CONNECTED")
    yield own
    own.kill()


def test_progress_of_an_unreachable_backend_is_hidden(
    own: OwnBackend, scene: Any, pump: Pump, capfd: pytest.CaptureFixture[str]
) -> None:
    bpy.ops.motionbooth.add_subject_box()
    subject = scene.motionbooth.subjects[0]
    subject.class_word, subject.token = "dog", ""
    bpy.ops.motionbooth.add_to_prompt()
    scene.motionbooth.random_seed, scene.motionbooth.seed = False, 999
    bpy.ops.motionbooth.generate()
    assert 'Generating 1 take of "Scene"' in capfd.readouterr().out
    pump(lambda: state().jobs[0].stage == "sampling" and state().jobs[0].seconds_left > 0)
    own.kill()
    began = time.monotonic()
    pump(lambda: not is_connected())
    assert time.monotonic() - began < 15
    for _ in range(20):  # nothing that was on its way comes after it
        controller.job_controller().tick()
    (row,) = state().jobs
    assert (row.state, row.stage, row.factor, row.seconds_left) == ("running", "", 0, -1)
    assert panel.state_of(row) == "Backend unreachable"
    running = row.job
    scene.motionbooth.seed = 1
    bpy.ops.motionbooth.generate()
    message = capfd.readouterr().out
    assert "1 take of" in message
    assert "sent once it is connected" in message
    assert "Generating" not in message
    assert panel.state_of(state().jobs[0]) == "Not sent yet"
    bpy.ops.motionbooth.cancel_job(job=running)  # heard when it is back
    own.start()
    pump(lambda: [row.state for row in state().jobs] == ["done", "canceled"])


def test_without_a_backend_nothing_is_submitted(own: OwnBackend, scene: Any, pump: Pump) -> None:
    bpy.ops.motionbooth.add_subject_box()
    scene.motionbooth.subjects[0].class_word, scene.motionbooth.subjects[0].token = "dog", ""
    bpy.ops.motionbooth.add_to_prompt()
    assert bpy.ops.motionbooth.generate.poll()
    preferences().connection_file = ""
    pump(lambda: state().connection == "NONE")
    assert not bpy.ops.motionbooth.generate.poll()
    with pytest.raises(MotionBoothError):
        controller.job_controller().submit(scene, specs.generate_specs(scene)[0], "Scene")
    assert not state().jobs


# Words and pickers


def test_an_empty_prompt_is_reported_with_what_to_write(shot: Any) -> None:
    shot.motionbooth.prompt = "  "
    with refused_by_operator(InvalidInput, phrase="sks toy"):
        bpy.ops.motionbooth.generate()
    assert not state().jobs


@pytest.mark.parametrize(
    ("token", "class_word", "found"),
    [("two words", "toy", '"two words"'), ("sks", "42", '"42"'), ("sks", " ", Text("empty"))],
)
def test_words_that_cannot_be_trained_are_refused(token: str, class_word: str, found: str | Text, shot: Any) -> None:
    subject = shot.motionbooth.subjects[0]
    subject.token, subject.class_word, shot.motionbooth.prompt = token, class_word, f"a {token} {class_word}"
    for button in (bpy.ops.motionbooth.generate, bpy.ops.motionbooth.train_subject):
        with refused_by_operator(InvalidInput, found=found):
            button()
    assert not state().jobs


def test_object_pickers_offer_objects_with_a_surface_and_no_subject_box(
    at_work: Any, scene: Any, add_cube: Callable[..., Any]
) -> None:
    bpy.ops.motionbooth.add_subject_box()
    bpy.ops.motionbooth.add_subject_box()
    cube, light = add_cube(scene), bpy.data.objects.new("Light", bpy.data.lights.new("Light", "SUN"))
    rig = bpy.data.objects.new("Rig", None)
    cube.parent = rig
    lonely, copies = bpy.data.objects.new("Lonely", None), bpy.data.objects.new("Copies", None)
    copies.instance_collection = bpy.data.collections.new("Toys")
    for thing in (light, rig, lonely, copies):
        scene.collection.objects.link(thing)
    subject = scene.motionbooth.subjects[0]

    def offered(picker: str) -> set[str]:
        poll = properties.MotionBoothSubject.__annotations__[picker].keywords["poll"]
        return {thing.name for thing in scene.objects if poll(subject, thing)}

    assert offered("training_object") == {"Cube", "Rig", "Copies"}
    assert offered("object") == {"Cube", "Rig", "Copies", "Lonely", "Subject Box", "Subject Box.001"}


def test_a_preview_is_shown_large_frame_by_frame(shot: Any, connected: Any, pump: Pump) -> None:
    """From the backend's bytes to the pixels that a panel draws: each frame in full resolution."""
    shot.motionbooth.subjects[0].token, shot.motionbooth.prompt = "", "a toy"
    shot.motionbooth.random_seed, shot.motionbooth.seed = False, 999
    bpy.ops.motionbooth.generate()
    pump(lambda: state().jobs and state().jobs[0].picture)
    row = state().jobs[0]
    path, shape = row.picture, panel.frame_shape(row)
    assert shape == pytest.approx(96 / 64)
    assert thumbnails.large_icons("job", path, shape) == [], "a panel may not make images while it is drawn"
    images = len(bpy.data.images)
    pump(lambda: thumbnails.large_icons("job", path, shape))
    assert len(bpy.data.images) == images, "nothing is left in the file"
    assert len(thumbnails.large_icons("job", path, shape)) == 3
    colors = []
    for preview in [
        preview for name, preview in thumbnails._icons.items() if name.startswith(path) and "@1.5@" in name
    ]:
        assert tuple(preview.image_size) == (256, 171)
        middle = 4 * (256 * 85 + 128)
        colors.append([round(part) for part in preview.image_pixels_float[middle : middle + 3]])
    assert colors == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    bpy.ops.motionbooth.cancel_job()
    pump(lambda: states()["generate"] == "canceled")
