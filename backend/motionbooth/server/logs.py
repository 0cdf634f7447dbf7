"""The logs of the server and its workers, as text or as JSON lines."""

from __future__ import annotations

import datetime
import logging
import logging.handlers
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from motionbooth_protocol.printable import on_one_line

log = logging.getLogger("motionbooth.server")


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
        return msgspec.json.encode(line).decode()


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


@contextmanager
def logging_to(path: Path, log_format: str) -> Iterator[None]:
    """Write the server's log, and the traceback of any thread that dies, to a rotating file."""
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=5 << 20, backupCount=3)
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
