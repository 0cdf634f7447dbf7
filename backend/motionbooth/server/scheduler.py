"""Brings jobs from the store to the executor and its reports back into the store. Knows nothing of sockets."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from motionbooth_protocol.errors import Canceled, NotFound, OutOfSpace
from motionbooth_protocol.jobs import Blob, Job, JobSpec

from . import pipes
from .blobs import Blobs
from .database import files_of
from .executor import Executor, Exited, Report
from .store import Store

log = logging.getLogger("motionbooth.scheduler")
CANCEL_GRACE_SECONDS = 5.0
_SECONDS_BETWEEN_TRIES = 5.0  # while the disk is full


# A job with a new durable event, by its number; or progress or a picture of a running one.
News = int | pipes.Advanced | pipes.Pictured


class Scheduler:
    """One job after the other, by priority, then by arrival. `clean(number)` removes an ended job's scratch."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        executor: Executor,
        clean: Callable[[int], None],
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._executor = executor
        self._clean = clean
        self._news: list[News] = []
        self._unrecorded: deque[Report] = deque()  # waits for space on the disk
        self._not_before = float("-inf")

    def submit(self, owner: str, job_id: str, spec: JobSpec, priority: int) -> tuple[Job, bool]:
        """The job, on disk, and whether an earlier job's results answered it."""
        for sha256 in files_of(spec):
            if not self._blobs.has(sha256):
                raise NotFound(
                    f"The job names the file {sha256[:12]}..., which the backend does not have; upload it first."
                )
        job = self._store.submit(owner, job_id, spec, priority, cached=self._twin(owner, spec))
        return job, job.state == "done" and job.attempt == 0

    def cancel(self, number: int) -> str:
        """The job's state after the wish was noted: "canceled" at once, or "running" until the worker has stopped."""
        state, attempt = self._store.request_cancel(number)
        if state == "running":
            self._executor.cancel(number, attempt, CANCEL_GRACE_SECONDS)
        else:
            self._news.append(number)
        return state

    def tick(self) -> None:
        """Record what the executor reports, start what can start."""
        self._unrecorded.extend(self._executor.receive())
        self._executor.tick()
        if time.monotonic() < self._not_before:
            return
        try:
            while self._unrecorded:
                self._record(self._unrecorded[0])
                self._unrecorded.popleft()
            while self._may_start() and (number := self._store.next_queued()) is not None:
                self._start(number)
        except OutOfSpace as error:
            self._wait(str(error))

    def news(self) -> list[News]:
        """What happened since the last call, in order; every change is on disk."""
        news, self._news = self._news, []
        return news

    def close(self) -> None:
        """End in good order: what runs goes back into the queue."""
        self._executor.close()
        self._store.requeue_running(crashed=False)

    def _may_start(self) -> bool:
        return not self._unrecorded and self._executor.capacity() > 0 and time.monotonic() >= self._not_before

    def _start(self, number: int) -> None:
        twin = self._twin(*self._store.spec(number))
        work = self._store.start(number)
        self._news.append(number)
        # The job counts as running now: even what ends at once ends by a report, since those survive a full disk.
        if twin is not None:
            self._unrecorded.append(pipes.Finished(number=number, attempt=work.attempt, results=twin))
            return
        try:
            self._executor.start(work)
        except OSError as error:
            reason = f"No worker process could be started ({error})."
            self._unrecorded.append(Exited(number, work.attempt, reason))

    def _twin(self, owner: str, spec: JobSpec) -> list[Blob] | None:
        """The results of a finished job that asked for the same, if they are all still here."""
        twin = self._store.finished_twin(owner, spec)
        return twin if twin is not None and all(self._blobs.has(blob.sha256) for blob in twin) else None

    def _record(self, report: Report) -> None:
        number, attempt = report.number, report.attempt
        if isinstance(report, pipes.Advanced | pipes.Pictured):
            self._news.append(report)
            return
        if isinstance(report, Exited):
            changed = self._store.worker_died(number, attempt, report.reason)
        elif isinstance(report, pipes.Finished):
            changed = self._store.finish(number, attempt, report.results)
        elif report.code == OutOfSpace.code:
            changed = self._store.requeue(number, attempt, report.message)
            self._wait(report.message)
        else:
            state = "canceled" if report.code == Canceled.code else "failed"
            changed = self._store.end(number, attempt, state, "" if state == "canceled" else report.message)
        if not changed:
            log.warning("a report of job %d, attempt %d, came too late: %r", number, attempt, report)
            return
        self._news.append(number)
        if self._store.job(number).state != "queued":
            self._clean(number)

    def _wait(self, reason: str) -> None:
        log.warning("%s Waiting %.0f seconds.", reason, _SECONDS_BETWEEN_TRIES)
        self._not_before = time.monotonic() + _SECONDS_BETWEEN_TRIES
