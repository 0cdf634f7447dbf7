"""Verifies all files of the blob store in the background, slowly, one after the other."""

from __future__ import annotations

import time

from motionbooth_protocol.text import Text

from motionbooth.server.blobs import Blobs
from motionbooth.server.file_ownership import FileOwnership

DAMAGED_FILES = "damaged_files"  # in LiveState.problems
_BYTES_PER_SECOND = 20e6
_SECONDS_BETWEEN_ROUNDS = 86_400.0
_SECONDS_BETWEEN_COUNTS = 2.0
_KEY = "scrub"  # no public key


class Scrub:
    """A round begins with the server, and a day after the last one. `problems` says how many files were damaged."""

    def __init__(self, blobs: Blobs, ownership: FileOwnership, problems: dict[str, Text]) -> None:
        self._blobs = blobs
        self._ownership = ownership
        self._problems = problems
        self._last = ""
        self._next_at = self._count_at = float("-inf")

    def tick(self) -> None:
        """Begin with the next file, if it is time."""
        now = time.monotonic()
        if now >= self._count_at:
            self._count_at = now + _SECONDS_BETWEEN_COUNTS
            self._count_damaged()
        if now >= self._next_at:
            self._verify_next(now)

    def _verify_next(self, now: float) -> None:
        sha256 = self._ownership.file_after(self._last)
        if sha256 is None:
            self._last, self._next_at = "", now + _SECONDS_BETWEEN_ROUNDS
        else:
            self._last = sha256
            if self._blobs.has(sha256):
                self._next_at = now + self._blobs.size(sha256) / _BYTES_PER_SECOND
                self._blobs.verify(_KEY, sha256)

    def _count_damaged(self) -> None:
        self._problems.pop(DAMAGED_FILES, None)
        if damaged := self._blobs.damaged():
            self._problems[DAMAGED_FILES] = Text.of(
                "Files that were damaged on the backend's disk, which may be failing: {count}. They are set aside in "
                "its folder corrupt. Upload them again, or run their jobs again.",
                count=len(damaged),
            )
