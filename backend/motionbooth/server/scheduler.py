"""Brings jobs from the store to the executor and its reports back into the store. Knows nothing of sockets."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from motionbooth_protocol.errors import Canceled, NotFound, OutOfSpace
from motionbooth_protocol.jobs import Blob, Job, JobSpec, spec_digest

from motionbooth.server import worker_pipe
from motionbooth.server.blobs import Blobs
from motionbooth.server.database import demand_of, files_of
from motionbooth.server.fair_share import Turn, Turns
from motionbooth.server.local_executor import Executor, Place, Report
from motionbooth.server.store import Store, Wish, Work

log = logging.getLogger("motionbooth.scheduler")
CANCEL_GRACE_SECONDS = 5.0
_SECONDS_BETWEEN_TRIES = 5.0  # while the disk is full


# A job with a new durable event, by its number; or progress or a picture of a running one.
News = int | worker_pipe.Advanced | worker_pipe.Pictured


@dataclass(frozen=True)
class WorkerState:
    """What happens at a place: `state` is starting, idle or running; `job` the number of what runs there; `model` what
    is in memory.
    """

    place: Place
    state: str
    job: int | None
    model: str


@dataclass
class _Changes:
    """What one tick writes to the store. Nothing of it is told or acted upon before the commit."""

    news: list[News] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    started: list[tuple[Turn, Work]] = field(default_factory=list)
    lack: str = ""  # of space, in words


class Scheduler:
    """Gives the jobs their turns (see turns.py). `clean(number)` removes an ended job's scratch."""

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
        self._turns = Turns(store.database)
        self._news: list[News] = []
        self._unrecorded: list[Report] = []  # waits for space on the disk
        self._not_before = float("-inf")

    def resume(self) -> None:
        """Take up what the last server left behind: what still runs goes on, the rest goes back into the queue."""
        adopted = set()
        for place, (number, attempt) in self._executor.adopt().items():
            if not self._store.is_running(number, attempt):
                self._executor.cancel(number, attempt, CANCEL_GRACE_SECONDS)
                continue
            adopted.add(number)
            owner, spec = self._store.spec(number)
            self._turns.took(Turn(number, owner, demand_of(spec), place))
            if self._store.is_canceling(number):
                self._executor.cancel(number, attempt, CANCEL_GRACE_SECONDS)
        self._store.requeue_running(crashed=True, adopted=adopted)

    def submit(self, owner: str, job_id: str, spec: JobSpec, priority: int) -> tuple[Job, bool]:
        """The job, on disk, and whether an earlier job's results answered it."""
        for sha256 in files_of(spec):
            if not self._blobs.has(sha256):
                raise NotFound(
                    f"The job names the file {sha256[:12]}..., which the backend does not have; upload it first."
                )
        wish = Wish(owner, spec_digest(spec), spec.model)
        job = self._store.submit(owner, job_id, spec, priority, cached=self._results_for(wish))
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
        """Record what the executor reports, start what can start: in one commit, since each waits for the disk."""
        for report in self._executor.receive():
            self._unrecorded.append(report)
            if not isinstance(report, worker_pipe.Advanced | worker_pipe.Pictured):
                self._turns.ended(report.number, memory_lost=isinstance(report, worker_pipe.Exited))
        self._executor.tick()
        if time.monotonic() < self._not_before:
            return
        changes = _Changes()
        try:
            with self._store.database.committed():
                for report in self._unrecorded:
                    self._record(report, changes)
                if not changes.lack:
                    self._take_turns(changes)
        except OutOfSpace as error:
            for turn, _ in changes.started:
                self._turns.ended(turn.number)
            self._wait(str(error))
            return
        self._unrecorded.clear()
        self._act_on(changes)

    def news(self) -> list[News]:
        """What happened since the last call, in order; every change is on disk."""
        news, self._news = self._news, []
        return news

    def workers(self) -> list[WorkerState]:
        """All places and what happens there."""
        idle, running = set(self._executor.idle()), self._turns.running
        states = []
        for place in self._executor.places():
            job = running.get(place.name)
            state = "running" if job is not None else "idle" if place.name in idle else "starting"
            states.append(WorkerState(place, state, job, self._turns.model_at(place.name)))
        return states

    def close(self) -> None:
        """End in good order: what cannot run without us goes back into the queue."""
        self._executor.close()
        if not self._executor.lasting:
            self._store.requeue_running(crashed=False)

    def _take_turns(self, changes: _Changes) -> None:
        idle = self._executor.idle()
        while idle and (turn := self._turns.next(idle)) is not None:
            if self._is_left_to_twin(turn.number, changes):
                continue
            work = self._store.start(turn.number)
            changes.news.append(turn.number)
            self._turns.took(turn)
            idle.remove(turn.place)
            changes.started.append((turn, work))

    def _is_left_to_twin(self, number: int, changes: _Changes) -> bool:
        """Whether another job has made what this one asks for, or is making it: nothing is made twice."""
        wish = self._store.wish(number)
        results = self._results_for(wish)
        if results is not None:
            self._answer(number, results, changes)
            return True
        leader = self._store.twin(wish, "running")
        if leader is None:
            return False
        log.info("job %d waits for the results of job %d, which asks for the same", number, leader)
        self._store.follow(number, leader)
        return True

    def _answer_twins(self, number: int, changes: _Changes) -> None:
        """Whoever waits for the same as the job that is done has it now, too."""
        wish = self._store.wish(number)
        results = self._results_for(wish)  # none where the model was changed meanwhile
        if results is not None:
            for twin in self._store.waiting_twins(wish):
                self._answer(twin, results, changes)

    def _answer(self, number: int, results: list[Blob], changes: _Changes) -> None:
        self._store.answer(number, results)
        changes.news.append(number)
        changes.ended.append(number)

    def _act_on(self, changes: _Changes) -> None:
        self._news += changes.news
        for number in changes.ended:
            self._clean(number)
        for turn, work in changes.started:
            try:
                self._executor.start(turn.place, work)
            except OSError as error:
                reason = f"No worker process could be started ({error})."
                self._unrecorded.append(worker_pipe.Exited(number=work.number, attempt=work.attempt, reason=reason))
                self._turns.ended(work.number, memory_lost=True)
        if changes.lack:
            self._wait(changes.lack)

    def _results_for(self, wish: Wish) -> list[Blob] | None:
        """The results of a finished job that asked for the same, if they are all still here."""
        twin = self._store.twin(wish, "done")
        if twin is None:
            return None
        results = self._store.results(twin)
        return results if all(self._blobs.has(blob.sha256) for blob in results) else None

    def _record(self, report: Report, changes: _Changes) -> None:
        number, attempt = report.number, report.attempt
        if isinstance(report, worker_pipe.Advanced | worker_pipe.Pictured):
            changes.news.append(report)
            return
        if isinstance(report, worker_pipe.Exited):
            changed = self._store.worker_died(number, attempt, report.reason)
        elif isinstance(report, worker_pipe.Finished):
            if all(self._blobs.has(blob.sha256) for blob in report.results):
                changed = self._store.finish(number, attempt, report.results)
            else:  # the same file was an earlier job's, and went with it right now
                changed = self._store.requeue(number, attempt, "The results were removed as they were made.")
        elif report.code == OutOfSpace.code:
            changed = self._store.requeue(number, attempt, report.message)
            changes.lack = report.message
        else:
            state = "canceled" if report.code == Canceled.code else "failed"
            changed = self._store.end(number, attempt, state, "" if state == "canceled" else report.message)
        if not changed:
            log.warning("a report of job %d, attempt %d, came too late: %r", number, attempt, report)
            return
        changes.news.append(number)
        if (state := self._store.state(number)) != "queued":
            changes.ended.append(number)
        if state == "done":
            self._answer_twins(number, changes)

    def _wait(self, reason: str) -> None:
        log.warning("%s Waiting %.0f seconds.", reason, _SECONDS_BETWEEN_TRIES)
        self._not_before = time.monotonic() + _SECONDS_BETWEEN_TRIES
