"""Servers killed, disks filled, networks cut, at the moments where it hurts most."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from motionbooth_protocol import dialogue
from motionbooth_protocol.client import new_job_id
from motionbooth_protocol.codec import encode
from motionbooth_protocol.errors import OutOfSpace
from motionbooth_protocol.jobs import Job
from motionbooth_protocol.messages import Attach, Event, Progress
from msgspec.structs import replace
from running_backend import Proxy, RunningBackend, is_running, small_job, wait_until


class Following(threading.Thread):
    """A client that submits a job and follows it, while the test does its worst."""

    def __init__(self, backend: RunningBackend, prompt: str, address: str = "", timeout: float = 15.0) -> None:
        super().__init__(daemon=True)
        self._timeout = timeout
        self._backend = backend
        self._connection = replace(backend.connection, address=address or backend.connection.address)
        self.job = new_job_id()
        self._spec = small_job(prompt)
        self.events: list[Event] = []
        self.progress: list[Progress] = []
        self.result: Job | None = None
        self.start()

    def run(self) -> None:
        with self._backend.client(self._timeout, connection=self._connection) as client:
            client.submit(self.job, self._spec)
            self.result = client.follow(self.job, self.progress.append, self.events.append)

    def done(self) -> Job:
        self.join(60)
        assert self.result is not None
        assert [event.seq for event in self.events] == list(range(1, len(self.events) + 1)), "events came with gaps"
        return self.result


@pytest.mark.parametrize("moment", ["before submit", "after submit"])
def test_a_server_killed_at_the_commit_of_a_submit_has_one_job_after_the_resend(
    backend: RunningBackend, moment: str
) -> None:
    backend.start(CRASH=moment)
    following = Following(backend, "steps=1")
    assert backend.process is not None
    backend.process.wait(20)
    backend.start()
    assert following.done().state == "done"
    with backend.client() as client:
        assert [job.id for job in client.jobs()] == [following.job]


def test_a_job_goes_on_from_its_checkpoint_when_the_server_was_killed_and_its_client_need_not_care(
    backend: RunningBackend,
) -> None:
    backend.start()
    following = Following(backend, "steps=30 pause=0.1")
    wait_until(lambda: len(following.progress) > 5)
    backend.kill()
    backend.start()
    assert following.done().attempt == 2
    assert [event.state for event in following.events] == ["queued", "running", "queued", "running", "done"]
    assert int(following.progress[-1].note.removeprefix("from ")) >= 5


def test_a_job_on_a_cluster_does_not_even_notice_that_its_server_was_killed(
    backend: RunningBackend, ray_address: str
) -> None:
    backend.start(RAY_ADDRESS=ray_address)
    following = Following(backend, "steps=60 pause=0.1")
    wait_until(lambda: len(following.progress) > 3)
    worker = backend.worker_pid()
    backend.kill()
    backend.start(RAY_ADDRESS=ray_address)
    assert following.done().attempt == 1
    assert [event.state for event in following.events] == ["queued", "running", "done"]
    wait_until(lambda: not (backend.home / "scratch" / "1").exists())
    assert backend.stop() == 0
    wait_until(lambda: not is_running(worker))


def test_a_stopped_server_takes_its_running_job_up_again(backend: RunningBackend) -> None:
    backend.start()
    following = Following(backend, "steps=20 pause=0.1")
    wait_until(lambda: len(following.progress) > 3)
    backend.stop()
    backend.start()
    assert following.done().attempt == 2


@pytest.fixture
def proxy(backend: RunningBackend) -> Iterator[Proxy]:
    proxy = Proxy(backend.start().connection.address)
    yield proxy
    proxy.close()


def test_a_cut_network_is_taken_up_again_without_a_gap(backend: RunningBackend, proxy: Proxy) -> None:
    following = Following(backend, "steps=20 pause=0.1", proxy.address)
    wait_until(lambda: len(following.progress) > 3)
    proxy.is_open = False
    proxy.cut()
    with backend.client() as another:  # the job does not mind
        wait_until(lambda: another.get(following.job).state == "done")
    proxy.is_open = True
    assert following.done().state == "done"
    assert proxy.connections == 2


def test_a_flipped_bit_is_never_taken_for_a_message_and_costs_no_job(backend: RunningBackend, proxy: Proxy) -> None:
    with backend.client(connection=replace(backend.connection, address=proxy.address)) as client:
        proxy.flip_next = True
        job = new_job_id()
        client.submit(job, small_job())
        assert client.follow(job).state == "done"
        assert len(client.jobs()) == 1
    assert proxy.connections == 2


def test_a_server_that_hangs_for_a_while_is_found_out_and_taken_up_again(
    backend: RunningBackend, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialogue, "_QUIET_SECONDS", 0.5)
    following = Following(backend, "steps=20 pause=0.1", proxy.address, timeout=2.0)
    wait_until(lambda: len(following.progress) > 3)
    assert backend.process is not None
    backend.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: proxy.connections > 1)
    backend.process.send_signal(signal.SIGCONT)
    assert following.done().state == "done"


def test_who_follows_is_not_forgotten_and_who_was_forgotten_need_not_care(backend: RunningBackend) -> None:
    backend.start(IDLE_SECONDS="1")
    proxy = Proxy(backend.connection.address)
    try:
        with backend.client(connection=replace(backend.connection, address=proxy.address)) as client:
            job = new_job_id()
            client.submit(job, small_job("steps=25 pause=0.1"))
            client.follow(job)
            assert proxy.connections == 1
            time.sleep(2)
            client.ping()
            assert proxy.connections == 2
    finally:
        proxy.close()


def test_a_client_that_is_gone_before_its_answer_brings_nobody_down(backend: RunningBackend) -> None:
    """The server finds out that the follower is gone while it answers the Attach."""
    backend.start()
    job = new_job_id()
    with backend.client() as client:
        client.submit(job, small_job())
        client.follow(job)
    assert backend.process is not None
    for _ in range(5):
        leaving = backend.client()
        leaving.connect()
        backend.process.send_signal(signal.SIGSTOP)
        for number in range(20):
            leaving._connected().send(encode(Attach(id=100 + number, job=job)))
        time.sleep(0.1)
        leaving._drop_link(linger_milliseconds=200)
        leaving.close()
        backend.process.send_signal(signal.SIGCONT)
    with backend.client() as client:
        assert client.ping() < 10
    assert backend.process.poll() is None


def test_an_upload_goes_on_where_the_network_was_cut(backend: RunningBackend, proxy: Proxy, tmp_path: Path) -> None:
    size = 24 << 20
    (tmp_path / "big").write_bytes(os.urandom(size))
    cuts = iter([size // 3, size // 2])
    next_cut = next(cuts)

    def cut(have: int, of: int) -> None:
        nonlocal next_cut
        if have > next_cut:
            next_cut = next(cuts, size)
            proxy.cut()

    with backend.client(connection=replace(backend.connection, address=proxy.address)) as client:
        client.upload(tmp_path / "big", cut)
    assert proxy.connections == 3
    assert proxy.bytes_up < size + 2 * 10 * (256 << 10) + (1 << 20), "more was sent again than what was in flight"


def test_a_fetch_goes_on_where_the_server_was_killed(backend: RunningBackend, tmp_path: Path) -> None:
    backend.start()
    size = 8 << 20
    with backend.client() as client:
        job = new_job_id()
        client.submit(job, small_job(f"steps=1 size={size}", seed=3))
        blob = client.follow(job).result("clip")
        got: list[int] = []

        def kill_once(have: int, of: int) -> None:
            got.append(have)
            if have > size // 2 and have - got[0] < size and not restarted.is_set():
                restarted.set()
                backend.kill()
                backend.start()

        restarted = threading.Event()
        client.fetch(blob, tmp_path / "clip.mp4", kill_once)
    assert (tmp_path / "clip.mp4").read_bytes() == bytes([3]) * size
    assert got == sorted(got), "it began anew"


def test_a_full_disk_refuses_a_submit_in_words_and_loses_no_job(backend: RunningBackend) -> None:
    backend.start(FILE_LIMIT=str(600_000))
    accepted: list[str] = []
    with backend.client() as client:
        client.submit(new_job_id(), small_job("steps=1000 pause=1"))  # the others wait behind it

        def submit_until_refused() -> None:
            for seed in range(1000):
                job = new_job_id()
                client.submit(job, replace(small_job("x" * 900, seed), negative_prompt="x" * 1000))
                accepted.append(job)

        with pytest.raises(OutOfSpace, match="free some space"):
            submit_until_refused()
        assert client.ping() < 5
    assert len(accepted) > 5
    backend.kill()
    backend.start()
    with backend.client() as client:
        assert {job.id for job in client.jobs()} >= set(accepted)
        client.submit(new_job_id(), small_job())


def test_a_full_disk_refuses_an_upload_in_words_and_it_goes_on_when_there_is_space(
    backend: RunningBackend, tmp_path: Path
) -> None:
    (tmp_path / "big").write_bytes(os.urandom(3 << 20))
    backend.start(FILE_LIMIT=str(2 << 20))
    with backend.client() as client:
        with pytest.raises(OutOfSpace, match="free some space"):
            client.upload(tmp_path / "big")
        assert client.jobs() == [], "late answers to the upload's other pieces were taken for this one"
    assert not list((backend.home / "blobs").rglob("*"))
    backend.stop()
    backend.start()
    sent: list[int] = []
    with backend.client() as client:
        client.upload(tmp_path / "big", lambda have, of: sent.append(have))
    assert sent[0] > 1 << 20


def test_a_job_whose_result_finds_no_space_waits_for_it(backend: RunningBackend) -> None:
    backend.start(FILE_LIMIT=str(1 << 20))
    following = Following(backend, f"steps=1 size={2 << 20}")
    wait_until(lambda: any("disk is full" in event.error for event in following.events))
    backend.stop()
    backend.start()
    assert following.done().state == "done"
