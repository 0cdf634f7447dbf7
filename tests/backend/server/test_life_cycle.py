"""Any order of submissions, reports, deaths, cancels, restarts and removals, against a model of a job's life.

Store, blobs and scheduler are real; the test chooses when a worker reports what.
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
from motionbooth.server.attempts import Attempt, AttemptId
from motionbooth.server.blobs import Blobs
from motionbooth.server.executor import Device
from motionbooth.server.live_state import LiveState
from motionbooth.server.retention import Retention
from motionbooth.server.scheduler import Scheduler
from motionbooth.server.store import Store
from motionbooth.server.worker import offer, scratch_folder
from motionbooth.server.worker_pipe import Report
from motionbooth_protocol.errors import Conflict, ErrorReport, NotFound, OutOfSpace
from motionbooth_protocol.jobs import TERMINAL_STATES, Blob, Job
from motionbooth_protocol.reports import ProgressReport
from running_backend import small_job

NAMES = [f"job-{letter * 5}" for letter in "abcd"]


def clip_of(seed: int) -> bytes:
    """The result of a job with this seed."""
    return bytes([seed]) * 100


class ManualWorkers:
    """Two slots whose workers report when the test says so: early, late or never."""

    wake: zmq.Socket[bytes]  # not used here
    outlives_server = False
    problem = None

    def __init__(self) -> None:
        self.running: dict[str, Attempt] = {}
        self._reports: list[Report] = []

    def devices(self) -> list[Device]:
        return [Device("one", "CPU"), Device("two", "CPU")]

    def idle(self) -> list[str]:
        return [device.name for device in self.devices() if device.name not in self.running]

    def adopt(self) -> dict[str, AttemptId]:
        return {}

    def start(self, slot: str, attempt: Attempt) -> None:
        self.running[slot] = attempt

    def cancel(self, id: AttemptId, grace: float) -> None:
        """The test decides when an attempt stops."""

    def report(self, report: Report) -> None:
        self._reports.append(report)
        if not isinstance(report, worker_pipe.Progressed):
            self.running = {slot: attempt for slot, attempt in self.running.items() if attempt.id != report.id}

    def receive(self) -> list[Report]:
        reports, self._reports = self._reports, []
        return reports

    def tick(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        self.running.clear()


class LifeCycle(RuleBasedStateMachine):
    attempts = Bundle("attempts")

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
        self.workers, self.live = ManualWorkers(), LiveState()
        self.scheduler = Scheduler(self.store, self.blobs, self.workers, self.live, self.home)
        self.retention = Retention(self.store, self.blobs)
        self.scheduler.resume()

    def teardown(self) -> None:
        """With workers that finish their jobs, every job ends."""
        for _ in range(100):
            for attempt in list(self.workers.running.values()):
                self.finish(attempt)
            self.scheduler.tick()
            self.each_job_is_as_the_model_says()
        assert self.seeds.keys() == self.ended.keys()
        self.store.close()
        self.folder.cleanup()

    def job(self, name: str) -> Job:
        return self.store.queries.job(self.store.queries.number("ann", name))

    @rule(name=st.sampled_from(NAMES), seed=st.integers(0, 2), priority=st.integers(-1, 1))
    def submit(self, name: str, seed: int, priority: int) -> None:
        if self.seeds.get(name, seed) != seed:
            with contextlib.suppress(Conflict):
                self.scheduler.submit("ann", name, small_job(seed=seed), priority)
                raise AssertionError("one id for two jobs")
            return
        self.scheduler.submit("ann", name, small_job(seed=seed), priority)
        self.seeds[name] = seed

    @rule(target=attempts)
    def tick(self) -> Attempt | None:
        self.scheduler.tick()
        return next(iter(self.workers.running.values()), None)

    @rule(attempt=attempts)
    def finish(self, attempt: Attempt | None) -> None:
        """Even if the attempt was given up long ago."""
        if attempt is not None:
            assert not hasattr(attempt.spec, "subject")
            made = scratch_folder(self.home, attempt.id.job_number) / "made"
            made.parent.mkdir(parents=True, exist_ok=True)
            made.write_bytes(clip_of(attempt.spec.seed))
            clip = offer(self.home, attempt.id.job_number, "clip", made)
            self.workers.report(worker_pipe.Finished(attempt.id, results=[clip]))

    @rule(attempt=attempts)
    def pretend(self, attempt: Attempt | None) -> None:
        """To have made a file that is not there."""
        if attempt is not None:
            self.workers.report(worker_pipe.Finished(attempt.id, results=[Blob("clip", "0" * 64, 1)]))

    @rule(attempt=attempts, code=st.sampled_from(["invalid_input", "canceled", OutOfSpace.code]))
    def fail(self, attempt: Attempt | None, code: str) -> None:
        if attempt is not None:
            self.workers.report(worker_pipe.Failed(attempt.id, error=ErrorReport("why", code=code)))

    @rule(attempt=attempts)
    def die(self, attempt: Attempt | None) -> None:
        if attempt is not None:
            self.workers.report(worker_pipe.Exited(attempt.id, error=ErrorReport("It died.")))

    @rule(attempt=attempts)
    def advance(self, attempt: Attempt | None) -> None:
        if attempt is not None:
            self.workers.report(worker_pipe.Progressed(attempt.id, ProgressReport("sampling", 1, 2)))

    @rule(name=st.sampled_from(NAMES))
    def cancel(self, name: str) -> None:
        with contextlib.suppress(NotFound):
            self.scheduler.cancel(self.store.queries.number("ann", name))

    @rule(name=st.sampled_from(NAMES))
    def forget(self, name: str) -> None:
        with contextlib.suppress(NotFound, Conflict):
            self.each_job_is_as_the_model_says()
            self.retention.forget(self.store.queries.number("ann", name))
            del self.seeds[name], self.ended[name]

    @rule()
    def collect(self) -> None:
        self.retention.collect()

    @rule(crash=st.booleans())
    def restart(self, crash: bool) -> None:
        if not crash:
            self.scheduler.close()
        self.store.close()
        self.open()

    @invariant()
    def each_job_is_as_the_model_says(self) -> None:
        self.scheduler.retry_now()  # as if the disk had space again
        jobs = [job for _, job in self.store.queries.jobs("ann", 100)]
        assert {job.id for job in jobs} == self.seeds.keys()
        running = [self.seeds[job.id] for job in jobs if job.state == "running"]
        assert len(running) == len(set(running)), "duplicates run at the same time"
        for name, seed in self.seeds.items():
            job = self.job(name)
            states = [event.state for event in self.store.queries.events(self.store.queries.number("ann", name), 0)]
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
