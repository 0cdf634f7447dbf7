"""Running jobs from one server to the next, and duplicate jobs, with an executor whose workers outlive the server."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from motionbooth.server import worker_pipe
from motionbooth.server.attempts import AttemptId, JobNumber
from motionbooth.server.live_state import LiveState
from motionbooth.server.scheduler import Scheduler
from motionbooth.server.store import Store
from motionbooth.server.worker import scratch_folder
from motionbooth.server.worker_pipe import Report
from motionbooth_lab.bench.scheduler import SimulatedWorkers, with_clip
from motionbooth_protocol.errors import ErrorReport, OutOfSpace
from motionbooth_protocol.reports import ProgressReport
from running_backend import small_job


class OutlivingWorkers(SimulatedWorkers):
    """Adopted by a new server."""

    outlives_server = True

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], folder: Path, found: dict[str, AttemptId] | None
    ) -> None:
        self.home = folder
        self.blobs, clip = with_clip(folder)
        super().__init__(context, 3, {JobNumber(number): 1.0 for number in range(1, 9)}, clip)
        self._found = found
        self.canceled: list[AttemptId] = []
        self.reports: list[Report] = []  # besides those of the jobs that have ended by the clock

    def adopt(self) -> dict[str, AttemptId] | None:
        found, self._found = self._found, None
        return found

    def cancel(self, id: AttemptId, grace: float) -> None:
        self.canceled.append(id)

    def drop(self, slot: str) -> None:
        """The job in this slot ends without a report."""
        self._ends = [end for end in self._ends if end[2] != slot]
        self._idle[slot] = None

    def occupy(self, slot: str) -> None:
        del self._idle[slot]

    def receive(self) -> list[Report]:
        reports, self.reports = self.reports, []
        return [*super().receive(), *reports]


FIRST = AttemptId(JobNumber(1), 1)


def new_scheduler(store: Store, workers: OutlivingWorkers, live: LiveState | None = None) -> Scheduler:
    return Scheduler(store, workers.blobs, workers, live or LiveState(), workers.home)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Jobs 1 to 4, all running."""
    store = Store(tmp_path / "jobs.sqlite")
    for number in range(1, 5):
        store.transitions.submit("ann", f"job-{number:05}", small_job(seed=number))
        store.transitions.start(JobNumber(number))
    yield store
    store.close()


def test_running_attempts_are_adopted_stale_ones_canceled_and_lost_jobs_requeued(store: Store, tmp_path: Path) -> None:
    stale, canceling = AttemptId(JobNumber(3), 1), AttemptId(JobNumber(4), 1)
    store.transitions.requeue(stale)
    store.transitions.start(stale.job_number)
    store.transitions.request_cancel(canceling.job_number)
    with zmq.Context() as context:
        workers = OutlivingWorkers(context, tmp_path, {"worker-0": FIRST, "worker-1": stale, "worker-2": canceling})
        scheduler = new_scheduler(store, workers)
        scheduler.resume()
        states = [store.queries.state(JobNumber(number)) for number in (1, 2, 3, 4)]
        assert states == ["running", "queued", "queued", "running"]
        assert workers.canceled == [stale, canceling], "a newer attempt is running; its owner has canceled it"
        jobs = {worker.device.name: worker.job_number for worker in scheduler.workers()}
        assert jobs == {"worker-0": 1, "worker-1": None, "worker-2": 4}
        scheduler.close()
    assert store.queries.state(FIRST.job_number) == "running", "for the next server to adopt"


def test_a_queued_duplicate_of_a_finished_job_is_done_without_a_worker(store: Store, tmp_path: Path) -> None:
    with zmq.Context() as context:
        workers, live = OutlivingWorkers(context, tmp_path, None), LiveState()
        scheduler = new_scheduler(store, workers, live)
        store.transitions.submit("ann", "job-duplicate", small_job(seed=1))
        store.transitions.finish(FIRST, [workers.clip])
        scheduler.tick()
        duplicate = store.queries.job(JobNumber(5))
        assert (duplicate.state, duplicate.results) == ("done", [workers.clip])
        assert [update.job_number for update in live.take_updates()] == [5]
        assert workers.started_at == {}
        scheduler.close()


