"""Assigns jobs from the store to the executor's workers, and records their reports. Does not use sockets."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from motionbooth_protocol.errors import Canceled, ErrorReport, MotionBoothError, NotFound, OutOfSpace
from motionbooth_protocol.jobs import TERMINAL_STATES, Blob, Job, JobSpec, JobState, spec_digest
from msgspec.structs import replace

from motionbooth.server import worker_pipe
from motionbooth.server.attempts import Attempt, AttemptId, JobNumber, TimeLimits
from motionbooth.server.blobs import Blobs
from motionbooth.server.disk_space import DISK_FULL
from motionbooth.server.executor import Device, Executor
from motionbooth.server.fair_share import Assignment, FairShare
from motionbooth.server.job_queries import CacheKey
from motionbooth.server.live_state import LiveState, Update
from motionbooth.server.specs import affinity_key, input_files
from motionbooth.server.store import Store
from motionbooth.server.worker import remove_scratch, result_file
from motionbooth.server.worker_pipe import FinalReport

log = logging.getLogger("motionbooth.scheduler")
NO_WORKERS = "no_workers"  # in LiveState.problems
_SECONDS_BETWEEN_TRIES = 5.0  # while the disk is full


@dataclass(frozen=True)
class WorkerState:
    """A worker slot: `state` is starting, idle or running, `model` the base model in its memory ("" for none)."""

    device: Device
    state: str
    job_number: JobNumber | None
    model: str


@dataclass
class _Changes:
    """What one tick writes to the store. It is published and acted upon only after the commit."""

    updates: list[Update] = field(default_factory=list)
    ended: list[JobNumber] = field(default_factory=list)
    started: list[tuple[Assignment, Attempt]] = field(default_factory=list)
    out_of_space: ErrorReport | None = None  # of a worker


class Scheduler:
    """`home` is the backend's folder. `cancel_grace`: seconds that a canceled attempt has to stop. `time_limits`: those
    of the jobs of a key.
    """

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        executor: Executor,
        live: LiveState,
        home: Path,
        cancel_grace: float = 5.0,
        time_limits: Callable[[str], TimeLimits] = lambda owner: TimeLimits(),
    ) -> None:
        self._database = store.database
        self._queries = store.queries
        self._transitions = store.transitions
        self._blobs = blobs
        self._executor = executor
        self._live = live
        self._home = home
        self._cancel_grace = cancel_grace
        self._time_limits = time_limits
        self._fair_share = FairShare(store.database)
        self._unrecorded: list[FinalReport] = []  # until the disk has space
        self._not_before = float("-inf")
        self._adopted: set[JobNumber] | None = None  # until the other running jobs are requeued

    def resume(self) -> None:
        """If the executor has reached its workers, for the first time or again: adopt the attempts that run there, and
        requeue the other running jobs.
        """
        found = self._executor.adopt()
        if found is None:
            return
        self._fair_share.release_all()
        # A report that is not recorded yet decides about its job.
        ended = {report.id for report in self._unrecorded}
        self._adopted = {id.job_number for id in ended if self._queries.is_running(id)}
        for slot, id in found.items():
            if id in ended:
                continue
            if not self._queries.is_running(id):
                self._executor.cancel(id, self._cancel_grace)
                continue
            self._adopted.add(id.job_number)
            owner, spec = self._queries.cache_key(id.job_number).owner, self._queries.spec(id.job_number)
            self._fair_share.assign(Assignment(id.job_number, owner, affinity_key(spec), slot))
            if self._queries.is_canceling(id.job_number):
                self._executor.cancel(id, self._cancel_grace)
        self._requeue_now()

    def submit(self, owner: str, job_id: str, spec: JobSpec, priority: int) -> tuple[Job, bool]:
        """Store the job. Returns it, and whether it is done with the results of an earlier job.

        Raises NotFound if a file that it names is not here, Busy while its files or those results are verified.
        """
        for sha256 in input_files(spec):
            self._blobs.verify(owner, sha256)  # all of them at the same time
        for sha256 in input_files(spec):
            if not self._blobs.is_sound(owner, sha256):
                self._blobs.path(sha256)  # raises NotFound
        digest = spec_digest(spec, is_received=True)
        cached = self._cached_results(CacheKey(owner, digest, spec.model))
        if cached is not None and not all(self._blobs.is_sound(owner, blob.sha256) for blob in cached):
            cached = None
        job = self._transitions.submit(owner, job_id, spec, priority, cached, digest)
        return job, job.state == JobState.DONE and job.attempt == 0

    def cancel(self, job_number: JobNumber) -> JobState:
        """Returns the job's new state: CANCELED, or RUNNING until its worker has stopped."""
        job = self._transitions.request_cancel(job_number)
        if job.state == JobState.RUNNING:
            self._executor.cancel(AttemptId(job_number, job.attempt), self._cancel_grace)
        else:
            self._live.add(Update(job_number))
            remove_scratch(self._home, job_number)  # of earlier attempts
        return job.state

    def tick(self) -> None:
        """Record the reports and start what can start, in one commit, since each commit waits for the disk."""
        for report in self._executor.receive():
            if isinstance(report, worker_pipe.Progressed | worker_pipe.Previewed):
                self._live.add(Update(report.id.job_number, report.report))
                continue
            self._unrecorded.append(report)
            memory_lost = isinstance(report, worker_pipe.Exited | worker_pipe.Lost)
            self._fair_share.release(report.id.job_number, memory_lost)
        self._executor.tick()
        self.resume()
        self._report_problem()
        if time.monotonic() < self._not_before:
            return
        changes = _Changes()
        try:
            with self._database.transaction():
                self._requeue_lost(changes)
                for report in self._unrecorded:
                    self._record(report, changes)
                if not changes.out_of_space and DISK_FULL not in self._live.problems:
                    self._assign(changes)
        except Exception as error:
            for assignment, _ in changes.started:
                self._fair_share.release(assignment.job_number)
            if not isinstance(error, OutOfSpace):
                raise
            self._pause(error)
            return
        self._unrecorded.clear()
        self._adopted = None
        self._after_commit(changes)

    def retry_now(self) -> None:
        """Do not wait any longer for space on the disk."""
        self._not_before = float("-inf")

    def workers(self) -> list[WorkerState]:
        """The state of each worker slot."""
        idle, running = set(self._executor.idle()), self._fair_share.jobs_by_slot()
        states = []
        for device in self._executor.devices():
            job_number = running.get(device.name)
            state = "running" if job_number is not None else "idle" if device.name in idle else "starting"
            states.append(WorkerState(device, state, job_number, self._fair_share.model_in(device.name)))
        return states

    def close(self) -> None:
        """Shut down in good order: requeue the jobs whose workers end with the server."""
        self._executor.close()
        if not self._executor.outlives_server:
            self._adopted = set()
            self._requeue_now()  # or, without space on the disk, the next server does it

    def _report_problem(self) -> None:
        problem = self._executor.problem
        if problem is not None:
            self._live.problems[NO_WORKERS] = problem
        else:
            self._live.problems.pop(NO_WORKERS, None)

    def _requeue_now(self) -> None:
        """In a transaction of its own; without space on the disk, the first tick that can write does it."""
        changes = _Changes()
        try:
            self._requeue_lost(changes)
        except OutOfSpace as error:
            self._pause(error)
            return
        self._adopted = None
        self._after_commit(changes)

    def _requeue_lost(self, changes: _Changes) -> None:
        """Requeue the jobs that were left running, unless that is done. One that is being canceled ends."""
        if self._adopted is not None:
            for job_number in self._transitions.requeue_running(self._adopted):
                self._note_change(job_number, changes)

    def _note_change(self, job_number: JobNumber, changes: _Changes) -> JobState:
        """Let the change be published, and what follows if it ended the job."""
        changes.updates.append(Update(job_number))
        state = self._queries.state(job_number)
        if state in TERMINAL_STATES:
            changes.ended.append(job_number)
        return state

    # Inside the transaction of a tick

    def _record(self, report: FinalReport, changes: _Changes) -> None:
        id = report.id
        match report:
            case worker_pipe.Exited():
                is_current = self._transitions.worker_died(id, report.error)
            case worker_pipe.Lost():
                is_current = self._transitions.requeue(id, report.error)
            case worker_pipe.Finished() if self._take(report):
                is_current = self._transitions.finish(id, report.results)
            case worker_pipe.Finished():
                missing = MotionBoothError(
                    "The worker reported the job as finished, but its files are missing; see server.log on the backend."
                )
                is_current = self._transitions.worker_died(id, missing.report)
            case worker_pipe.Failed(error=ErrorReport(kind=OutOfSpace.code)):
                is_current = self._transitions.requeue(id, report.error)
                changes.out_of_space = report.error
            case worker_pipe.Failed(error=ErrorReport(kind=Canceled.code)):
                is_current = self._transitions.end(id, JobState.CANCELED)
            case worker_pipe.Failed():
                is_current = self._transitions.end(id, JobState.FAILED, report.error)
                if is_current and report.error.kind == NotFound.code:  # the worker has found damage
                    self._verify_inputs(id.job_number)
        if not is_current:
            log.warning("ignored a late report on job %d, attempt %d: %r", *id, report)
            return
        if self._note_change(id.job_number, changes) == JobState.DONE:
            self._complete_duplicates(id.job_number, changes)

    def _take(self, report: worker_pipe.Finished) -> bool:
        """Take the results from the worker. Returns whether all of them are there."""
        number = report.id.job_number
        return all(self._blobs.take(result_file(self._home, number, one.sha256), one.sha256) for one in report.results)

    def _verify_inputs(self, job_number: JobNumber) -> None:
        owner = self._queries.cache_key(job_number).owner
        for sha256 in input_files(self._queries.spec(job_number)):
            self._blobs.verify_again(owner, sha256)

    def _assign(self, changes: _Changes) -> None:
        idle = self._executor.idle()
        while idle and (assignment := self._fair_share.next(idle)) is not None:
            if self._is_duplicate(assignment.job_number, changes):
                continue
            try:
                attempt = self._transitions.start(assignment.job_number)
            except msgspec.MsgspecError as error:  # stored by a version with other bounds; the next jobs must not wait
                unreadable = MotionBoothError(
                    "This version of the backend cannot read the job ({reason}). Send it again.", reason=error
                )
                self._transitions.give_up(assignment.job_number, unreadable.report)
                self._note_change(assignment.job_number, changes)
                continue
            attempt = replace(attempt, limits=self._time_limits(assignment.owner))
            changes.updates.append(Update(assignment.job_number))
            self._fair_share.assign(assignment)
            idle.remove(assignment.slot)
            changes.started.append((assignment, attempt))

    def _is_duplicate(self, job_number: JobNumber, changes: _Changes) -> bool:
        """Complete the job from the cache, or coalesce it with a running duplicate. False if there is neither."""
        key = self._queries.cache_key(job_number)
        results = self._cached_results(key)
        if results is not None:
            self._complete_from_cache(job_number, results, changes)
            return True
        running = self._transitions.find_duplicate(key, JobState.RUNNING)
        if running is None:
            return False
        log.info("job %d is a duplicate of running job %d and waits for its results", job_number, running)
        self._transitions.coalesce(job_number, running)
        return True

    def _complete_duplicates(self, job_number: JobNumber, changes: _Changes) -> None:
        """Complete the queued duplicates of a job that is done."""
        key = self._queries.cache_key(job_number)
        results = self._cached_results(key)  # None if the model has changed meanwhile
        if results is not None:
            for duplicate in self._transitions.queued_duplicates(key):
                self._complete_from_cache(duplicate, results, changes)

    def _complete_from_cache(self, job_number: JobNumber, results: list[Blob], changes: _Changes) -> None:
        self._transitions.complete_from_cache(job_number, results)
        changes.updates.append(Update(job_number))
        changes.ended.append(job_number)

    def _cached_results(self, key: CacheKey) -> list[Blob] | None:
        """The results of a finished job with this key, if all of their files are still here."""
        duplicate = self._transitions.find_duplicate(key, JobState.DONE)
        if duplicate is None:
            return None
        results = self._queries.results(duplicate)
        return results if all(self._blobs.has(blob.sha256) for blob in results) else None

    # After the commit

    def _after_commit(self, changes: _Changes) -> None:
        for update in changes.updates:
            self._live.add(update)
        for job_number in changes.ended:
            remove_scratch(self._home, job_number)
        for assignment, attempt in changes.started:
            try:
                self._executor.start(assignment.slot, attempt)
            except OSError as error:
                failure = MotionBoothError("No worker process could be started ({reason}).", reason=error.strerror)
                self._unrecorded.append(worker_pipe.Lost(attempt.id, error=failure.report))
                self._fair_share.release(assignment.job_number, memory_lost=True)
                self._pause(failure)
        self._live.keep_only(self._fair_share.running)
        if changes.out_of_space:
            self._pause(changes.out_of_space)

    def _pause(self, reason: object) -> None:
        log.warning("%s Waiting %.0f seconds.", reason, _SECONDS_BETWEEN_TRIES)
        self._not_before = time.monotonic() + _SECONDS_BETWEEN_TRIES
