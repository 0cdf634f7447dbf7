"""Takes away what is old or too much, and nothing that a waiting job, a subject or an unfetched take needs."""

from __future__ import annotations

import logging
import time

from motionbooth.server.blobs import Blobs
from motionbooth.server.store import Store

log = logging.getLogger("motionbooth.cleaning")
_SECONDS_BETWEEN = 600.0
_DAY = 86_400.0
_JOBS_AT_ONCE = 200


class Cleaner:
    """`keep_days`: ended jobs go after so many days of service, but those that gave a subject; 0 keeps them for ever.

    Files that no job names go a day after they were uploaded.
    """

    def __init__(self, store: Store, blobs: Blobs, keep_days: float = 0) -> None:
        self._store = store
        self._blobs = blobs
        self._keep_days = keep_days
        self._next_at = float("-inf")

    def tick(self) -> None:
        """Clean a little, every ten minutes; sooner again where there is more."""
        if time.monotonic() >= self._next_at:
            self._store.database.keep_clock()
            jobs, _ = self.clean()
            self._next_at = time.monotonic() + (_SECONDS_BETWEEN if jobs < _JOBS_AT_ONCE else 1.0)

    def clean(self) -> tuple[int, int]:
        """How many jobs and files were taken away, for their age."""
        holdings, now = self._store.holdings, self._store.database.served()
        old = self._old(now - self._keep_days * _DAY) if self._keep_days else []
        with self._store.database.committed():
            files = [file for number in old for file in self._store.forget(number)]
            for owner in holdings.owners():
                files += holdings.let_go(owner, holdings.unwanted(owner, now - _DAY))
        self._remove(files)
        count = len(files) + self._blobs.remove_stale_uploads(_DAY)
        if old or count:
            log.info("removed %d old jobs and %d files", len(old), count)
        return len(old), count

    def make_room(self, owner: str, size: int) -> None:
        """Take away the owner's oldest takes, of so many bytes together, as far as it has fetched them."""
        count = 0
        while size > 0 and (takes := self._store.ended(owner, float("inf"), _JOBS_AT_ONCE, fetched_only=True)):
            files = list[str]()
            with self._store.database.committed():
                for number in takes:
                    if size <= 0:
                        break
                    results = self._store.results(number)
                    files += self._store.forget(number)
                    # What another take has, too, is kept for that one.
                    size -= sum(blob.size for blob in results if not self._store.holdings.has(owner, blob.sha256))
                    count += 1
            self._remove(files)
        if count:
            log.info("removed %d fetched takes to make room", count)

    def _old(self, before: float) -> list[int]:
        """Some of the jobs that ended before that time."""
        found = list[int]()
        for owner in self._store.owners():
            found += self._store.ended(owner, before, _JOBS_AT_ONCE - len(found))
        return found

    def _remove(self, files: list[str]) -> None:
        """After the commit: a file without a record can be removed once more, a record without its file misleads."""
        for sha256 in files:
            self._blobs.remove(sha256)
