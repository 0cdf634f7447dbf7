"""The logs of the server and its workers, as text or as JSON lines."""

from __future__ import annotations

import datetime
import json
import logging
import logging.handlers
import os
import shutil
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from motionbooth_protocol.printable import on_one_line

log = logging.getLogger("motionbooth.server")
_MAX_BYTES, _COPIES = 5 << 20, 3
_SECONDS_BETWEEN_LOOKS = 2.0


class JsonLines(logging.Formatter):
    """One JSON object a line: time (ISO 8601, UTC), level, logger, message, and the traceback of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextLines(logging.Formatter):
    """A message is one line, whatever is in it; the lines of a traceback are indented and do not look like one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(name)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        return on_one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return textwrap.indent("\n".join(map(on_one_line, super().formatException(ei).split("\n"))), "    ")


def formatter(log_format: str) -> logging.Formatter:
    """`log_format` is "text" or "json"."""
    return JsonLines() if log_format == "json" else TextLines()


def worker_log(home: Path) -> Path:
    """The log of all workers of the backend in the folder `home`."""
    return home / "logs" / "worker.log"


def ray_log(home: Path) -> Path:
    """The log of the connection to a cluster."""
    return home / "logs" / "ray.log"


def rotate(path: Path) -> None:
    """If the log is long, move its contents to PATH.1, while other processes append to it."""
    if not path.exists() or path.stat().st_size < _MAX_BYTES:
        return
    copies = [path.with_name(f"{path.name}.{number}") for number in range(1, _COPIES + 1)]
    copy = path.with_name(f"{path.name}.new")
    try:
        shutil.copyfile(path, copy)
    except OSError:  # such as a full disk: the earlier copies stay
        copy.unlink(missing_ok=True)
        raise
    for older, newer in zip(copies[::-1], copies[-2::-1], strict=False):
        if newer.exists():
            newer.replace(older)
    copy.replace(copies[0])
    os.truncate(path, 0)


class LogRotation:
    """Rotates the logs that child processes write themselves: `tick` looks every few seconds.

    Only at the start on Windows, where a process goes on at its old place in a file that has become shorter.
    """

    def __init__(self, home: Path) -> None:
        self._paths = (worker_log(home), ray_log(home))
        self._next_at = float("-inf")
        with suppress(OSError):  # a server starts on a full disk, too
            self._rotate()

    def tick(self) -> None:
        if os.name != "nt" and time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + _SECONDS_BETWEEN_LOOKS
            self._rotate()

    def _rotate(self) -> None:
        for path in self._paths:
            rotate(path)


@contextmanager
def logging_to(path: Path, log_format: str) -> Iterator[None]:
    """Write the server's log, and the traceback of any thread that dies, to a rotating file."""
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=_MAX_BYTES, backupCount=_COPIES, encoding="utf-8", errors="backslashreplace"
    )
    handler.setFormatter(formatter(log_format))
    root = logging.getLogger("motionbooth")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    before, threading.excepthook = threading.excepthook, _log_death
    try:
        yield
    finally:
        threading.excepthook = before
        root.removeHandler(handler)
        handler.close()


def _log_death(death: threading.ExceptHookArgs) -> None:
    name = death.thread.name if death.thread is not None else "unknown"
    log.error("the thread %s died", name, exc_info=death.exc_value)
