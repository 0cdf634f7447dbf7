"""One part of the server's loop, which goes on whatever a part of it raises."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from motionbooth_protocol.errors import MotionBoothError, OutOfSpace
from motionbooth_protocol.text import Text

log = logging.getLogger("motionbooth.server")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0  # seconds


class Task:
    """Calls `act`. If it raises an error, that is logged and in `problems` under `name`, and the next calls do nothing
    for a pause that doubles with each failure.
    """

    def __init__(self, name: str, act: Callable[[], None], problems: dict[str, Text]) -> None:
        self._name = name
        self._act = act
        self._problems = problems
        self._pause = 0.0
        self._not_before = float("-inf")

    def __call__(self) -> None:
        if time.monotonic() < self._not_before:
            return
        try:
            self._act()
        except Exception as error:
            self._failed(error)
        else:
            if self._pause:
                self._pause = 0.0
                self._problems.pop(self._name, None)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, MotionBoothError):
            log.warning("%s: %s", self._name, error)
        else:
            log.error("%s failed", self._name, exc_info=error)
        if not isinstance(error, OutOfSpace):  # DiskSpace reports that
            self._problems[self._name] = (
                error.text
                if isinstance(error, MotionBoothError)
                else Text.of(
                    "A part of the backend fails and is tried again ({part}: {kind}). Its owner finds the details in "
                    "server.log.",
                    part=self._name,
                    kind=type(error).__name__,
                )
            )
        self._pause = min(2 * self._pause or _FIRST_PAUSE, _LONGEST_PAUSE)
        self._not_before = time.monotonic() + self._pause
