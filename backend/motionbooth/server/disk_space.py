"""Watches for a full disk, and keeps a reserve on it that the store can use then."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from motionbooth_protocol.errors import OutOfSpace, is_disk_full
from motionbooth_protocol.text import Text

log = logging.getLogger("motionbooth.disk")
DISK_FULL = "disk_full"  # in LiveState.problems
RESERVE_BYTES = 32 << 20  # several times what SQLite's log takes
_LOW, _ENOUGH = 0.25, 2.0  # free space at which the disk is full, and is no longer, in sizes of the reserve
_SECONDS_BETWEEN_LOOKS = 1.0


class DiskSpace:
    """The disk of the folder `home`. While it is full, `problems` says so, new jobs and uploads are refused, and the
    file `reserve` of `size` bytes is given up, so that the store can still record how jobs end, and remove some.

    `try_store` writes to the store; raises OutOfSpace.
    """

    def __init__(self, home: Path, size: int, problems: dict[str, Text], try_store: Callable[[], None]) -> None:
        self._home = home
        self._reserve = home / "reserve"
        self._size = size
        self._problems = problems
        self._try_store = try_store
        self._next_at = float("-inf")
        held = self._reserve.exists() and self._reserve.stat().st_size == size
        if self._free() < size * (_LOW if held else _ENOUGH) or not (held or self._take()):
            self.filled()

    @property
    def is_full(self) -> bool:
        return DISK_FULL in self._problems

    def check(self) -> None:
        """Raises OutOfSpace while the disk is full."""
        if self.is_full:
            raise OutOfSpace(
                "The backend's disk is full: free some space there, or remove old jobs, and send again; nothing was "
                "lost."
            )

    def filled(self) -> None:
        """The disk is full, or the store could not write to it."""
        self._reserve.unlink(missing_ok=True)
        if not self.is_full:
            needed = self._size * _ENOUGH / 1e6
            log.warning("the disk is full: new jobs and uploads wait until %.0f MB are free", needed)
            self._problems[DISK_FULL] = Text.of(
                "The backend's disk is full: new jobs and uploads are refused until {needed:.0f} MB are free. Finished "
                "jobs can be fetched and removed.",
                needed=needed,
            )

    def tick(self) -> None:
        """Look once a second."""
        if (now := time.monotonic()) < self._next_at:
            return
        self._next_at = now + _SECONDS_BETWEEN_LOOKS
        free = self._free()
        if not self.is_full and free < self._size * _LOW:
            self.filled()
        elif self.is_full and free >= self._size * _ENOUGH and self._take():
            with suppress(OutOfSpace):  # by way of `filled`
                self._try_store()
                del self._problems[DISK_FULL]
                log.info("the disk has space again")

    def _free(self) -> int:
        return shutil.disk_usage(self._home).free

    def _take(self) -> bool:
        """Make the reserve. False if there is no space for it, in a quota of the system, for example."""
        try:
            with self._reserve.open("wb") as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, self._size)
                else:
                    file.write(bytes(self._size))
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            if not is_disk_full(error):
                raise
            log.warning("no reserve on the disk: %s", error.strerror)
            return error.errno == errno.EFBIG  # this process may only write small files; its disk is not full
        return True
