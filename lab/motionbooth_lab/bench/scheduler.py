"""`motionbooth bench scheduler`: how long jobs wait with many users and workers, and where the server is the limit.

The scheduler and the store are real, including every commit. Only the workers are simulated, with a simulated clock.
For the waiting times the store is on a RAM disk if the machine has one. The server's limit is measured in `folder`,
with commits that wait for its disk.
"""

from __future__ import annotations

import heapq
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import zmq
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.server import worker_pipe
from motionbooth.server.attempts import Attempt, AttemptId, JobNumber
from motionbooth.server.blobs import Blobs
from motionbooth.server.executor import Device
from motionbooth.server.live_state import LiveState
from motionbooth.server.scheduler import Scheduler
from motionbooth.server.specs import AffinityKey, affinity_key
from motionbooth.server.store import Store
from motionbooth.server.worker_pipe import Report
from motionbooth_protocol.jobs import Blob, GenerateSpec, JobSpec, Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack

from motionbooth_lab.rig.backend import stored

WORKERS = (1, 8, 64, 512)
USERS = 40
LOAD = 0.85  # of the workers' capacity
TRAINING_SHARE = 0.1
SHOTS_AT_ONCE = 6  # that a user submits with one subject, on average
CLIP_SECONDS, TRAINING_SECONDS = 90.0, 1200.0  # medians, as for a full-size model on a GPU
SPREAD = 0.5  # sigma of the logarithm
LOADING_SECONDS = 20.0  # for a base model and a subject that are not in the worker's memory
RAM_DISK = Path("/dev/shm")


@dataclass(frozen=True)
class Arrival:
    """A job: its arrival in seconds, its user, its spec, and how long it will run."""

    at: float
    owner: str
    spec: JobSpec
    seconds: float


class SimulatedWorkers:
    """An Executor whose jobs end by a simulated clock (`now`, in seconds). The result of all jobs is `clip`."""

    outlives_server = False
    problem = None

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], workers: int, seconds: dict[JobNumber, float], clip: Blob
    ) -> None:
        self.wake = context.socket(zmq.PULL)
        self.now = 0.0
        self.started_at: dict[JobNumber, float] = {}
        self.busy_seconds = 0.0
        self.loads = 0
        self.clip = clip
        self._seconds = seconds  # by job number
        self._devices = {f"worker-{index}": Device(f"worker-{index}", "simulated") for index in range(workers)}
        self._idle = dict.fromkeys(self._devices)  # an ordered set
        self._memory: dict[str, AffinityKey | None] = {}
        self._ends: list[tuple[float, AttemptId, str]] = []

    def devices(self) -> list[Device]:
        return list(self._devices.values())

    def idle(self) -> list[str]:
        return list(self._idle)

    def adopt(self) -> dict[str, AttemptId] | None:
        return None

    def start(self, slot: str, attempt: Attempt) -> None:
        number = attempt.id.job_number
        seconds = self._seconds[number]
        wanted = affinity_key(attempt.spec)
        if wanted is None or self._memory.get(slot) != wanted:  # a training always loads the model
            self.loads += 1
            seconds += LOADING_SECONDS
        self._memory[slot] = wanted
        self.started_at[number] = self.now
        self.busy_seconds += seconds
        del self._idle[slot]
        heapq.heappush(self._ends, (self.now + seconds, attempt.id, slot))

    def next_end(self) -> float:
        """When the next job ends; infinity if none is running."""
        return self._ends[0][0] if self._ends else float("inf")

    def cancel(self, id: AttemptId, grace: float) -> None:
        raise NotImplementedError("nothing is canceled in the simulation")

    def receive(self) -> list[Report]:
        found: list[Report] = []
        while self.next_end() <= self.now:
            _, id, slot = heapq.heappop(self._ends)
            self._idle[slot] = None
            found.append(worker_pipe.Finished(id, results=[self.clip]))
        return found

    def tick(self) -> None:
        pass

    def close(self) -> None:
        self.wake.close()


def arrivals(count: int, workers: int, seed: int = 0) -> Iterator[Arrival]:
    """Users submit a few shots of one subject at a time, or a training, so that LOAD of the workers are busy."""
    dice = random.Random(seed)
    at, made = 0.0, 0
    pause = mean_seconds() * (TRAINING_SHARE + (1 - TRAINING_SHARE) * SHOTS_AT_ONCE) / (LOAD * workers)
    while made < count:
        at += dice.expovariate(1 / pause)
        owner = f"{dice.randrange(USERS):040}"
        subject = f"{dice.randrange(3)}{owner[-3:]}".rjust(64, "0")
        is_training = dice.random() < TRAINING_SHARE
        shots = 1 if is_training else 1 + int(dice.expovariate(1 / (SHOTS_AT_ONCE - 0.5)))
        for _ in range(min(shots, count - made)):
            median = TRAINING_SECONDS if is_training else CLIP_SECONDS
            spec = training(made, subject) if is_training else shot_spec(made, subject)
            yield Arrival(at, owner, spec, median * dice.lognormvariate(0, SPREAD))
            made += 1


def mean_seconds() -> float:
    """Mean duration of a job."""
    trainings, clips = TRAINING_SHARE, (1 - TRAINING_SHARE) * SHOTS_AT_ONCE
    mean = (trainings * TRAINING_SECONDS + clips * CLIP_SECONDS) / (trainings + clips)
    return mean * 2.718281828459045 ** (SPREAD**2 / 2)


_BOXES: list[Box | None] = [Box(0.2, 0.2, 0.7, 0.8)] * 24
_CAMERA = CameraPath.straight(0.4, 0.0, 24)


