"""Fault 16 on a real small disk, and by a limit on the size of files: full, restarted while full, and recovered."""

from __future__ import annotations

import http.client
import os
import resource
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from motionbooth.server.disk_space import DISK_FULL
from motionbooth_protocol.client import Client, new_job_id
from motionbooth_protocol.connection import host_and_port
from motionbooth_protocol.errors import OutOfSpace
from motionbooth_protocol.jobs import Job
from refused import assert_says
from running_backend import RunningBackend, free_port, small_job, wait_until

RESERVE = 2 << 20


@pytest.fixture
def on_small_disk(tmp_path: Path) -> Iterator[RunningBackend]:
    """A backend, not started yet, whose folder is on a file system of 16 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small file system is not permitted: {mounted.stderr.strip()}")
    backend = RunningBackend(disk / "home")
    try:
        yield backend
        backend.end()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> None:
    """As another program would, to the last byte."""
    with (disk / "ballast").open("ab", buffering=0) as file:
        for piece in (1 << 16, 1 << 10, 1):
            try:
                while file.write(bytes(piece)):
                    pass
            except OSError:
                continue


def done(client: Client, seed: int) -> Job:
    job = new_job_id()
    client.submit(job, small_job("steps=1", seed))
    return client.follow(job)


def is_full(client: Client) -> bool:
    return DISK_FULL in client.status().problems


def listens(host: str, port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((host, port)) == 0


def scraped(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def test_a_full_disk_ends_neither_the_server_nor_its_restart_and_jobs_can_be_removed(
    on_small_disk: RunningBackend, tmp_path: Path
) -> None:
    backend, metrics_port = on_small_disk, free_port()
    settings = {"RESERVE": str(RESERVE), "METRICS_PORT": str(metrics_port)}
    reserve = backend.home / "reserve"
    backend.start(**settings)
    assert reserve.stat().st_size == RESERVE
    (tmp_path / "picture").write_bytes(os.urandom(100_000))
    with backend.client() as client:
        first, second = done(client, 1), done(client, 2)
        assert client.status().problems == {}
        fill(backend.home.parent)
        wait_until(lambda: is_full(client))
        assert_says(client.status().problems[DISK_FULL], needed=...)
        wait_until(lambda: f'motionbooth_problem{{name="{DISK_FULL}"}} 1.0' in scraped(metrics_port))
        assert not reserve.exists()
        with pytest.raises(OutOfSpace):
            client.submit(new_job_id(), small_job(seed=3))
        with pytest.raises(OutOfSpace):
            client.upload(tmp_path / "picture")
        client.forget(first.id)
    backend.kill()
    backend.start(**settings)
    with backend.client() as client:
        assert [job.id for job in client.jobs()] == [second.id]
        client.fetch(second.result("clip"), tmp_path / "clip.mp4")
        assert (tmp_path / "clip.mp4").read_bytes() == bytes([2]) * 1000
        assert is_full(client)
        (backend.home.parent / "ballast").unlink()
        wait_until(lambda: not is_full(client))
        assert reserve.stat().st_size == RESERVE
        client.upload(tmp_path / "picture")
        assert done(client, 3).state == "done"


def test_even_without_a_byte_left_the_server_starts_and_finished_clips_can_be_fetched(
    on_small_disk: RunningBackend, tmp_path: Path
) -> None:
    backend = on_small_disk
    backend.start(RESERVE=str(RESERVE))
    with backend.client() as client:
        finished = done(client, 1)
        running = new_job_id()
        client.submit(running, small_job("steps=100 pause=0.1"))
        wait_until(lambda: client.get(running).state == "running")
    connection = backend.connection  # read before the disk is full
    backend.kill()
    (backend.home / "reserve").unlink()
    fill(backend.home.parent)
    backend.start_without_connection_file(RESERVE=str(RESERVE))
    host, port = host_and_port(connection.address)
    wait_until(lambda: listens(host, int(port)))
    with backend.client(connection=connection) as client:
        client.fetch(finished.result("clip"), tmp_path / "clip.mp4")
        assert is_full(client)
        assert not backend.connection_file.exists()
        (backend.home.parent / "ballast").unlink()
        wait_until(lambda: not is_full(client))
        wait_until(backend.connection_file.exists)
        assert client.follow(running).attempt == 2
    assert "Traceback" not in (backend.home / "printed.log").read_text()
    assert backend.stop() == 0


def test_fault_16_writes_that_fail_end_nothing_and_the_backend_recovers(
    backend: RunningBackend, tmp_path: Path
) -> None:
    """By a limit on the size of each file that the server writes, which works everywhere."""
    prlimit: Callable[..., object] | None = getattr(resource, "prlimit", None)
    if prlimit is None:
        pytest.skip("this system cannot set the limits of another process")
    backend.start(RESERVE=str(RESERVE))
    assert backend.process is not None
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with backend.client() as client:
        finished, running = done(client, 1), new_job_id()
        client.submit(running, small_job("steps=40 pause=0.1"))
        wait_until(lambda: client.get(running).state == "running")
        prlimit(backend.process.pid, resource.RLIMIT_FSIZE, (0, hard))
        with pytest.raises(OutOfSpace):
            client.submit(new_job_id(), small_job(seed=2))
        assert is_full(client)
        client.fetch(finished.result("clip"), tmp_path / "clip.mp4")
        prlimit(backend.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        wait_until(lambda: not is_full(client))
        assert (backend.home / "reserve").stat().st_size == RESERVE
        assert client.follow(running).attempt == 1
        assert done(client, 2).state == "done"
