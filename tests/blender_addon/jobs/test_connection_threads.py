"""The threads against a real server, through a network that breaks. No Blender."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path

import msgspec
import pytest
from motionbooth_addon._protocol import messages
from motionbooth_addon._protocol.messages import Progress
from motionbooth_addon._protocol.reports import PreviewReport
from motionbooth_addon.jobs.connection_threads import Background
from motionbooth_addon.jobs.events import (
    Cancel,
    Changed,
    Fetch,
    Fetched,
    Film,
    Follow,
    Linked,
    Lost,
    News,
    Refused,
    Train,
)
from motionbooth_addon.jobs.job_store import TrainOrder
from motionbooth_protocol.connection import Connection
from running_backend import Proxy, RunningBackend, small_job

Wait = Callable[..., News]
NOBODY = Connection(
    "tcp://127.0.0.1:9",
    "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7",
    "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID",
    "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs",
)


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[[Connection], tuple[Background, Wait]]]:
    """Start the threads; gives them, and a wait for a piece of news of a kind, each once."""
    begun: list[Background] = []

    def begin(connection: Connection) -> tuple[Background, Wait]:
        background = Background(connection, tmp_path / "previews", renderer=[]).start()
        begun.append(background)
        heard: list[News] = []

        def wait(kind: type[News], **values: object) -> News:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                heard.extend(background.news())
                for news in heard:
                    if isinstance(news, kind) and all(
                        attrgetter(name)(news) == value for name, value in values.items()
                    ):
                        heard.remove(news)
                        return news
                time.sleep(0.01)
            raise TimeoutError(kind)

        return background, wait

    yield begin
    for background in begun:
        background.stop()


def test_a_film_is_sent_followed_and_fetched(shared_backend: RunningBackend, begin: Callable, tmp_path: Path) -> None:
    background, wait = begin(shared_backend.connection)
    assert wait(Linked).models[0].name == "small"
    background.order(Film("film-0001", small_job("steps=8 pause=0.05 size=700000", seed=3)))
    assert wait(Progress, job="film-0001", **{"report.stage": "sampling"}).report.steps == 8
    (clip,) = [blob for blob in wait(Changed, state="done").results if blob.role == "clip"]
    background.order(Fetch("film-0001", clip, tmp_path / "clips" / "clip.mp4"))
    assert wait(Fetched).path.read_bytes() == bytes([3]) * 700_000


def test_many_jobs_are_followed_at_once(shared_backend: RunningBackend, begin: Callable) -> None:
    background, wait = begin(shared_backend.connection)
    for number in range(5):
        background.order(Film(f"many-{number:04d}", small_job("steps=1", seed=100 + number)))
    for number in range(5):
        assert wait(Changed, state="done").job == f"many-{number:04d}"


def test_a_cancel_is_heard_while_a_long_transfer_goes_on(
    shared_backend: RunningBackend, begin: Callable, tmp_path: Path
) -> None:
    background, wait = begin(shared_backend.connection)
    background.order(Film("large-001", small_job("steps=1 size=60000000", seed=9)))
    (clip,) = [blob for blob in wait(Changed, state="done").results if blob.role == "clip"]
    background.order(Film("slow-0001", small_job("steps=100 pause=0.1")))
    wait(Changed, job="slow-0001", state="running")
    background.order(Fetch("large-001", clip, tmp_path / "clip.mp4"))
    background.order(Cancel("slow-0001"))
    wait(Changed, job="slow-0001", state="canceled")
    wait(Fetched)


def test_a_training_is_sent_with_its_pictures(shared_backend: RunningBackend, begin: Callable, tmp_path: Path) -> None:
    background, wait = begin(shared_backend.connection)
    (tmp_path / "a.png").write_bytes(b"a picture")
    order = TrainOrder(
        name="Imp", token="sks", class_word="toy", model="small", pictures=[(str(tmp_path / "a.png"), None)]
    )
    background.order(Train("train-0001", order, tmp_path))
    (subject,) = wait(Changed, state="done").results
    assert (subject.role, subject.size) == ("subject", len(b"a picture"))


def test_what_cannot_be_sent_is_refused_with_a_reason(
    shared_backend: RunningBackend, begin: Callable, tmp_path: Path
) -> None:
    background, wait = begin(shared_backend.connection)
    order = TrainOrder(
        name="Imp", token="sks", class_word="toy", model="small", pictures=[(str(tmp_path / "no.png"), None)]
    )
    background.order(Train("train-0002", order, tmp_path))
    assert "There is no file" in wait(Refused).reason
    background.order(Cancel("never-was"))
    wait(Refused)
    background.order(Follow("never-was"))
    assert "does not know this job" in wait(Changed, state="failed").error


def test_a_broken_network_and_a_restarted_backend_lose_nothing(backend: RunningBackend, begin: Callable) -> None:
    backend.start()
    proxy = Proxy(backend.connection.address)
    try:
        background, wait = begin(msgspec.structs.replace(backend.connection, address=proxy.address))
        wait(Linked)
        background.order(Film("film-0002", small_job("steps=40 pause=0.1")))
        wait(Changed, job="film-0002", state="running")
        proxy.is_open = False
        proxy.cut()
        wait(Lost)
        background.order(Film("film-0003", small_job("steps=1", seed=5)))
        backend.stop()
        backend.start()
        proxy.is_open = True
        wait(Linked)
        wait(Changed, job="film-0002", state="done")
        wait(Changed, job="film-0003", state="done")
    finally:
        background.stop()
        proxy.close()


def test_what_was_not_sent_yet_is_canceled_without_a_backend(begin: Callable) -> None:
    background, wait = begin(NOBODY)
    wait(Lost)
    background.order(Film("film-0004", small_job()))
    background.order(Cancel("film-0004"))
    wait(Changed, job="film-0004", state="canceled")
    assert not background._short


def test_nobody_there_is_told_at_once_and_stopping_is_quick(begin: Callable) -> None:
    background, wait = begin(NOBODY)
    assert "No backend listens" in wait(Lost).reason
    began = time.monotonic()
    background.stop()
    assert time.monotonic() - began < 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("MotionBooth")]


def test_what_a_backend_calls_its_stages_leads_to_no_other_folder(tmp_path: Path) -> None:
    background = Background(NOBODY, tmp_path / "previews", renderer=[])
    (tmp_path / "previews" / "job-0001_").mkdir(parents=True)
    for step in range(2):
        report = PreviewReport("/../../evil", step, 2, 1, 1, b"a picture")
        background._heard(messages.Preview(job="job-0001", report=report))
    (shown,) = background.news()
    assert shown.path.parent == tmp_path / "previews"
    assert shown.path.read_bytes() == b"a picture"
    assert list(tmp_path.iterdir()) == [tmp_path / "previews"]