class InFlight:
    """A scheduler with three workers, one of which runs job 1 of Ann's; job 2 is its duplicate."""

    def __init__(self, folder: Path, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.store = Store(folder / "jobs.sqlite")
        self.workers = OutlivingWorkers(context, folder, {})
        self.live = LiveState()
        self.scheduler = new_scheduler(self.store, self.workers, self.live)
        for name in ("first", "second"):
            self.scheduler.submit("ann", f"job-{name}", small_job(seed=1), priority=0)
        self.scheduler.tick()

    def states(self) -> list[str]:
        return [job.state for _, job in reversed(list(self.store.queries.jobs(None, 9)))]

    def end_first(self, code: str = "") -> None:
        """Done, or failed with this code."""
        if code:
            self.workers.drop("worker-0")
            self.workers.reports.append(worker_pipe.Failed(FIRST, error=ErrorReport("why", code=code)))
        else:
            self.workers.now += 100
        self.scheduler.tick()


@pytest.fixture
def in_flight(tmp_path: Path) -> Iterator[InFlight]:
    with zmq.Context() as context:
        in_flight = InFlight(tmp_path, context)
        assert in_flight.states() == ["running", "queued"], "although workers are idle"
        yield in_flight
        in_flight.scheduler.close()
        in_flight.store.close()


def test_a_coalesced_job_is_done_with_the_results_of_the_running_one(in_flight: InFlight) -> None:
    in_flight.scheduler.submit("ann", "job-third", small_job(seed=1), priority=5)
    in_flight.live.take_updates()
    in_flight.end_first()
    assert list(in_flight.workers.started_at) == [1]
    assert [update.job_number for update in in_flight.live.take_updates()] == [1, 2, 3]
    for number in (2, 3):
        job = in_flight.store.queries.job(JobNumber(number))
        assert (job.state, job.attempt, job.results) == ("done", 0, [in_flight.workers.clip])
        assert [event.state for event in in_flight.store.queries.events(JobNumber(number), 0)] == ["queued", "done"]


@pytest.mark.parametrize("code", ["invalid_input", "canceled", "out_of_space"])
def test_if_the_running_job_fails_the_coalesced_one_runs(in_flight: InFlight, code: str) -> None:
    in_flight.end_first(code=code)
    in_flight.scheduler.retry_now()
    in_flight.scheduler.tick()
    ended = {"invalid_input": "failed", "canceled": "canceled", "out_of_space": "running"}[code]
    assert in_flight.states() == [ended, "queued" if code == "out_of_space" else "running"]


def test_duplicate_jobs_are_canceled_independently(in_flight: InFlight) -> None:
    assert in_flight.scheduler.cancel(JobNumber(2)) == "canceled"
    in_flight.scheduler.submit("ann", "job-third", small_job(seed=1), priority=0)
    assert in_flight.scheduler.cancel(JobNumber(1)) == "running"
    in_flight.scheduler.tick()
    assert in_flight.states() == ["running", "canceled", "queued"]
    in_flight.end_first(code="canceled")
    assert in_flight.states() == ["canceled", "canceled", "running"]


def test_jobs_of_different_users_are_not_duplicates(in_flight: InFlight) -> None:
    in_flight.scheduler.submit("bob", "job-bobs", small_job(seed=1), priority=0)
    in_flight.scheduler.tick()
    assert in_flight.states() == ["running", "queued", "running"]


def test_a_job_stays_coalesced_after_a_restart_as_long_as_the_other_runs(in_flight: InFlight, tmp_path: Path) -> None:
    for adopted, states in (({"worker-0": FIRST}, ["running", "queued"]), ({}, ["running", "queued"])):
        workers = OutlivingWorkers(in_flight.workers.wake.context, tmp_path, adopted)
        workers.occupy("worker-0")
        scheduler = new_scheduler(in_flight.store, workers)
        scheduler.resume()
        scheduler.tick()
        assert in_flight.states() == states
        assert list(workers.started_at) == ([] if adopted else [1])
        workers.close()


def test_after_a_lost_connection_what_still_runs_is_adopted_and_nothing_that_has_ended_runs_again(
    in_flight: InFlight,
) -> None:
    """As after the death of a Ray driver: one job was reported as finished just before, one still runs, one is lost."""
    store, workers, scheduler = in_flight.store, in_flight.workers, in_flight.scheduler
    for seed in (2, 3):
        scheduler.submit("ann", f"job-seed-{seed}", small_job(seed=seed), priority=0)
    scheduler.tick()
    assert in_flight.states() == ["running", "queued", "running", "running"]
    slots = {worker.job_number: worker.device.name for worker in scheduler.workers()}
    workers.reports.append(worker_pipe.Finished(FIRST, results=[workers.clip]))
    still_running = JobNumber(3)
    workers._found = {slots[FIRST.job_number]: FIRST, slots[still_running]: AttemptId(still_running, 1)}
    for number in (FIRST.job_number, JobNumber(4)):
        workers.drop(slots[number])
    scheduler.tick()
    attempts = [store.queries.job(JobNumber(number)).attempt for number in (1, 3, 4)]
    assert in_flight.states() == ["done", "done", "running", "running"]
    assert attempts == [1, 1, 2], "only the lost one runs again"
    assert store.database.rows("SELECT worker_deaths FROM jobs WHERE number = 4") == [(0,)]


def test_the_end_of_a_canceled_job_that_a_lost_connection_left_running_is_published(in_flight: InFlight) -> None:
    scratch = scratch_folder(in_flight.workers.home, FIRST.job_number)
    scratch.mkdir(parents=True)
    assert in_flight.scheduler.cancel(FIRST.job_number) == "running"
    in_flight.live.take_updates()
    in_flight.workers.drop("worker-0")
    in_flight.workers._found = {}
    in_flight.scheduler.tick()
    assert in_flight.states() == ["canceled", "running"]
    assert [update.job_number for update in in_flight.live.take_updates()] == [1, 2]
    assert not scratch.exists()


def test_a_job_that_is_canceled_between_two_attempts_leaves_no_files(in_flight: InFlight) -> None:
    in_flight.end_first(code="out_of_space")
    scratch = scratch_folder(in_flight.workers.home, FIRST.job_number)
    scratch.mkdir(parents=True)
    (scratch / "training.pt").touch()
    assert in_flight.scheduler.cancel(FIRST.job_number) == "canceled"
    assert not scratch.exists()


def test_progress_is_shown_and_not_kept_while_the_disk_is_full(
    in_flight: InFlight, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OutOfSpace("The disk is full.")

    monkeypatch.setattr(in_flight.store.database, "commit", refuse)
    in_flight.workers.reports.append(worker_pipe.Progressed(FIRST, ProgressReport("sampling", 1, 2)))
    in_flight.scheduler.tick()
    assert in_flight.live.progress[FIRST.job_number].step == 1
    assert in_flight.scheduler._unrecorded == []
    monkeypatch.undo()


def test_a_worker_that_reports_a_role_twice_holds_up_no_other(in_flight: InFlight) -> None:
    in_flight.workers.drop("worker-0")
    clip = in_flight.workers.clip
    in_flight.workers.reports.append(worker_pipe.Finished(FIRST, results=[clip, clip]))
    in_flight.scheduler.tick()
    assert in_flight.states() == ["done", "done"]
    assert in_flight.store.queries.results(FIRST.job_number) == [clip]


def test_a_job_that_another_version_stored_and_this_one_cannot_read_holds_up_no_other(in_flight: InFlight) -> None:
    for seed in (3, 4):
        in_flight.scheduler.submit("ann", f"job-seed-{seed}", small_job(seed=seed), priority=0)
    with in_flight.store.database.transaction():
        in_flight.store.database.execute("UPDATE jobs SET spec = x'c1' WHERE id = 'job-seed-3'")
    in_flight.live.take_updates()
    in_flight.scheduler.tick()
    assert in_flight.states() == ["running", "queued", "failed", "running"]
    assert "cannot read the job" in str(in_flight.store.queries.job(JobNumber(3)).error)
    assert [update.job_number for update in in_flight.live.take_updates()] == [3, 4]


def test_after_an_unexpected_error_a_worker_is_not_taken_for_busy(
    in_flight: InFlight, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_flight.scheduler.submit("ann", "job-third", small_job(seed=3), priority=0)

    def fail() -> None:
        raise sqlite3.ProgrammingError("a bug")

    monkeypatch.setattr(in_flight.store.database, "commit", fail)
    with pytest.raises(sqlite3.ProgrammingError):
        in_flight.scheduler.tick()
    monkeypatch.undo()
    assert [worker.job_number for worker in in_flight.scheduler.workers()] == [1, None, None]
