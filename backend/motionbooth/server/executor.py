"""Runs attempts on this machine: one worker process, kept warm between jobs and replaced when it dies."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import zmq

from . import pipes
from .store import Work

_SECONDS_TO_END = 2.0


@dataclass(frozen=True)
class Exited:
    """The worker of this attempt ended by itself, was killed, or never began; `reason` in words for the job's owner."""

    number: int
    attempt: int
    reason: str


Report = pipes.Report | Exited


class Executor(Protocol):
    """Where attempts run. `wake` is readable whenever `receive` has something."""

    wake: zmq.Socket[bytes]

    def capacity(self) -> int: ...
    def start(self, work: Work) -> None: ...
    def cancel(self, number: int, attempt: int, grace: float) -> None: ...
    def receive(self) -> list[Report]: ...
    def tick(self) -> None: ...
    def close(self) -> None: ...


class LocalExecutor:
    """`command` starts a worker (see worker.main); its errors and prints go to the file `log`."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], command: list[str], log: Path) -> None:
        self._context = context
        self._command = command
        self._log = log
        self._endpoint = f"inproc://worker-reports-{id(self)}"
        self.wake = context.socket(zmq.PULL)
        self.wake.setsockopt(zmq.RCVHWM, 0)
        self.wake.bind(self._endpoint)
        self._generations = itertools.count(1)
        self._worker: _WorkerProcess | None = None
        self._work: Work | None = None
        self._kill_at: float | None = None

    def capacity(self) -> int:
        """How many more attempts can start now."""
        return 1 if self._work is None else 0

    def start(self, work: Work) -> None:
        """Run an attempt. Raises OSError where no process can be started."""
        if self._worker is None:
            self._worker = _WorkerProcess(
                self._context, self._endpoint, next(self._generations), self._command, self._log
            )
        self._work = work
        self._worker.send(pipes.Run(number=work.number, attempt=work.attempt, spec=work.spec))

    def cancel(self, number: int, attempt: int, grace: float) -> None:
        """Ask the attempt to stop; after `grace` seconds its process is killed."""
        if self._worker is not None and self._is_current(number, attempt):
            self._worker.send(pipes.Stop(number=number, attempt=attempt))
            self._kill_at = self._kill_at or time.monotonic() + grace

    def receive(self) -> list[Report]:
        """What came from the worker since the last call."""
        found: list[Report] = []
        while True:
            try:
                generation, data = self.wake.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return found
            if self._worker is not None and int(generation) == self._worker.generation:
                found += self._reports_in(data)

    def tick(self) -> None:
        """Kill a worker whose grace is over."""
        if self._worker is not None and self._kill_at is not None and time.monotonic() > self._kill_at:
            self._worker.kill()

    def close(self) -> None:
        """End the worker, whatever it does, and wait until it is gone."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        self.wake.close(linger=0)

    def _reports_in(self, data: bytes) -> list[Report]:
        if not data:
            return self._worker_ended()
        report = pipes.reports.decode(data)
        if not self._is_current(report.number, report.attempt):
            return []
        if not isinstance(report, pipes.Advanced):
            self._work = self._kill_at = None
        return [report]

    def _worker_ended(self) -> list[Report]:
        assert self._worker is not None
        self._worker.close()
        status, work = self._worker.status, self._work
        self._worker = self._work = self._kill_at = None
        return [] if work is None else [Exited(work.number, work.attempt, death(status))]

    def _is_current(self, number: int, attempt: int) -> bool:
        return self._work is not None and (self._work.number, self._work.attempt) == (number, attempt)


class _WorkerProcess:
    """One worker process and two threads, one for each of its pipes, so that the server never waits for it."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        generation: int,
        command: list[str],
        log: Path,
    ) -> None:
        self.generation = generation
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            # A session of its own: Ctrl+C in the server's terminal is the server's to handle.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=os.name == "posix",
            )
        self._commands: queue.SimpleQueue[pipes.Command | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._write, name=f"to-worker-{generation}", daemon=True),
            threading.Thread(
                target=self._read, args=(context, endpoint), name=f"from-worker-{generation}", daemon=True
            ),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def status(self) -> int:
        return self._process.wait()

    def send(self, command: pipes.Command) -> None:
        self._commands.put(command)

    def kill(self) -> None:
        """End the process and whatever it started, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def close(self) -> None:
        """End the process: the end of its pipe first, then the hard way."""
        self._commands.put(None)
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        for thread in self._threads:
            thread.join()

    def _write(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._process.stdin as pipe:
            while (command := self._commands.get()) is not None:
                pipes.write(pipe, command)

    def _read(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        assert self._process.stdout is not None
        generation = str(self.generation).encode()
        with self._process.stdout as pipe, context.socket(zmq.PUSH) as reports:
            reports.setsockopt(zmq.SNDHWM, 0)
            reports.connect(endpoint)
            while data := pipes.read(pipe):
                reports.send_multipart([generation, data])
            reports.send_multipart([generation, b""])


def death(status: int) -> str:
    """How a worker process ended, in words for the job's owner. `status` as subprocess gives it (-9: SIGKILL)."""
    if status >= 0:
        return f"The worker process ended by itself (status {status}); worker.log on the backend says more."
    name = signal.Signals(-status).name if -status in list(signal.Signals) else str(-status)
    hint = (
        " Most often the machine ran out of memory: try fewer frames, or a smaller model." if name == "SIGKILL" else ""
    )
    return f"The worker process was ended by the system ({name}).{hint}"
