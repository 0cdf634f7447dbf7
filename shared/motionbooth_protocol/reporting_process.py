"""Runs a program that reports on standard output as JSON lines, and makes sure that it ends. Needs no pyzmq.

The lines are

    {"stage": "sampling", "step": 12, "steps": 25, "seconds_left": 8.5, "note": null}      a ProgressReport
    {"done": RESULT}                                                                       last, if it succeeded
    {"error": {"code": "invalid_input", "template": TEMPLATE, "values": {...}}}            last, if it failed

A note, like the message of an error, is a TEMPLATE with its values, see text.py. Other lines, such as Blender's own
output, go to the log.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TextIO

import msgspec

from .errors import Canceled, ErrorReport, JobFailed, MotionBoothError
from .reports import ProgressReport

STOP_SECONDS = 15.0  # a process that was asked to end is killed after this time


class ReportWriter:
    """The program's side: writes its lines to `lines`."""

    def __init__(self, lines: TextIO) -> None:
        self._lines = lines

    def progress(self, report: ProgressReport) -> None:
        self._write(report)

    def done(self, result: Any) -> None:
        self._write({"done": result})

    def failed(self, error: MotionBoothError) -> None:
        self._write({"error": error.report})

    def _write(self, message: Any) -> None:
        print(msgspec.json.encode(message).decode(), file=self._lines, flush=True)


class ReportingProcess:
    """One run of such a program. `log`: the file for everything that is not a report. `variables`: its environment's
    further ones."""

    def __init__(self, command: Sequence[str], log: Path, variables: Mapping[str, str] | None = None) -> None:
        self._command = list(command)
        self._environment = {**os.environ, **(variables or {})}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._interrupted = False

    def run(self, on_progress: Callable[[ProgressReport], None]) -> Any:
        """Wait for the result; afterwards the process has ended, even if `on_progress` raised.

        Raises the error that the program reported, Canceled if it was interrupted, or JobFailed if it ended without a
        result.
        """
        with self._log.open("wb") as log, ending(self._start(log)) as process:
            assert process.stdout is not None
            for line in process.stdout:
                match _parse(line):
                    case ProgressReport() as progress:
                        on_progress(progress)
                    case {"done": result}:
                        _wait(process)
                        return result
                    case {"error": {"code": str()} as report}:
                        _wait(process)
                        raise msgspec.convert(report, ErrorReport).error()
                    case _:
                        log.write(line)
                        log.flush()
            status = process.wait()
        if self._interrupted:
            raise Canceled("It was interrupted.")
        raise JobFailed(
            "The process ended early (exit status {status}): {reason}. Its log is {log}.",
            status=status,
            reason=last_line(self._log).rstrip(".") or "it printed nothing",
            log=self._log,
        )

    def interrupt(self) -> None:
        """Ask the process to end, as Ctrl+C does. Any thread may call this; `run` returns once it has ended."""
        with self._lock:
            self._interrupted = True
            if self._process is not None:
                _interrupt(self._process)

    def kill(self) -> None:
        """End the process at once, one that has nothing to finish; otherwise as `interrupt`."""
        with self._lock:
            self._interrupted = True
            if self._process is not None:
                _kill(self._process)

    def stop(self) -> None:
        """Interrupt the process, and wait until it has ended."""
        self.interrupt()
        if self._process is not None:
            _end(self._process)

    def _start(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._interrupted:
                raise Canceled("It was interrupted.")
            self._process = start(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=self._environment
            )
            return self._process


def last_line(log: Path) -> str:
    """The last line of a log; "" if it is empty."""
    return log.read_text(errors="replace").strip().rpartition("\n")[2]


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start it in its own session, so that Ctrl+C in a terminal reaches only this process, which then passes it on."""
    return subprocess.Popen(command, start_new_session=True, **options)


@contextlib.contextmanager
def ending(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The process has ended when the block is left: it is interrupted, and killed if that does not help."""
    try:
        yield process
    finally:
        if process.stdout is not None:
            process.stdout.close()
        _interrupt(process)
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for an interrupted process; kill it, with the processes that it started, if it does not end."""
    _wait(process)
    _kill(process)
    process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill it, with the processes that it started, unless it has ended."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):  # another thread has just seen it end
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError):  # it has ended, or there is no such signal (Windows)
        process.send_signal(signal.SIGINT)


def _wait(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)


def _parse(line: bytes) -> Any:
    """The report on a line; None for any other output."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = msgspec.json.decode(line)
        if isinstance(message, dict) and "stage" in message:
            return msgspec.convert(message, ProgressReport)
        return message
    return None
