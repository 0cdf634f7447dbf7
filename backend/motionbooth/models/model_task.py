"""One action on a published model, for a server: `python -m motionbooth.models.model_task offer|get|check|remove NAME`.

Reports as JSON lines (see reporting_process.py). It goes on after a cut connection, and ends with the server.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from motionbooth_protocol.errors import Conflict, MotionBoothError, from_os_error
from motionbooth_protocol.messages import ModelLicense
from motionbooth_protocol.reporting_process import ReportWriter
from motionbooth_protocol.reports import ProgressReport

from motionbooth.models.downloads import (
    CHECKING,
    CONVERTING,
    FETCHING,
    check_sound,
    fetch,
    remove,
)
from motionbooth.models.offers import is_broken_off, offer
from motionbooth.models.sources import folder_named

ASKING, REMOVING, WAITING = "asking the hub", "removing the model", "waiting for the network"
STAGES = (ASKING, FETCHING, CHECKING, CONVERTING, WAITING, REMOVING)
# Seconds before the download goes on where it broke off. Another process may still be at it, of a server that crashed.
_PAUSES = (1, 2, 5, 10, 30, 60, 120, 300)
_MB = 1_000_000


class OnStage(Protocol):
    def __call__(self, stage: str, size: int = 0) -> None:
        """`size`: how many bytes there will be."""


def _offer(name: str, on_stage: OnStage) -> dict[str, Any]:
    on_stage(ASKING)
    found = offer(name)
    licenses = [ModelLicense(one.origin.hub, one.origin.license, one.repository.license_at) for one in found.parts]
    return {"size": found.size, "licenses": licenses}


def _get(name: str, on_stage: OnStage) -> None:
    for pause in (*_PAUSES, None):
        try:
            on_stage(ASKING)
            found = offer(name)
            fetch(found, partial(on_stage, size=found.size))
            return
        except MotionBoothError as error:
            if pause is None or not (is_broken_off(error) or isinstance(error, Conflict)):
                raise
            print(error, file=sys.stderr, flush=True)
            on_stage(WAITING)
            time.sleep(pause)


def _check(name: str, on_stage: OnStage) -> None:
    on_stage(CHECKING)
    check_sound(name, folder_named(name))


def _remove(name: str, on_stage: OnStage) -> None:
    on_stage(REMOVING)
    remove(name)


ACTIONS: dict[str, Callable[[str, OnStage], Any]] = {
    "offer": _offer,
    "get": _get,
    "check": _check,
    "remove": _remove,
}


def main(action: str, name: str) -> None:
    """Run it, until Ctrl+C."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    writer = ReportWriter(sys.stdout)

    def on_stage(stage: str, size: int = 0) -> None:
        writer.progress(ProgressReport(stage, 0, size // _MB))

    try:
        writer.done(ACTIONS[action](name, on_stage))
    except MotionBoothError as error:
        writer.failed(error)
    except OSError as error:
        writer.failed(from_os_error(error))
    except KeyboardInterrupt:  # the server cancels it so
        sys.exit(130)


def _end_with(parent: int) -> None:
    """A server that was killed starts another one of these: two must not write at once."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
