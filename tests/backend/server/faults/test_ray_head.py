"""The head of the Ray cluster goes down under a real server, and comes back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from following import Following
from motionbooth.server.sandbox import sandbox_problem
from motionbooth_protocol.client import new_job_id
from running_backend import RunningBackend, free_port, small_job, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(" " in sys.executable, reason="`ray start` starts no worker of a Python whose path has a space"),
]


class Head:
    """A Ray cluster of one box, whose head can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.address = f"127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
        options = [f"--port={self._port}", "--include-dashboard=false", "--object-store-memory=80000000"]
        with (self._folder / "head.log").open("ab") as log:
            self._process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
        wait_until(lambda: "Ray runtime started" in (self._folder / "head.log").read_text(), 120)

    def networks(self) -> set[str]:
        """Those of its processes."""
        assert self._process is not None
        found, parent = set(), psutil.Process(self._process.pid)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(FileNotFoundError):  # it has ended
                found.add(os.readlink(f"/proc/{process.pid}/ns/net"))
        return found

    def kill(self) -> None:
        """All processes of the box, as a power cut does."""
        if self._process is not None:
            parent = psutil.Process(self._process.pid)
            for process in [parent, *parent.children(recursive=True)]:
                process.kill()
            self._process.wait(20)
            self._process = None


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Head]:
    pytest.importorskip("ray", reason="Ray is not installed: pip install motionbooth[ray]")
    head = Head(tmp_path)
    head.start()
    yield head
    head.kill()


def problem(backend: RunningBackend) -> str:
    with backend.client() as client:
        return str(client.status().problems.get("no_workers", ""))


def test_without_the_head_the_server_continues_and_starts_and_with_it_the_jobs_do(
    backend: RunningBackend, head: Head, tmp_path: Path
) -> None:
    backend.start(RAY_ADDRESS=head.address)
    finished = Following(backend, "steps=2").done()
    running = Following(backend, "steps=100 pause=0.1")
    wait_until(lambda: len(running.progress) > 3, 60)
    assert backend.process is not None
    server = backend.process.pid

    head.kill()
    wait_until(lambda: "No worker can be reached" in problem(backend), 60)

    def served() -> None:
        with backend.client() as client:
            assert {job.id for job in client.jobs()} >= {finished.id, running.job}
            client.fetch(finished.result("clip"), tmp_path / "clip.mp4")
            assert (tmp_path / "clip.mp4").stat().st_size == 1000

    served()
    with backend.client() as client:
        waiting = new_job_id()
        client.submit(waiting, small_job("steps=1", seed=7))
        assert client.get(waiting).state == "queued"
        assert client.get(running.job).state == "running", "as far as known: other boxes may still run their jobs"

    assert backend.process.poll() is None
    assert backend.process.pid == server
    assert backend.stop() == 0
    backend.start(RAY_ADDRESS=head.address)
    wait_until(lambda: "No Ray cluster answers" in problem(backend), 60)
    served()

    head.start()
    assert running.done(120).state == "done"
    with backend.client() as client:
        assert client.follow(waiting).state == "done"
        assert client.status().problems == {}


def test_a_driver_that_is_killed_is_started_again_and_its_job_continues_uninterrupted(
    backend: RunningBackend, head: Head
) -> None:
    backend.start(RAY_ADDRESS=head.address, SANDBOX="auto")
    following = Following(backend, "steps=100 pause=0.1")
    wait_until(lambda: len(following.progress) > 3, 60)
    if sandbox_problem() is None:
        assert len(head.networks()) == 2, "that of the sandbox and the others'"
    assert backend.process is not None
    (driver,) = [
        child
        for child in psutil.Process(backend.process.pid).children()
        if "motionbooth.server.ray_driver" in child.cmdline()
    ]
    driver.kill()
    assert following.done(120).attempt == 1
