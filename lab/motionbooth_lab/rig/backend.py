"""A backend in a separate process, and small jobs for it."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import zmq
from motionbooth.server.blobs import Blobs
from motionbooth.server.hashing import hash_file
from motionbooth_protocol.client import Client
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.jobs import Blob, GenerateSpec
from motionbooth_protocol.limits import MAX_FRAMES, MAX_SUBJECTS
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from msgspec.structs import replace

_SECONDS_TO_END = 20.0
SHOT = Shot(
    name="shot", frame_start=1, frame_end=24, fps=24, width=960, height=640, camera=CameraPath.still(8), subjects=[]
)


def small_job(prompt: str = "steps=1", seed: int = 0) -> GenerateSpec:
    """A generate job for small_worker.py, which reads its commands from the prompt."""
    return GenerateSpec(shot=SHOT, prompt=prompt, seed=seed, model="small")


def large_job(prompt: str, seed: int = 0) -> GenerateSpec:
    """The longest shot, with the most subjects: about 300 KB. The prompt must name the dog."""
    boxes: list[Box | None] = [Box(0.1 + frame / 10_000, 0.1, 0.9, 0.9) for frame in range(MAX_FRAMES)]
    tracks = [SubjectTrack(name=f"dog {number}", class_word="dog", boxes=boxes) for number in range(MAX_SUBJECTS)]
    shot = replace(SHOT, subjects=tracks, camera=CameraPath.still(MAX_FRAMES))
    return replace(small_job(prompt, seed), shot=shot)


def stored(blobs: Blobs, file: Path) -> Blob:
    """Move a file into the store, as the clip of a job."""
    found = hash_file(file)
    clip = Blob("clip", found.digest.hexdigest(), found.size)
    assert blobs.take(file, clip.sha256)
    return clip


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until the condition is true. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether a process with this id is running (a zombie is not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def free_port() -> int:
    """An unused port outside the range of ephemeral ports, so that no client gets it in the meantime."""
    while True:
        port = random.randrange(20_000, 30_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class RunningBackend:
    """A server with data folder `home`. It keeps its port when it is restarted.

    Runs `module` with home, address and `arguments`.
    """

    def __init__(self, home: Path, module: str = "motionbooth_lab.rig.server_process", *arguments: str) -> None:
        self._command = [sys.executable, "-m", module]
        self._arguments = arguments
        self.home = home
        self.connection_file = home / "connection.json"
        self.process: subprocess.Popen[bytes] | None = None
        self._address = f"tcp://127.0.0.1:{free_port()}"
        self._connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        """The connection that the server first wrote. Still available after the server ended."""
        if self._connection is None:
            self._connection = Connection.read(self.connection_file)
        return self._connection

    def start(self, **environment: str) -> RunningBackend:
        self.start_without_connection_file(**environment)
        wait_until(lambda: self.connection_file.exists() or self.process is None or self.process.poll() is not None)
        if not self.connection_file.exists():
            raise RuntimeError((self.home / "printed.log").read_text())
        assert self.connection
        return self

    def start_without_connection_file(self, **environment: str) -> None:
        """Start it without waiting for that file, which a full disk delays."""
        self.connection_file.unlink(missing_ok=True)
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "printed.log").open("ab") as printed:
            self.process = subprocess.Popen(
                [*self._command, str(self.home), self._address, *self._arguments],
                env={**os.environ, **environment},
                stdout=printed,
                stderr=printed,
            )

    def stop(self) -> int:
        """Stop it with SIGTERM and return the exit status. Raises TimeoutError with the stack of each thread."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(_SECONDS_TO_END)
            output = (self.home / "printed.log").read_text()
            raise TimeoutError(f"The server still ran {_SECONDS_TO_END:.0f} s after SIGTERM:\n{output}") from None

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()

    def client(
        self, timeout: float = 15.0, patience: float = 60.0, connection: Connection | None = None, **options: Any
    ) -> Client:
        return Client(connection or self.connection, timeout=timeout, patience=patience, **options)

    def new_key(self, name: str) -> Connection:
        """Authorize another user's key; returns the connection for it."""
        public, secret = (key.decode() for key in zmq.curve_keypair())
        (self.home / "authorized" / f"{name}.pub").write_text(public)
        return Connection(self.connection.address, self.connection.server_public, public, secret)

    def memory(self) -> int:
        """Resident memory of the server process in bytes."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def worker_pid(self, job_number: int = 1) -> int:
        """The process id of the worker that runs the job, once it has started."""
        file = self.home / "scratch" / str(job_number) / "worker.pid"
        wait_until(lambda: file.exists() and file.read_text())
        return int(file.read_text())
