"""Removes old jobs and files, but none that a queued job, a subject or a result not yet downloaded needs."""

from __future__ import annotations

import logging
import time

from motionbooth_protocol.errors import Conflict
from motionbooth_protocol.jobs import TERMINAL_STATES

from motionbooth.server.attempts import JobNumber
from motionbooth.server.blobs import Blobs
from motionbooth.server.store import Store

log = logging.getLogger("motionbooth.retention")
_SECONDS_BETWEEN = 600.0
_DAY = 86_400.0
_BATCH = 200  # jobs


class Retention:
    """Ended jobs are kept for `keep_days` of the backend's running time, 0: forever. Jobs that trained a subject stay.

    Files that no job refers to are removed a day after their upload.
    """

    def __init__(self, store: Store, blobs: Blobs, keep_days: float = 0) -> None:
        self._database = store.database
        self._queries = store.queries
        self._ownership = store.ownership
        self._blobs = blobs
        self._keep_days = keep_days
        self._next_at = self._shrink_at = float("-inf")

    def tick(self) -> None:
        """Collect a batch every ten minutes; if there is more, the next one after a second."""
        if time.monotonic() >= self._shrink_at:
            self._shrink_at = time.monotonic() + 1.0
            self._database.shrink()
        if time.monotonic() >= self._next_at:
            self._database.save_seconds_open()
            jobs, _ = self.collect()
            self._next_at = time.monotonic() + (_SECONDS_BETWEEN if jobs < _BATCH else 1.0)

    def collect(self) -> tuple[int, int]:
        """Remove expired jobs and files. Returns how many of each."""
        now = self._database.seconds_open()
        expired = self._expired(now - self._keep_days * _DAY) if self._keep_days else []
        with self._database.transaction():
            files = [file for number in expired for file in self._delete(number)]
            for owner in self._ownership.owners():
                files += self._ownership.release_unused(owner, now - _DAY)
        self._remove(files)
        count = len(files) + self._blobs.remove_stale_uploads(_DAY)
        if expired or count:
            log.info("removed %d old jobs and %d files", len(expired), count)
        return len(expired), count

    def make_room(self, owner: str, size: int) -> None:
        """Remove the owner's oldest downloaded jobs until `size` bytes are free, as far as that goes."""
        count = 0
        while size > 0 and (jobs := self._ended(owner, float("inf"), _BATCH, downloaded_only=True)):
            files = list[str]()
            with self._database.transaction():
                for number in jobs:
                    if size <= 0:
                        break
                    results = self._queries.results(number)
                    size -= self._queries.spec_bytes(number)
                    files += self._delete(number)
                    # A file that another job of the owner has, too, frees nothing.
                    size -= sum(blob.size for blob in results if not self._ownership.owns(owner, blob.sha256))
                    count += 1
            self._remove(files)
        if count:
            log.info("removed %d downloaded jobs to make room", count)

    def forget(self, job_number: JobNumber) -> None:
        """Remove an ended job, the subject that it trained, and the files without an owner after that.

        Raises Conflict if the job has not ended.
        """
        with self._database.transaction():
            files = self._delete(job_number)
        self._remove(files)

    def _delete(self, number: JobNumber) -> list[str]:
        """Inside a transaction. Returns the files without an owner now."""
        job = self._queries.job(number)
        if job.state not in TERMINAL_STATES:
            raise Conflict(
                "The job {job} is {state}; cancel it, and remove it when it has ended.", job=job.id, state=job.state
            )
        files = self._database.rows(
            "SELECT sha256 FROM inputs WHERE job = ? UNION SELECT sha256 FROM results WHERE job = ?", number, number
        )
        self._database.execute(
            "DELETE FROM subjects WHERE owner = ? AND weights IN "
            "(SELECT sha256 FROM results WHERE job = ? AND role = 'subject')", job.owner, number,
        )  # fmt: skip
        for table, column in (("events", "job"), ("results", "job"), ("inputs", "job"), ("jobs", "number")):
            self._database.execute(f"DELETE FROM {table} WHERE {column} = ?", number)
        return self._ownership.release(job.owner, [sha256 for (sha256,) in files])

    def _expired(self, before: float) -> list[JobNumber]:
        """A batch of the jobs that ended before that time."""
        found = list[JobNumber]()
        for (owner,) in self._database.rows("SELECT DISTINCT owner FROM jobs"):
            found += self._ended(owner, before, _BATCH - len(found))
        return found

    def _ended(self, owner: str, before: float, limit: int, downloaded_only: bool = False) -> list[JobNumber]:
        """The owner's first jobs that ended before that time (see Database.seconds_open), without those that trained a
        subject. `downloaded_only`: only those whose results the owner has.
        """
        # SQLite runs a CROSS JOIN in its order: from one job to its few results, not through all of the owner's files.
        rows = self._database.rows(
            "SELECT number FROM jobs WHERE owner = ? AND ended < ? AND (kind != 'train' OR state != 'done') AND NOT "
            "(? AND EXISTS (SELECT 1 FROM results CROSS JOIN file_owners USING (sha256) WHERE job = number AND "
            "file_owners.owner = jobs.owner AND NOT downloaded)) ORDER BY ended, number LIMIT ?",
            owner, before, downloaded_only, limit,
        )  # fmt: skip
        return [number for (number,) in rows]

    def _remove(self, files: list[str]) -> None:
        """After the commit: a file without a record is harmless, a record without its file is not."""
        for sha256 in files:
            self._blobs.remove(sha256)
