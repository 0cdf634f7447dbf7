"""Runs attempts on this machine: a worker process at each place, kept warm between jobs and replaced when it dies."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
import zmq

from motionbooth.server import worker_pipe
from motionbooth.server.store import Work

log = logging.getLogger("motionbooth.executor")
_SECONDS_TO_END = 2.0


@dataclass(frozen=True)
class Place:
    """Where one worker runs. `device` in words; `environment` is what makes its process use that device alone."""

    name: str
    device: str
    environment: Mapping[str, str] = field(default_factory=dict)


Report = worker_pipe.Report | worker_pipe.Exited
Attempt = tuple[int, int]  # number of the job, and which attempt at it


class Executor(Protocol):
    """Where attempts run, one at each place at a time.

    `wake` is readable whenever `receive` has something. `lasting`: attempts go on after `close`, and `adopt` finds
    them again.
    """

    wake: zmq.Socket[bytes]
    lasting: bool

    def places(self) -> list[Place]:
        """All of them, busy or not."""

    def idle(self) -> list[str]:
        """Names of the places at which an attempt can start now."""

    def adopt(self) -> dict[str, Attempt]:
        """The attempts that an earlier server started and that still run, or have reports to give: by their places."""

    def start(self, place: str, work: Work) -> None:
        """Run an attempt at an idle place. Raises OSError where no process can be started."""

    def cancel(self, number: int, attempt: int, grace: float) -> None:
        """Ask the attempt to stop; after `grace` seconds its process is killed."""

    def receive(self) -> list[Report]:
        """What came from the workers since the last call."""

    def tick(self) -> None:
        """What has to be done from time to time."""

    def close(self) -> None:
        """End in good order."""


@dataclass
class _Seat:
    """A place and who works there."""

    place: Place
    process: _WorkerProcess | None = None
    work: Work | None = None
    kill_at: float | None = None

    def has(self, attempt: Attempt) -> bool:
        return self.work is not None and (self.work.number, self.work.attempt) == attempt


class LocalExecutor:
    """`command` starts a worker (see worker.main); the errors and prints of all of them go to the file `log`."""

    lasting = False

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], command: list[str], log: Path, places: Sequence[Place]
    ) -> None:
        self._context = context
        self._command = command
        self._log = log
        self._endpoint = f"inproc://worker-reports-{id(self)}"
        self.wake = context.socket(zmq.PULL)
        self.wake.setsockopt(zmq.RCVHWM, 0)
        self.wake.bind(self._endpoint)
        self._generations = itertools.count(1)
        self._seats = {place.name: _Seat(place) for place in places}
        self._living: dict[int, _Seat] = {}  # by the generation of the process there

    def places(self) -> list[Place]:
        return [seat.place for seat in self._seats.values()]

    def idle(self) -> list[str]:
        return [name for name, seat in self._seats.items() if seat.work is None]

    def adopt(self) -> dict[str, Attempt]:
        """None: a worker process ends with its server."""
        return {}

    def start(self, place: str, work: Work) -> None:
        seat = self._seats[place]
        if seat.process is None:
            generation = next(self._generations)
            seat.process = _WorkerProcess(
                self._context, self._endpoint, generation, self._command, self._log, seat.place.environment
            )
            self._living[generation] = seat
        seat.work = work
        seat.process.send(worker_pipe.Run(number=work.number, attempt=work.attempt, spec=work.spec))

    def cancel(self, number: int, attempt: int, grace: float) -> None:
        for seat in self._seats.values():
            if seat.process is not None and seat.has((number, attempt)):
                seat.process.send(worker_pipe.Stop(number=number, attempt=attempt))
                seat.kill_at = seat.kill_at or time.monotonic() + grace

    def receive(self) -> list[Report]:
        found: list[Report] = []
        while True:
            try:
                generation, data = self.wake.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return found
            seat = self._living.get(int(generation))
            if seat is not None:
                found += self._reports_in(seat, data)

    def tick(self) -> None:
        """Kill the workers whose grace is over."""
        now = time.monotonic()
        for seat in self._seats.values():
            if seat.process is not None and seat.kill_at is not None and now > seat.kill_at:
                seat.process.kill()

    def close(self) -> None:
        """End the workers, whatever they do, and wait until they are gone."""
        processes = [seat.process for seat in self._living.values() if seat.process is not None]
        for process in processes:
            process.dismiss()
        for process in processes:
            process.close()
        self._living.clear()
        self.wake.close(linger=0)

    def _reports_in(self, seat: _Seat, data: bytes) -> list[Report]:
        if not data:
            return self._worker_ended(seat)
        try:
            report = worker_pipe.reports.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            log.exception("the worker at %s said what is no report, and is ended", seat.place.name)
            assert seat.process is not None
            seat.process.kill()
            return []
        if not seat.has((report.number, report.attempt)):
            return []
        if isinstance(report, worker_pipe.Finished | worker_pipe.Failed):
            seat.work = seat.kill_at = None
        return [report]

    def _worker_ended(self, seat: _Seat) -> list[Report]:
        assert seat.process is not None
        seat.process.close()
        status, work = seat.process.status, seat.work
        del self._living[seat.process.generation]
        seat.process = seat.work = seat.kill_at = None
        if work is None:
            return []
        return [worker_pipe.Exited(number=work.number, attempt=work.attempt, reason=death(status))]


class _WorkerProcess:
    """One worker process and two threads, one for each of its pipes, so that the server never waits for it."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        generation: int,
        command: list[str],
        log: Path,
        environment: Mapping[str, str],
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
                env={**os.environ, **environment},
                start_new_session=os.name == "posix",
            )
        self._commands: queue.SimpleQueue[worker_pipe.Command | None] = queue.SimpleQueue()
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

    def send(self, command: worker_pipe.Command) -> None:
        self._commands.put(command)

    def kill(self) -> None:
        """End the process and whatever it started, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def dismiss(self) -> None:
        """Let the process end by itself: its pipe ends."""
        self._commands.put(None)

    def close(self) -> None:
        """End the process: the end of its pipe first, then the hard way."""
        self.dismiss()
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
                worker_pipe.write(pipe, command)

    def _read(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        assert self._process.stdout is not None
        generation = str(self.generation).encode()
        with self._process.stdout as pipe, context.socket(zmq.PUSH) as reports:
            reports.setsockopt(zmq.SNDHWM, 0)
            reports.connect(endpoint)
            while data := worker_pipe.read(pipe):
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
