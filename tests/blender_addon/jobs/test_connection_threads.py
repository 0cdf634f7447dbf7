"""The connection's threads against a real server, over a network that breaks. No Blender."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path

import msgspec
import pytest
from motionbooth_addon._protocol import messages
from motionbooth_addon._protocol.client import Client
from motionbooth_addon._protocol.errors import Unreachable
from motionbooth_addon._protocol.jobs import Blob
from motionbooth_addon._protocol.messages import Progress
from motionbooth_addon._protocol.reports import PreviewReport
from motionbooth_addon.job_store import Render, TrainRequest
from motionbooth_addon.jobs.connection_threads import ConnectionThreads
from motionbooth_addon.jobs.events import (
    Cancel,
    Connected,
    Disconnected,
    Event,
    Fetch,
    Fetched,
    Follow,
    Generate,
    Refused,
    StateChanged,
    Train,
)
from motionbooth_protocol.connection import Connection
from running_backend import Proxy, RunningBackend, small_job

Wait = Callable[..., Event]
NOWHERE = Connection(
    "tcp://127.0.0.1:9",
    "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7",
    "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID",
    "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs",
)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[Connection], tuple[ConnectionThreads, Wait]]]:
    """Start the threads; returns them, and a function that waits for the next event of a type."""
    begun: list[ConnectionThreads] = []

    def begin(connection: Connection) -> tuple[ConnectionThreads, Wait]:
        threads = ConnectionThreads(connection, tmp_path / "previews", renderer=[]).start()
        begun.append(threads)
        heard: list[Event] = []

        def wait(kind: type[Event], **values: object) -> Event:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                heard.extend(threads.events())
                for event in heard:
                    if isinstance(event, kind) and all(
                        attrgetter(name)(event) == value for name, value in values.items()
                    ):
                        heard.remove(event)
                        return event
                time.sleep(0.01)
            raise TimeoutError(kind)

        return threads, wait

    yield begin
    for threads in begun:
        threads.stop()


def test_a_generation_is_submitted_followed_and_fetched(
    shared_backend: RunningBackend, begin: Callable, tmp_path: Path
) -> None:
    threads, wait = begin(shared_backend.connection)
    assert wait(Connected).models[0].name == "small"
    threads.send(Generate("clip-0001", small_job("steps=8 pause=0.05 size=700000", seed=3)))
    assert wait(Progress, job="clip-0001", **{"report.stage": "sampling"}).report.steps == 8
    (clip,) = [blob for blob in wait(StateChanged, state="done").results if blob.role == "clip"]
    threads.send(Fetch("clip-0001", clip, tmp_path / "clips" / "clip.mp4"))
    assert wait(Fetched).path.read_bytes() == bytes([3]) * 700_000


def test_many_jobs_are_followed_at_once(shared_backend: RunningBackend, begin: Callable) -> None:
    threads, wait = begin(shared_backend.connection)
    for number in range(5):
        threads.send(Generate(f"many-{number:04d}", small_job("steps=1", seed=100 + number)))
    for number in range(5):
        assert wait(StateChanged, state="done").job == f"many-{number:04d}"


def test_a_cancel_takes_effect_during_a_long_transfer(
    shared_backend: RunningBackend, begin: Callable, tmp_path: Path
) -> None:
    threads, wait = begin(shared_backend.connection)
    threads.send(Generate("large-001", small_job("steps=1 size=60000000", seed=9)))
    (clip,) = [blob for blob in wait(StateChanged, state="done").results if blob.role == "clip"]
    threads.send(Generate("slow-0001", small_job("steps=100 pause=0.1")))
    wait(StateChanged, job="slow-0001", state="running")
    threads.send(Fetch("large-001", clip, tmp_path / "clip.mp4"))
    threads.send(Cancel("slow-0001"))
    wait(StateChanged, job="slow-0001", state="canceled")
    wait(Fetched)


def test_a_training_is_submitted_with_its_pictures(
    shared_backend: RunningBackend, begin: Callable, tmp_path: Path
) -> None:
    threads, wait = begin(shared_backend.connection)
    threads.send(Train("train-0001", training(tmp_path), tmp_path))
    (subject,) = wait(StateChanged, state="done").results
    assert (subject.role, subject.size) == ("subject", len(b"a picture"))


def test_a_command_that_cannot_be_carried_out_is_refused_with_a_reason(
    shared_backend: RunningBackend, begin: Callable, tmp_path: Path
) -> None:
    threads, wait = begin(shared_backend.connection)
    request = TrainRequest(
        name="Imp", token="sks", class_word="toy", model="small", pictures=[(str(tmp_path / "no.png"), None)]
    )
    threads.send(Train("train-0002", request, tmp_path))
    assert wait(Refused).error.text.values == {"path": str(tmp_path / "no.png")}
    threads.send(Cancel("never-was"))
    wait(Refused)
    threads.send(Follow("never-was"))
    assert wait(StateChanged, state="failed").error.code == "not_found"


def test_a_broken_network_and_a_restarted_backend_lose_nothing(backend: RunningBackend, begin: Callable) -> None:
    backend.start()
    proxy = Proxy(backend.connection.address)
    try:
        threads, wait = begin(msgspec.structs.replace(backend.connection, address=proxy.address))
        wait(Connected)
        threads.send(Generate("clip-0002", small_job("steps=40 pause=0.1")))
        wait(StateChanged, job="clip-0002", state="running")
        proxy.is_open = False
        proxy.cut()
        wait(Disconnected)
        threads.send(Generate("clip-0003", small_job("steps=1", seed=5)))
        backend.stop()
        backend.start()
        proxy.is_open = True
        wait(Connected)
        wait(StateChanged, job="clip-0002", state="done")
        wait(StateChanged, job="clip-0003", state="done")
    finally:
        threads.stop()
        proxy.close()


def test_an_unsent_job_is_canceled_without_a_backend(begin: Callable) -> None:
    threads, wait = begin(NOWHERE)
    wait(Disconnected)
    threads.send(Generate("clip-0004", small_job()))
    threads.send(Cancel("clip-0004"))
    wait(StateChanged, job="clip-0004", state="canceled")
    assert not threads._requests


def test_an_unreachable_backend_is_reported_at_once_and_stopping_is_quick(begin: Callable) -> None:
    threads, wait = begin(NOWHERE)
    assert wait(Disconnected).error.code == "unreachable"
    began = time.monotonic()
    threads.stop()
    assert time.monotonic() - began < 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("MotionBooth")]


def test_a_stage_name_cannot_lead_a_preview_to_another_folder(tmp_path: Path) -> None:
    threads = ConnectionThreads(NOWHERE, tmp_path / "previews", renderer=[])
    (tmp_path / "previews" / "job-0001_").mkdir(parents=True)
    for step in range(2):
        report = PreviewReport("/../../evil", step, 2, 1, 1, b"a picture")
        threads._handle_push(messages.Preview(job="job-0001", report=report))
    (shown,) = threads.events()
    assert shown.path.parent == tmp_path / "previews"
    assert shown.path.read_bytes() == b"a picture"
    assert list(tmp_path.iterdir()) == [tmp_path / "previews"]


def training(folder: Path, **values: object) -> TrainRequest:
    (folder / "a.png").write_bytes(b"a picture")
    pictures = [(str(folder / "a.png"), None)]
    return TrainRequest(name="Imp", token="sks", class_word="toy", model="small", pictures=pictures, **values)


def test_an_unsent_training_is_canceled_without_a_backend(begin: Callable, tmp_path: Path) -> None:
    threads, wait = begin(NOWHERE)
    wait(Disconnected)
    threads.send(Train("train-0003", training(tmp_path), tmp_path))
    threads.send(Cancel("train-0003"))
    wait(StateChanged, job="train-0003", state="canceled")


def test_a_cancel_that_arrives_during_the_submission_is_not_lost(
    shared_backend: RunningBackend, begin: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, wait = begin(shared_backend.connection)
    wait(Connected)

    def submit(client: Client, job: str, spec: object) -> None:
        threads.send(Cancel(job))
        time.sleep(0.5)  # so that the other thread has seen it
        original(client, job, spec)

    canceled: queue.SimpleQueue[str] = queue.SimpleQueue()
    original = Client.submit
    monkeypatch.setattr(Client, "submit", submit)
    monkeypatch.setattr(Client, "cancel", lambda _, job: canceled.put(job))
    threads.send(Train("train-0004", training(tmp_path), tmp_path))
    assert canceled.get(timeout=30) == "train-0004", "on the backend"


def test_a_rendering_that_reports_nothing_ends_with_its_job_or_with_the_threads(
    shared_backend: RunningBackend, begin: Callable, tmp_path: Path
) -> None:
    deaf = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); signal.signal(2, signal.SIG_IGN)"
    renderer = [sys.executable, "-c", f"import os, signal, time; {deaf}; time.sleep(60)"]
    request = training(tmp_path, render=Render("object.blend", "Imp", 1, 64))
    for by_cancel in (True, False):
        threads, wait = begin(shared_backend.connection)
        threads._renderer = renderer
        threads.send(Train("train-0005", request, tmp_path / "pictures"))
        while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        pid = int((tmp_path / "pid").read_text())
        (tmp_path / "pid").unlink()
        if by_cancel:
            threads.send(Cancel("train-0005"))
            wait(StateChanged, job="train-0005", state="canceled")
        threads.stop()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("MotionBooth")]
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_transfer_is_tried_again_although_only_its_own_session_broke(
    shared_backend: RunningBackend, begin: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(client: Client, blob: Blob, path: Path, on_bytes: object) -> None:
        if not tried:
            tried.append(path)
            raise Unreachable("It did not reply.")

    tried: list[Path] = []
    monkeypatch.setattr(Client, "fetch", fetch)
    threads, wait = begin(shared_backend.connection)
    wait(Connected)
    threads.send(Fetch("clip-0005", Blob("clip", "0" * 64, 1), tmp_path / "clip.mp4"))
    wait(Fetched)


def test_a_fault_of_ours_is_reported_and_ends_no_thread(
    shared_backend: RunningBackend, begin: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, wait = begin(shared_backend.connection)
    wait(Connected)
    clip = Fetch("clip-0006", Blob("clip", "0" * 64, 1), tmp_path / "clip.mp4")
    with monkeypatch.context() as patched:
        for method in ("attach", "fetch"):
            patched.setattr(Client, method, lambda *_: 1 / 0)
        for command in (Follow("clip-0006"), clip):
            threads.send(command)
            assert "ZeroDivisionError" in str(wait(Refused, command=command).error)
    threads.send(Follow("clip-0006"))
    assert wait(StateChanged, state="failed").error.code == "not_found"
    threads.send(clip)
    assert wait(Refused).error.code == "not_found"
