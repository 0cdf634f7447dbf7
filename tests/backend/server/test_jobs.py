"""Jobs that run, are cached, canceled, retried or fail, with the real loop, sockets and worker processes."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest
from motionbooth_protocol.client import Client, new_job_id
from motionbooth_protocol.errors import Canceled, JobFailed, NotAuthorized, NotFound
from motionbooth_protocol.jobs import GenerateSpec, Guide, Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.messages import Event, Progress
from motionbooth_protocol.motion import Box, SubjectTrack
from motionbooth_protocol.reports import PreviewReport
from msgspec.structs import replace
from refused import refused
from running_backend import SHOT, RunningBackend, is_running, small_job, wait_until


@pytest.fixture
def client(shared_backend: RunningBackend) -> Client:
    with shared_backend.client() as client:
        yield client


def run(client: Client, spec: GenerateSpec) -> tuple[str, list[Event], list[Progress]]:
    events: list[Event] = []
    progress: list[Progress] = []
    job = new_job_id()
    client.submit(job, spec)
    client.follow(job, progress.append, events.append)
    return job, events, progress


def test_a_job_reports_progress_and_returns_its_clip(client: Client, tmp_path: Path) -> None:
    job, events, progress = run(client, small_job("steps=5 pause=0.15 size=600000", seed=7))
    assert [(event.seq, event.state) for event in events] == [(1, "queued"), (2, "running"), (3, "done")]
    assert [p.step for p in progress] == [0, 1, 2, 3, 4]
    assert progress[0].seconds_left is None
    assert progress[3].seconds_left == pytest.approx(0.3, abs=0.25)
    blob = client.get(job).result("clip")
    client.fetch(blob, tmp_path / "clip.mp4")
    assert (tmp_path / "clip.mp4").read_bytes() == bytes([7]) * 600_000
    assert blob.sha256 == hashlib.sha256(bytes([7]) * 600_000).hexdigest()
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_running_job_sends_previews(client: Client) -> None:
    job, shown = new_job_id(), list[PreviewReport]()
    client.submit(job, small_job("steps=4 pause=0.1 preview=60000", seed=60))
    client.follow(job, on_preview=shown.append)
    assert len(shown) >= 2
    for preview in shown:
        assert (preview.stage, preview.steps, preview.width, preview.height) == ("sampling", 4, 64, 48)
        assert preview.picture == bytes([preview.step]) * 60_000


def test_the_worker_stays_warm_between_jobs(client: Client) -> None:
    run(client, small_job(seed=100))
    began = time.monotonic()
    for seed in range(101, 111):
        run(client, small_job(seed=seed))
    assert (time.monotonic() - began) / 10 < 0.5


def test_a_job_that_was_done_before_is_done_at_once(client: Client) -> None:
    first, _, _ = run(client, small_job(seed=1))
    again = client.submit(new_job_id(), small_job(seed=1))
    assert (again.state, again.cached) == ("done", True)
    assert client.follow(again.job).results == client.get(first).results


def test_two_duplicate_trainings_train_once(backend: RunningBackend, tmp_path: Path) -> None:
    """As from two .blend files of one batch with the same subject."""
    (tmp_path / "picture.png").write_bytes(b"pixels")
    backend.start(WORKERS="2")
    with backend.client() as client:
        picture = Picture(client.upload(tmp_path / "picture.png"))
        spec = TrainSpec(SubjectSpec("steps=5 pause=0.2", "sks", "toy", [picture]), model="small")
        first, second = new_job_id(), new_job_id()
        for job in (first, second):
            client.submit(job, spec)
        ended = [client.follow(job) for job in (second, first)]
        assert ended[0].results == ended[1].results
        assert sorted(job.attempt for job in ended) == [0, 1]
        assert len(client.subjects()) == 1


def test_a_queued_job_is_canceled_at_once_and_a_running_one_at_its_next_step(client: Client) -> None:
    running, queued = new_job_id(), new_job_id()
    client.submit(running, small_job("steps=1000 pause=0.05", seed=4))
    client.submit(queued, small_job(seed=5))
    assert client.cancel(queued) == "canceled"
    wait_until(lambda: client.get(running).state == "running")
    assert client.cancel(running) == "running"
    with pytest.raises(Canceled):
        client.follow(running)
    assert client.cancel(running) == "canceled"
    assert client.get(queued).attempt == 0


def test_a_worker_that_ignores_a_cancel_is_killed_and_the_next_job_runs(backend: RunningBackend) -> None:
    backend.start()
    with backend.client() as client:
        job = new_job_id()
        client.submit(job, small_job("steps=1000 pause=1 deaf"))
        worker = backend.worker_pid()
        client.cancel(job)
        with pytest.raises(Canceled):
            client.follow(job)
        wait_until(lambda: not is_running(worker), 5)
        run(client, small_job())


def test_invalid_input_fails_the_job_with_its_own_message(client: Client) -> None:
    with pytest.raises(JobFailed, match=r"^The prompt lacks the subject; add it\.$"):
        run(client, small_job("invalid", seed=10))


def test_a_bug_is_one_sentence_for_the_owner_and_a_traceback_in_the_log(
    client: Client, shared_backend: RunningBackend
) -> None:
    with refused(JobFailed, kind="ZeroDivisionError", machine=...):
        run(client, small_job("fault", seed=11))
    log = (shared_backend.home / "logs" / "worker.log").read_text()
    assert "Traceback" in log
    assert "an internal detail" in log


def test_a_job_that_names_a_file_the_backend_lacks_is_refused(client: Client) -> None:
    track = SubjectTrack(name="toy", class_word="toy", token="sks", boxes=[Box(0, 0, 1, 1)] * 8, weights="0" * 64)
    with pytest.raises(NotFound):
        client.submit(new_job_id(), GenerateSpec(shot=replace(SHOT, subjects=[track]), prompt="a sks toy"))


def test_the_files_of_a_guide_are_inputs_of_its_job(client: Client, tmp_path: Path) -> None:
    (tmp_path / "guide.mp4").write_bytes(b"frames")
    guide = Guide(client.upload(tmp_path / "guide.mp4"), 0.5, 0.3)
    run(client, replace(small_job(seed=77), guide=guide))
    with pytest.raises(NotFound):
        client.submit(new_job_id(), replace(small_job(seed=77), guide=replace(guide, masks="0" * 64)))


def test_a_trained_subject_is_listed_for_its_owner_only_and_can_be_used(
    client: Client, shared_backend: RunningBackend, tmp_path: Path
) -> None:
    (tmp_path / "picture.png").write_bytes(b"pixels")
    picture = Picture(client.upload(tmp_path / "picture.png"))
    train = new_job_id()
    client.submit(train, TrainSpec(subject=SubjectSpec("Toy", "sks", "toy", [picture]), model="small"))
    weights = client.follow(train).result("subject").sha256
    (subject,) = client.subjects()
    assert (subject.name, subject.token, subject.class_word, subject.weights) == ("Toy", "sks", "toy", weights)

    track = SubjectTrack(name="toy", class_word="toy", token="sks", boxes=[Box(0, 0, 1, 1)] * 8, weights=weights)
    run(client, GenerateSpec(shot=replace(SHOT, subjects=[track]), prompt="steps=1 a sks toy"))

    with shared_backend.client(connection=shared_backend.new_key("another")) as other:
        assert other.subjects() == []


def test_a_job_belongs_to_the_key_that_sent_it(client: Client, shared_backend: RunningBackend) -> None:
    job, _, _ = run(client, small_job(seed=14))
    with shared_backend.client(connection=shared_backend.new_key("stranger")) as stranger:
        assert stranger.jobs() == []
        for look in (stranger.get, stranger.cancel, stranger.follow):
            with pytest.raises(NotFound):
                look(job)
        assert stranger.submit(job, small_job(seed=15)).cached is False


def test_only_an_admin_can_use_a_priority_above_0(client: Client, shared_backend: RunningBackend) -> None:
    client.submit(new_job_id(), small_job(seed=17), priority=1)
    with shared_backend.client(connection=shared_backend.new_key("hurried")) as other:
        with pytest.raises(NotAuthorized):
            other.submit(new_job_id(), small_job(seed=18), priority=1)
        other.submit(new_job_id(), small_job(seed=18), priority=-1)


def test_nothing_of_a_finished_job_is_left_in_scratch(client: Client, shared_backend: RunningBackend) -> None:
    run(client, small_job(seed=16))
    wait_until(lambda: list((shared_backend.home / "scratch").iterdir()) == [], 5)