def shot_spec(seed: int, weights: str) -> GenerateSpec:
    """A generate job of 24 frames with one subject."""
    track = SubjectTrack("Rex", "dog", _BOXES, token="sks", weights=weights)
    shot = Shot("shot", 1, 72, 24, 1920, 1080, _CAMERA, [track])
    return GenerateSpec(shot, "a sks dog runs through the snow", model="zeroscope", seed=seed)


def training(seed: int, picture: str) -> TrainSpec:
    """A train job with five pictures."""
    return TrainSpec(SubjectSpec("Rex", "sks", "dog", [Picture(picture)] * 5), model="zeroscope", seed=seed)


def with_clip(folder: Path) -> tuple[Blobs, Blob]:
    """A blob store in `folder` with one file, the result of every simulated job."""
    folder.mkdir(exist_ok=True)
    (folder / "clip.mp4").write_bytes(b"clip")
    blobs = Blobs(folder)
    return blobs, stored(blobs, folder / "clip.mp4")


@dataclass(frozen=True)
class Outcome:
    """Result of a simulation. `waits`: seconds from arrival to start of each job."""

    waits: list[float]
    hours: float
    loads: int
    share_busy: float


def simulate(folder: Path, workers: int, coming: Sequence[Arrival]) -> Outcome:
    """Run all jobs through a new store in `folder`."""
    seconds: dict[JobNumber, float] = {}
    arrived: dict[JobNumber, float] = {}
    with zmq.Context() as context:
        blobs, clip = with_clip(folder)
        executor = SimulatedWorkers(context, workers, seconds, clip)
        store, live = Store(folder / "jobs.sqlite"), LiveState()
        scheduler = Scheduler(store, blobs, executor, live, folder)
        upcoming = iter(coming)
        arrival = next(upcoming, None)
        while arrival is not None or executor.next_end() < float("inf"):
            executor.now = min(executor.next_end(), arrival.at if arrival is not None else float("inf"))
            with store.database.transaction():
                while arrival is not None and arrival.at <= executor.now:
                    store.transitions.submit(arrival.owner, f"job-{len(arrived):08}", arrival.spec)
                    number = JobNumber(len(arrived) + 1)  # as in the store
                    seconds[number], arrived[number] = arrival.seconds, arrival.at
                    arrival = next(upcoming, None)
            scheduler.tick()
            live.take_updates()
        waits = [executor.started_at[number] - at for number, at in arrived.items()]
        outcome = Outcome(waits, executor.now / 3600, executor.loads, executor.busy_seconds / (executor.now * workers))
        scheduler.close()
        store.close()
    return outcome


def dispatch_rates(folder: Path, queued: int, jobs: int = 1000) -> tuple[float, float]:
    """Jobs per second that the server can finish and start with `queued` jobs waiting, each with a commit.

    Returns the rates for jobs that finish one by one and for 512 workers that report at the same time.
    """
    rates = []
    blobs, clip = with_clip(folder)
    seconds = {JobNumber(number): 1.0 for number in range(1, queued + 1)}
    store = Store(folder / "limit.sqlite")
    with store.database.transaction():
        for number, arrival in enumerate(arrivals(queued, 512)):
            store.transitions.submit(arrival.owner, f"job-{number:08}", arrival.spec)
    with zmq.Context() as context:
        for ended_at_once in (1, 512):
            executor, live = SimulatedWorkers(context, ended_at_once, seconds, clip), LiveState()
            scheduler = Scheduler(store, blobs, executor, live, folder)
            scheduler.tick()
            began, rounds = time.perf_counter(), -(-jobs // ended_at_once)
            for _ in range(rounds):
                executor.now = executor.next_end() + LOADING_SECONDS  # so that all of them have finished
                scheduler.tick()
                live.take_updates()
            rates.append(rounds * ended_at_once / (time.perf_counter() - began))
            scheduler.close()
    store.close()
    return rates[0], rates[1]


@contextmanager
def fast_folder() -> Iterator[Path]:
    """A folder on a RAM disk if the machine has one, otherwise a temporary folder."""
    with tempfile.TemporaryDirectory(dir=RAM_DISK if RAM_DISK.is_dir() else None) as folder:
        yield Path(folder)


def bench_scheduler(jobs: int, folder: Path | None = None) -> BenchResult:
    """Measure waiting times and throughput for each number of workers, then the server's limit.

    `jobs`: in each simulation. `folder`: for the second part; by default the folder for temporary files.
    """
    measures = []
    for workers in WORKERS:
        with fast_folder() as fast:
            coming = list(arrivals(jobs, workers))
            outcome = simulate(fast, workers, coming)
        waits = sorted(outcome.waits)
        name = f"workers_{workers}"
        measures += [
            Measure(f"{name}_jobs_per_hour", jobs / outcome.hours, "jobs/h"),
            Measure(f"{name}_busy_share", outcome.share_busy, ""),
            Measure(f"{name}_wait_median_s", statistics.median(waits), "s"),
            Measure(f"{name}_wait_p99_s", waits[int(0.99 * (len(waits) - 1))], "s"),
            Measure(f"{name}_wait_longest_s", waits[-1], "s"),
            Measure(f"{name}_loads_per_job", outcome.loads / jobs, ""),
        ]
    with tempfile.TemporaryDirectory(dir=folder) as disk:
        one, many = dispatch_rates(Path(disk), jobs)
    measures += [
        Measure("queued", jobs, "jobs"),
        Measure("dispatch_one_by_one", one, "jobs/s"),
        Measure("dispatch_at_once", many, "jobs/s"),
        Measure("limit_workers", one * mean_seconds(), "workers that one server keeps busy"),
    ]
    return BenchResult("scheduler", measures)
