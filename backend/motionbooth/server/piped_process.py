"""A child process that speaks worker_pipe on its standard input and output, without its parent ever waiting for it."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec
import zmq

from motionbooth.server import worker_pipe

_SECONDS_TO_END = 2.0


def inbox(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    """An unbounded queue for the messages of threads, at `endpoint`."""
    socket = context.socket(zmq.PULL)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.bind(endpoint)
    return socket


def outbox(context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> zmq.Socket[bytes]:
    """A thread's end of `inbox`."""
    socket = context.socket(zmq.PUSH)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.connect(endpoint)
    return socket


class PipedProcess:
    """A process and two threads, one for each of its pipes.

    Its messages arrive at `endpoint` as [generation, bytes]; empty bytes at its end. Its standard error goes to `log`.
    """

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
            # Its own session: Ctrl+C in the server's terminal is for the server alone.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environment},
                start_new_session=os.name == "posix",
            )
        self._commands: queue.SimpleQueue[msgspec.Struct | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._write, name=f"to-process-{generation}", daemon=True),
            threading.Thread(
                target=self._read, args=(context, endpoint), name=f"from-process-{generation}", daemon=True
            ),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def status(self) -> int:
        """The exit status; waits for the end."""
        return self._process.wait()

    def send(self, command: msgspec.Struct) -> None:
        self._commands.put(command)

    def kill(self) -> None:
        """Kill the process and its children."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def dismiss(self) -> None:
        """Close the process's pipe, upon which it exits."""
        self._commands.put(None)

    def close(self, seconds: float = _SECONDS_TO_END) -> None:
        """End the process; if it has not exited `seconds` after its pipe was closed, kill it."""
        self.dismiss()
        try:
            self._process.wait(seconds)
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
        with self._process.stdout as pipe, outbox(context, endpoint) as reports:
            while data := worker_pipe.read(pipe):
                reports.send_multipart([generation, data])
            reports.send_multipart([generation, b""])
