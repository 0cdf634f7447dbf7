"""Faults 1 to 5, 19 and 20: servers and workers killed at the worst moments."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from following import Following
from motionbooth_protocol.client import new_job_id
from motionbooth_protocol.errors import Canceled, JobFailed
from motionbooth_protocol.jobs import TERMINAL_STATES, Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.messages import Event
from refused import assert_says, refused
from running_backend import RunningBackend, is_running, small_job, wait_until


def is_one_job_after_the_resend(backend: RunningBackend, crash: str) -> None:
    backend.start(CRASH=crash)
    following = Following(backend, "steps=1")
    assert backend.process is not None
    backend.process.wait(20)
    backend.start()
    assert following.done().state == "done"
    with backend.client() as client:
        assert [job.id for job in client.jobs()] == [following.job]


def test_fault_01_killed_before_the_commit_of_a_submit_the_resend_makes_one_job(backend: RunningBackend) -> None:
    is_one_job_after_the_resend(backend, "before submit")


def test_fault_02_killed_after_the_commit_the_resend_returns_the_same_job(backend: RunningBackend) -> None:
    is_one_job_after_the_resend(backend, "after submit")


def test_fault_03_a_job_resumes_from_its_checkpoint_after_the_server_was_killed(
    backend: RunningBackend,
) -> None:
    backend.start()
    following = Following(backend, "steps=30 pause=0.1")
    wait_until(lambda: len(following.progress) > 5)
    backend.kill()
    backend.start()
    assert following.done().attempt == 2
    assert [event.state for event in following.events] == ["queued", "running", "queued", "running", "done"]
    assert following.progress[-1].note.values["first"] >= 5


def test_fault_03_a_job_resumes_after_the_server_was_stopped(backend: RunningBackend) -> None:
    backend.start()
    following = Following(backend, "steps=20 pause=0.1")
    wait_until(lambda: len(following.progress) > 3)
    backend.stop()
    backend.start()
    assert following.done().attempt == 2


def test_a_job_on_a_cluster_continues_while_its_server_is_killed(backend: RunningBackend, ray_address: str) -> None:
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


def test_fault_04_a_download_is_resumed_after_the_server_was_killed(backend: RunningBackend, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("moment", ["before", "after"])
def test_fault_04_killed_while_a_file_is_published_no_incomplete_file_is_visible(
    backend: RunningBackend, tmp_path: Path, moment: str
) -> None:
    data = os.urandom(1 << 20)
    sha256 = hashlib.sha256(data).hexdigest()
    (tmp_path / "file").write_bytes(data)
    backend.start(CRASH=f"{moment} blob")

    def upload() -> None:
        with backend.client() as client:
            client.upload(tmp_path / "file")

    uploading = threading.Thread(target=upload)
    uploading.start()
    assert backend.process is not None
    backend.process.wait(20)
    visible = [path for path in (backend.home / "blobs").rglob("*") if path.is_file()]
    assert [path.name for path in visible] == ([sha256] if moment == "after" else [])
    backend.start()
    uploading.join(60)
    assert (backend.home / "blobs" / sha256[:2] / sha256).read_bytes() == data


@pytest.mark.parametrize("moment", ["before", "after"])
def test_fault_04_killed_while_results_are_stored_a_job_is_done_with_all_of_them(
    backend: RunningBackend, moment: str
) -> None:
    backend.start(CRASH=f"{moment} finish")
    following = Following(backend, "steps=1 size=300000")
    assert backend.process is not None
    backend.process.wait(20)
    backend.start()
    clip = following.done().result("clip")
    assert (
        hashlib.sha256((backend.home / "blobs" / clip.sha256[:2] / clip.sha256).read_bytes()).hexdigest() == clip.sha256
    )
    assert [event.state for event in following.events].count("done") == 1


@pytest.mark.parametrize("stage", ["loading", "working", "encoding"])
@pytest.mark.parametrize("kind", ["train", "generate"])
def test_fault_05_a_worker_killed_in_any_stage_is_replaced_and_the_job_continues(
    shared_backend: RunningBackend, tmp_path: Path, kind: str, stage: str
) -> None:
    orders = f"die_once_in={stage}"
    (tmp_path / "picture").write_bytes(orders.encode())
    with shared_backend.client() as client:
        picture = Picture(client.upload(tmp_path / "picture"))
        train = TrainSpec(subject=SubjectSpec(orders, "sks", "toy", [picture]), model="small")
        job, events = new_job_id(), list[Event]()
        client.submit(job, train if kind == "train" else small_job(orders))
        assert client.follow(job, on_event=events.append).attempt == 2
        assert [event.state for event in events] == ["queued", "running", "queued", "running", "done"]
        assert_says(events[2].error, signal="SIGKILL")


def test_fault_05_a_job_resumes_from_its_checkpoint_after_its_worker_died(shared_backend: RunningBackend) -> None:
    following = Following(shared_backend, "steps=4 die_once")
    assert following.done().attempt == 2
    assert following.progress[-1].note.values == {"first": 1}


def test_fault_05_a_job_that_kills_every_worker_fails_with_the_reason_and_the_next_one_runs(
    shared_backend: RunningBackend,
) -> None:
    with shared_backend.client() as client:
        job = new_job_id()
        client.submit(job, small_job("steps=99 die"))
        with refused(JobFailed, count=3, reason=...):
            client.follow(job)
    assert Following(shared_backend, "steps=1 after it").done().state == "done"


def test_fault_05_a_worker_that_sends_garbage_is_killed_and_the_server_survives(
    shared_backend: RunningBackend,
) -> None:
    with shared_backend.client() as client:
        job = new_job_id()
        client.submit(job, small_job("steps=2 pause=0.5 preview=70000"))  # larger than any picture may be
        with refused(JobFailed, count=3):
            client.follow(job)
    assert Following(shared_backend, "steps=1 after nonsense").done().state == "done"


def test_fault_19_a_second_server_in_the_same_folder_exits_saying_so(backend: RunningBackend) -> None:
    backend.start()
    command = [sys.executable, "-m", "motionbooth.cli", "serve", "--home", str(backend.home)]
    second = subprocess.run([*command, "--address", "tcp://127.0.0.1:*"], capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "Another backend is running" in second.stderr
    assert "Traceback" not in second.stderr
    with backend.client() as client:
        client.ping()


def test_fault_20_a_cancel_that_races_the_finish_leaves_exactly_one_final_state(shared_backend: RunningBackend) -> None:
    chance = random.Random(20)
    with shared_backend.client() as client:
        for seed in range(15):
            job, events = new_job_id(), list[Event]()
            client.submit(job, small_job("steps=2 pause=0.02", seed=2000 + seed))
            time.sleep(chance.uniform(0.0, 0.12))
            client.cancel(job)
            with contextlib.suppress(Canceled):
                client.follow(job, on_event=events.append)
            assert [event.state for event in events if event.state in TERMINAL_STATES] == [client.get(job).state]
            assert bool(client.get(job).results) == (client.get(job).state == "done")


def test_fault_20_late_reports_of_a_worker_that_hung_change_nothing(
    backend: RunningBackend,
) -> None:
    backend.start()
    with backend.client() as client:
        job = new_job_id()
        client.submit(job, small_job("steps=3 pause=0.3"))
        worker = backend.worker_pid()
        os.kill(worker, signal.SIGSTOP)
        client.cancel(job)
        with pytest.raises(Canceled):
            client.follow(job)
        wait_until(lambda: not is_running(worker))
        assert client.get(job).results == []
        assert Following(backend, "steps=1").done().state == "done"
