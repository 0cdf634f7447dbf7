"""What becomes of running jobs from one server to the next, with an executor whose workers outlive it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from motionbooth.server import worker_pipe
from motionbooth.server.local_executor import Attempt, Report
from motionbooth.server.scheduler import Scheduler
from motionbooth.server.store import Store
from motionbooth_lab.bench.scheduler import SimulatedWorkers, with_clip
from running_backend import small_job


class LastingWorkers(SimulatedWorkers):
    """Found at work by a new server."""

    lasting = True

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], folder: Path, found: dict[str, Attempt]) -> None:
        self.blobs, clip = with_clip(folder)
        super().__init__(context, 3, dict.fromkeys(range(1, 9), 1.0), clip)
        self._found = found
        self.canceled: list[Attempt] = []
        self.reports: list[Report] = []  # to be given, besides those of jobs whose time is over

    def adopt(self) -> dict[str, Attempt]:
        return self._found

    def cancel(self, number: int, attempt: int, grace: float) -> None:
        self.canceled.append((number, attempt))

    def receive(self) -> list[Report]:
        reports, self.reports = self.reports, []
        return [*super().receive(), *reports]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Jobs 1 to 4, all running."""
    store = Store(tmp_path / "jobs.sqlite")
    for number in range(1, 5):
        store.submit("ann", f"job-{number:05}", small_job(seed=number))
        store.start(number)
    yield store
    store.close()


def test_what_still_runs_goes_on_what_is_stale_is_stopped_and_the_rest_begins_again(
    store: Store, tmp_path: Path
) -> None:
    store.requeue(3, 1)
    store.start(3)
    store.request_cancel(4)
    with zmq.Context() as context:
        workers = LastingWorkers(context, tmp_path, {"worker-0": (1, 1), "worker-1": (3, 1), "worker-2": (4, 1)})
        scheduler = Scheduler(store, workers.blobs, workers, clean=lambda number: None)
        scheduler.resume()
        assert [store.job(number).state for number in (1, 2, 3, 4)] == ["running", "queued", "queued", "running"]
        assert workers.canceled == [(3, 1), (4, 1)], "another attempt is under way; its owner does not want it"
        states = {worker.place.name: worker.job for worker in scheduler.workers()}
        assert states == {"worker-0": 1, "worker-1": None, "worker-2": 4}
        scheduler.close()
    assert store.job(1).state == "running", "the next server adopts it in its turn"


def test_what_waits_with_the_results_of_another_is_answered_without_a_worker(store: Store, tmp_path: Path) -> None:
    with zmq.Context() as context:
        workers = LastingWorkers(context, tmp_path, {})
        scheduler = Scheduler(store, workers.blobs, workers, clean=lambda number: None)
        store.submit("ann", "job-twin", small_job(seed=1))
        store.finish(1, 1, [workers.clip])
        scheduler.tick()
        assert (store.job(5).state, store.job(5).results) == ("done", [workers.clip])
        assert scheduler.news().count(5) == 1
        assert workers.started_at == {}
        scheduler.close()


class InFlight:
    """A scheduler with three workers, and job 1 of Ann's, which runs at one of them; job 2 asks for the same."""

    def __init__(self, folder: Path, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.store = Store(folder / "jobs.sqlite")
        self.workers = LastingWorkers(context, folder, {})
        self.scheduler = Scheduler(self.store, self.workers.blobs, self.workers, clean=lambda number: None)
        for name in ("first", "second"):
            self.scheduler.submit("ann", f"job-{name}", small_job(seed=1), priority=0)
        self.scheduler.tick()

    def states(self) -> list[str]:
        return [job.state for job in reversed(self.store.jobs(None, 9))]

    def end_first(self, **failed: str) -> None:
        """Done, or failed with this code."""
        if failed:
            del self.workers._ends[0]
            self.workers._idle["worker-0"] = None
            self.workers.reports.append(worker_pipe.Failed(number=1, attempt=1, message="why", **failed))
        else:
            self.workers.now += 100
        self.scheduler.tick()


@pytest.fixture
def in_flight(tmp_path: Path) -> Iterator[InFlight]:
    with zmq.Context() as context:
        in_flight = InFlight(tmp_path, context)
        assert in_flight.states() == ["running", "queued"], "with idle workers, since nothing is made twice"
        yield in_flight
        in_flight.scheduler.close()
        in_flight.store.close()


def test_two_equal_jobs_in_flight_are_done_once_and_both_have_the_result(in_flight: InFlight) -> None:
    in_flight.scheduler.submit("ann", "job-third", small_job(seed=1), priority=5)
    in_flight.scheduler.news()
    in_flight.end_first()
    assert list(in_flight.workers.started_at) == [1]
    assert in_flight.scheduler.news() == [1, 2, 3]
    for number in (2, 3):
        job = in_flight.store.job(number)
        assert (job.state, job.attempt, job.results) == ("done", 0, [in_flight.workers.clip])
        assert [event.state for event in in_flight.store.events(number, 0)] == ["queued", "done"]


@pytest.mark.parametrize("code", ["invalid_input", "canceled", "out_of_space"])
def test_where_the_first_of_two_equal_jobs_comes_to_nothing_the_second_runs_itself(
    in_flight: InFlight, code: str
) -> None:
    in_flight.end_first(code=code)
    in_flight.scheduler._not_before = float("-inf")
    in_flight.scheduler.tick()
    ended = {"invalid_input": "failed", "canceled": "canceled", "out_of_space": "running"}[code]
    assert in_flight.states() == [ended, "queued" if code == "out_of_space" else "running"]


def test_of_two_equal_jobs_each_is_canceled_by_itself(in_flight: InFlight) -> None:
    assert in_flight.scheduler.cancel(2) == "canceled"
    in_flight.scheduler.submit("ann", "job-third", small_job(seed=1), priority=0)
    assert in_flight.scheduler.cancel(1) == "running"
    in_flight.scheduler.tick()
    assert in_flight.states() == ["running", "canceled", "queued"]
    in_flight.end_first(code="canceled")
    assert in_flight.states() == ["canceled", "canceled", "running"]


def test_what_another_user_asks_for_is_made_for_each(in_flight: InFlight) -> None:
    in_flight.scheduler.submit("bob", "job-bobs", small_job(seed=1), priority=0)
    in_flight.scheduler.tick()
    assert in_flight.states() == ["running", "queued", "running"]


def test_a_job_that_waits_for_another_one_does_so_after_a_restart_as_long_as_that_one_runs(
    in_flight: InFlight, tmp_path: Path
) -> None:
    for adopted, states in (({"worker-0": (1, 1)}, ["running", "queued"]), ({}, ["running", "queued"])):
        workers = LastingWorkers(in_flight.workers.wake.context, tmp_path, adopted)
        del workers._idle["worker-0"]
        scheduler = Scheduler(in_flight.store, workers.blobs, workers, clean=lambda number: None)
        scheduler.resume()
        scheduler.tick()
        assert in_flight.states() == states
        assert list(workers.started_at) == ([] if adopted else [1])
        workers.close()
