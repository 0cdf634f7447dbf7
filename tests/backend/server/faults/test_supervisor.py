"""The server aborts, as libzmq's assertions make it: the supervisor starts it again, and no job pays for it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from following import Following
from motionbooth_protocol.client import new_job_id
from running_backend import RunningBackend, is_running, small_job, wait_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is no supervisor on Windows")


def server_of(supervisor: int) -> int:
    """The process id of the server, once it is started."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    wait_until(lambda: children.read_text().split())
    return int(children.read_text().split()[0])


@pytest.fixture
def supervised(backend: RunningBackend) -> RunningBackend:
    return backend.start(SUPERVISED="1")


def supervisor(backend: RunningBackend) -> int:
    assert backend.process is not None
    return backend.process.pid


@pytest.mark.slow
def test_a_server_that_aborts_time_and_again_is_restarted_and_its_job_is_done(supervised: RunningBackend) -> None:
    following = Following(supervised, "steps=100 pause=0.1", timeout=3.0)
    for signal_number in (signal.SIGABRT, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT):
        seen = len(following.progress)
        wait_until(lambda seen=seen: len(following.progress) > seen + 2, 60)
        worker = supervised.worker_pid()
        os.kill(server_of(supervisor(supervised)), signal_number)
        wait_until(lambda worker=worker: not is_running(worker))
    done = following.done(120)
    assert done.attempt > 4
    assert int(str(following.progress[-1].note).removeprefix("from ")) > 8, "each attempt goes on from its checkpoint"
    assert supervised.stop() == 0
    with sqlite3.connect(supervised.home / "jobs.sqlite") as store:
        assert store.execute("SELECT worker_deaths FROM jobs").fetchall() == [(0,)]
    store.close()


@pytest.mark.slow
def test_jobs_survive_thirty_kills_of_the_server(backend: RunningBackend) -> None:
    """The five-crash rule of earlier versions failed them."""
    backend.start(WORKERS="2")
    jobs = [new_job_id() for _ in range(2)]
    with backend.client() as client:
        for seed, job in enumerate(jobs):
            client.submit(job, small_job("steps=300 pause=0.05", seed))
    for _ in range(30):
        time.sleep(0.3)
        backend.kill()
        backend.start(WORKERS="2")
    with backend.client() as client:
        assert [client.follow(job).state for job in jobs] == ["done", "done"]
        assert min(client.get(job).attempt for job in jobs) > 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_goes_through_to_the_server(supervised: RunningBackend, number: signal.Signals) -> None:
    server = server_of(supervisor(supervised))
    assert supervised.process is not None
    supervised.process.send_signal(number)
    assert supervised.process.wait(20) == 0
    assert not is_running(server)
    assert not supervised.connection_file.exists()


def test_the_server_ends_with_its_supervisor(supervised: RunningBackend) -> None:
    server = server_of(supervisor(supervised))
    supervised.kill()
    wait_until(lambda: not is_running(server))
    assert not supervised.connection_file.exists()


def test_a_restarted_server_on_any_port_keeps_its_port(tmp_path: Path) -> None:
    home = tmp_path / "home of the backend"
    command = [sys.executable, "-m", "motionbooth.cli", "serve", "--home", str(home), "--address", "tcp://127.0.0.1:*"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        file = home / "connection.json"
        wait_until(file.exists, 60)
        before, written_at = file.read_text(), file.stat().st_mtime_ns
        os.kill(server_of(process.pid), signal.SIGABRT)
        wait_until(lambda: file.stat().st_mtime_ns > written_at, 60)
        assert file.read_text() == before
    finally:
        process.terminate()
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "The server was ended by SIGABRT; it starts again in 0.5 s." in said
