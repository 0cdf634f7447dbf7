"""The batch's job client against a real server, over a network that breaks. No Blender."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from motionbooth_addon._protocol.errors import Canceled, JobFailed, MotionBoothError, NotFound, Unreachable
from motionbooth_addon._protocol.jobs import GenerateSpec
from motionbooth_addon.batch import blocking_jobs
from motionbooth_addon.batch.blocking_jobs import BlockingJobs
from motionbooth_addon.job_store import TrainRequest
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.reports import ProgressReport
from refused import refused
from running_backend import Proxy, RunningBackend, small_job

Open = Callable[[Connection], BlockingJobs]


def request(prompt: str, seed: int = 0) -> GenerateSpec:
    """A small job, as a struct of the extension's copy of the contract."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(small_job(prompt, seed)), type=GenerateSpec)


def train_request(picture: Path) -> TrainRequest:
    return TrainRequest(name="Imp", token="sks", class_word="toy", model="small", pictures=[(str(picture), None)])


@pytest.fixture
def reports() -> list[ProgressReport]:
    return []


@pytest.fixture
def open_jobs(tmp_path: Path, reports: list[ProgressReport]) -> Iterator[Open]:
    opened: list[BlockingJobs] = []

    def open_jobs(connection: Connection) -> BlockingJobs:
        opened.append(BlockingJobs(connection, tmp_path / f"scratch{len(opened)}", reports.append))
        return opened[-1]

    yield open_jobs
    for jobs in opened:
        jobs.close()


def test_a_clip_waits_for_its_training_and_is_fetched(
    shared_backend: RunningBackend, open_jobs: Open, reports: list[ProgressReport], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"a picture")
    jobs = open_jobs(shared_backend.connection)
    assert [model.name for model in jobs.models()] == ["small"]
    training = jobs.submit(train_request(tmp_path / "a.png"), "Imp")
    clip = jobs.submit(request("steps=3 pause=0.3", seed=4), "hop", {"Imp": training.id})
    jobs.wait_until_done(clip)
    assert training.state == "done"
    assert jobs.train_specs[training.id].subject.name == "Imp"
    jobs.fetch_clip(clip, tmp_path / "out" / "clip.mp4")
    assert (tmp_path / "out" / "clip.mp4").read_bytes() == bytes([4]) * 1000
    stages = [(report.stage, str(report.note)) for report in reports]
    assert stages[0] == ("uploading pictures", "Imp")
    assert stages[-1][0] == "downloading"


def test_a_failed_job_raises_its_reason_and_a_canceled_one_is_canceled(
    shared_backend: RunningBackend, open_jobs: Open
) -> None:
    jobs = open_jobs(shared_backend.connection)
    failing = jobs.submit(request("invalid"), "hop")
    with pytest.raises(JobFailed) as failed:
        jobs.wait_until_done(failing)
    assert str(failed.value) == str(failing.error) != ""
    slow = jobs.submit(request("steps=200 pause=0.1"), "hop")
    jobs.cancel()
    with pytest.raises(Canceled):
        jobs.wait_until_done(slow)


def test_a_missing_picture_is_refused(shared_backend: RunningBackend, open_jobs: Open, tmp_path: Path) -> None:
    jobs = open_jobs(shared_backend.connection)
    training = jobs.submit(train_request(tmp_path / "no.png"), "Imp")
    with refused(NotFound, path=str(tmp_path / "no.png")):
        jobs.wait_until_done(training)


def test_an_unreachable_backend_is_reported_at_once(shared_backend: RunningBackend, open_jobs: Open) -> None:
    nowhere = msgspec.structs.replace(shared_backend.connection, address="tcp://127.0.0.1:9")
    began = time.monotonic()
    with refused(Unreachable, address="tcp://127.0.0.1:9"):
        open_jobs(nowhere).models()
    assert time.monotonic() - began < blocking_jobs._PATIENCE / 10


def test_a_lost_connection_is_waited_for_until_patience_ends(
    backend: RunningBackend, open_jobs: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.start()
    proxy = Proxy(backend.connection.address)
    try:
        jobs = open_jobs(msgspec.structs.replace(backend.connection, address=proxy.address))
        clip = jobs.submit(request("steps=20 pause=0.1"), "hop")
        jobs.models()

        def interrupt() -> None:
            proxy.is_open = False
            proxy.cut()
            time.sleep(1)
            proxy.is_open = True

        interruption = threading.Timer(0.5, interrupt)
        interruption.start()
        jobs.wait_until_done(clip)
        interruption.join()
        slow = jobs.submit(request("steps=200 pause=0.1", seed=2), "hop")
        monkeypatch.setattr(blocking_jobs, "_PATIENCE", 1.0)
        proxy.is_open = False
        proxy.cut()
        with pytest.raises(
            MotionBoothError
        ) as lost:  # a connection that is cut in its handshake looks like a wrong key
            jobs.wait_until_done(slow)
        assert lost.value.retryable
    finally:
        proxy.close()
