"""What becomes of running jobs from one server to the next, with an executor whose workers outlive it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from motionbooth.bench.scheduler import SimulatedWorkers, with_clip
from motionbooth.server.executor import Attempt
from motionbooth.server.scheduler import Scheduler
from motionbooth.server.store import Store
from running_backend import small_job


class LastingWorkers(SimulatedWorkers):
    """Found at work by a new server."""

    lasting = True

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], folder: Path, found: dict[str, Attempt]) -> None:
        self.blobs, clip = with_clip(folder)
        super().__init__(context, 3, dict.fromkeys(range(1, 9), 1.0), clip)
        self._found = found
        self.canceled: list[Attempt] = []

    def adopt(self) -> dict[str, Attempt]:
        return self._found

    def cancel(self, number: int, attempt: int, grace: float) -> None:
        self.canceled.append((number, attempt))


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
