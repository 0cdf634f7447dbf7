"""Any order of submissions, reports, deaths, cancels, restarts and removals, against a model of a job's life.

The store, the blobs and the scheduler are the real ones; only when a worker reports what is chosen here.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from pathlib import Path

import zmq
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from motionbooth.server import worker_pipe
from motionbooth.server.blobs import Blobs
from motionbooth.server.local_executor import Attempt, Place, Report
from motionbooth.server.retention import Cleaner
from motionbooth.server.scheduler import Scheduler
from motionbooth.server.store import Store, Work
from motionbooth_protocol.errors import Conflict, NotFound, OutOfSpace
from motionbooth_protocol.jobs import TERMINAL_STATES, Blob, Job
from motionbooth_protocol.reports import ProgressReport
from running_backend import small_job

NAMES = [f"job-{letter * 5}" for letter in "abcd"]


def clip_of(seed: int) -> bytes:
    """What a worker makes of a job with this seed."""
    return bytes([seed]) * 100


class WorkersByHand:
    """Two places whose workers report when they are told to, early, late or never."""

    wake: zmq.Socket[bytes]  # nobody waits for it here
    lasting = False

    def __init__(self) -> None:
        self.running: dict[str, Work] = {}
        self.asked_to_stop: set[Attempt] = set()
        self._reports: list[Report] = []

    def places(self) -> list[Place]:
        return [Place("one", "CPU"), Place("two", "CPU")]

    def idle(self) -> list[str]:
        return [place.name for place in self.places() if place.name not in self.running]

    def adopt(self) -> dict[str, Attempt]:
        return {}

    def start(self, place: str, work: Work) -> None:
        self.running[place] = work

    def cancel(self, number: int, attempt: int, grace: float) -> None:
        self.asked_to_stop.add((number, attempt))

    def report(self, report: Report) -> None:
        self._reports.append(report)
        if not isinstance(report, worker_pipe.Advanced):
            self.running = {
                place: work
                for place, work in self.running.items()
                if (work.number, work.attempt) != (report.number, report.attempt)
            }

    def receive(self) -> list[Report]:
        reports, self._reports = self._reports, []
        return reports

    def tick(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        self.running.clear()


class LifeCycle(RuleBasedStateMachine):
    works = Bundle("works")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.home = Path(self.folder.name)
        self.seeds: dict[str, int] = {}  # of the accepted jobs that were not removed
        self.ended: dict[str, str] = {}  # the final state of those that have one
        self.open()

    def open(self) -> None:
        self.store = Store(self.home / "jobs.sqlite")
        self.blobs = Blobs(self.home)
        self.workers = WorkersByHand()
        self.scheduler = Scheduler(self.store, self.blobs, self.workers, clean=lambda number: None)
        self.scheduler.resume()

    def teardown(self) -> None:
        """Left alone, with workers that do their work, every job comes to its end."""
        for _ in range(100):
            for work in list(self.workers.running.values()):
                self.finish(work)
            self.scheduler.tick()
            self.each_job_is_as_the_model_says()
        assert self.seeds.keys() == self.ended.keys()
        self.store.close()
        self.folder.cleanup()

    def job(self, name: str) -> Job:
        return self.store.job(self.store.number("ann", name))

    @rule(name=st.sampled_from(NAMES), seed=st.integers(0, 2), priority=st.integers(-1, 1))
    def submit(self, name: str, seed: int, priority: int) -> None:
        if self.seeds.get(name, seed) != seed:
            with contextlib.suppress(Conflict):
                self.scheduler.submit("ann", name, small_job(seed=seed), priority)
                raise AssertionError("one id stands for two jobs")
            return
        self.scheduler.submit("ann", name, small_job(seed=seed), priority)
        self.seeds[name] = seed

    @rule(target=works)
    def tick(self) -> Work | None:
        self.scheduler.tick()
        return next(iter(self.workers.running.values()), None)

    @rule(work=works)
    def finish(self, work: Work | None) -> None:
        """Also of an attempt that was given up long ago."""
        if work is not None:
            assert not hasattr(work.spec, "subject")
            made = self.home / "made"
            made.write_bytes(clip_of(work.spec.seed))
            clip = Blob("clip", *self.blobs.adopt(made))
            self.workers.report(worker_pipe.Finished(number=work.number, attempt=work.attempt, results=[clip]))

    @rule(work=works, code=st.sampled_from(["invalid_input", "canceled", OutOfSpace.code]))
    def fail(self, work: Work | None, code: str) -> None:
        if work is not None:
            self.workers.report(worker_pipe.Failed(number=work.number, attempt=work.attempt, code=code, message="why"))

    @rule(work=works)
    def die(self, work: Work | None) -> None:
        if work is not None:
            self.workers.report(worker_pipe.Exited(number=work.number, attempt=work.attempt, reason="It died."))

    @rule(work=works)
    def advance(self, work: Work | None) -> None:
        if work is not None:
            about = {"number": work.number, "attempt": work.attempt}
            self.workers.report(worker_pipe.Advanced(**about, report=ProgressReport("sampling", 1, 2)))

    @rule(name=st.sampled_from(NAMES))
    def cancel(self, name: str) -> None:
        with contextlib.suppress(NotFound):
            self.scheduler.cancel(self.store.number("ann", name))

    @rule(name=st.sampled_from(NAMES))
    def forget(self, name: str) -> None:
        with contextlib.suppress(NotFound, Conflict):
            self.each_job_is_as_the_model_says()
            for sha256 in self.store.forget(self.store.number("ann", name)):
                self.blobs.remove(sha256)
            del self.seeds[name], self.ended[name]

    @rule()
    def clean(self) -> None:
        Cleaner(self.store, self.blobs).clean()

    @rule(crash=st.booleans())
    def restart(self, crash: bool) -> None:
        if not crash:
            self.scheduler.close()
        self.store.close()
        self.open()

    @invariant()
    def each_job_is_as_the_model_says(self) -> None:
        self.scheduler._not_before = float("-inf")  # the disk has space again
        jobs = self.store.jobs("ann", 100)
        assert {job.id for job in jobs} == self.seeds.keys()
        making = [self.seeds[job.id] for job in jobs if job.state == "running"]
        assert len(making) == len(set(making)), "the same is made twice"
        for name, seed in self.seeds.items():
            job = self.job(name)
            states = [event.state for event in self.store.events(self.store.number("ann", name), 0)]
            assert states[-1] == job.state
            assert not TERMINAL_STATES & set(states[:-1]), "a final state was not final"
            if job.state in TERMINAL_STATES:
                assert self.ended.setdefault(name, job.state) == job.state
            if job.state == "done":
                data = self.blobs.path(job.result("clip").sha256).read_bytes()
                assert data == clip_of(seed)
                assert hashlib.sha256(data).hexdigest() == job.result("clip").sha256


TestLifeCycle = LifeCycle.TestCase
TestLifeCycle.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
