"""Faults 16 to 18: full disks, lack of memory, and a jumping clock."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from following import Following
from motionbooth_protocol.client import new_job_id
from motionbooth_protocol.errors import JobFailed, OutOfSpace
from msgspec.structs import replace
from refused import refused
from running_backend import RunningBackend, small_job, wait_until


def test_fault_16_on_a_full_disk_a_submit_is_refused_and_no_job_is_lost(
    backend: RunningBackend,
) -> None:
    backend.start(FILE_LIMIT=str(600_000))
    accepted: list[str] = []
    with backend.client() as client:
        client.submit(new_job_id(), small_job("steps=1000 pause=1"))  # the others wait behind it

        def submit_until_refused() -> None:
            for seed in range(1000):
                job = new_job_id()
                client.submit(job, replace(small_job("x" * 900, seed), negative_prompt="x" * 1000))
                accepted.append(job)

        with pytest.raises(OutOfSpace):
            submit_until_refused()
        assert client.ping() < 5
    assert len(accepted) > 5
    backend.kill()
    backend.start()
    with backend.client() as client:
        assert {job.id for job in client.jobs()} >= set(accepted)
        client.submit(new_job_id(), small_job())


def test_fault_16_on_a_full_disk_an_upload_is_refused_and_resumed_when_there_is_space(
    backend: RunningBackend, tmp_path: Path
) -> None:
    (tmp_path / "big").write_bytes(os.urandom(3 << 20))
    backend.start(FILE_LIMIT=str(2 << 20))
    with backend.client() as client:
        with pytest.raises(OutOfSpace):
            client.upload(tmp_path / "big")
        assert client.jobs() == [], "late answers to the upload's other pieces were taken for this one"
    assert not list((backend.home / "blobs").rglob("*"))
    backend.stop()
    backend.start()
    sent: list[int] = []
    with backend.client() as client:
        client.upload(tmp_path / "big", lambda have, of: sent.append(have))
    assert sent[0] > 1 << 20


def test_fault_16_a_job_without_space_for_its_result_waits_for_it(backend: RunningBackend) -> None:
    backend.start(FILE_LIMIT=str(1 << 20))
    following = Following(backend, f"steps=1 size={2 << 20}")
    wait_until(lambda: any(event.error and event.error.code == OutOfSpace.code for event in following.events))
    backend.stop()
    backend.start()
    assert following.done().state == "done"


def test_fault_16_a_job_without_space_for_a_checkpoint_waits_and_resumes_from_the_last_good_one(
    backend: RunningBackend,
) -> None:
    backend.start(FILE_LIMIT=str(1 << 20))
    following = Following(backend, f"steps=16 pause=0.25 checkpoint={256 << 10}")
    wait_until(lambda: any(event.error and event.error.code == OutOfSpace.code for event in following.events))
    backend.stop()
    backend.start()
    assert following.done().state == "done"
    assert following.progress[-1].note.values == {"first": 4}


@pytest.mark.parametrize("whose", ["memory", "gpu_memory"])
def test_fault_17_a_job_that_runs_out_of_memory_fails_alone_and_says_what_to_change(
    shared_backend: RunningBackend, whose: str
) -> None:
    with shared_backend.client() as client:
        job = new_job_id()
        client.submit(job, small_job(whose))
        with refused(JobFailed, machine=...):
            client.follow(job)
    assert Following(shared_backend, f"steps=1 after {len(whose)} letters").done().state == "done"


def test_fault_18_when_the_clock_jumps_a_day_nothing_expires_and_no_job_is_lost(backend: RunningBackend) -> None:
    backend.start(KEEP_DAYS="0.5", IDLE_SECONDS="3600")
    done = Following(backend, "steps=1").done()
    running = Following(backend, "steps=20 pause=0.1")
    with backend.client() as client:
        wait_until(lambda: len(running.progress) > 3)
        assert backend.process is not None
        backend.process.send_signal(signal.SIGUSR2)
        client.submit(new_job_id(), small_job("steps=1 a day later"))
        assert running.done().attempt == 1
        time.sleep(1.0)
        assert client.get(done.id).results == done.results
        assert client.sessions == 1, "the session ended with the jump"
    backend.stop()
    backend.start(KEEP_DAYS="0.5")  # it collects old jobs at its start
    with backend.client() as client:
        assert len(client.jobs()) == 3
