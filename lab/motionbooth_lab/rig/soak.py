"""`motionbooth bench soak`: random faults for a real server with small jobs and a faulty network."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from motionbooth.bench.measures import BenchResult, Measure
from motionbooth_protocol.client import Client, new_job_id
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.errors import (
    Canceled,
    Damaged,
    JobFailed,
    MotionBoothError,
    NotFound,
    OutOfSpace,
    Unreachable,
)
from motionbooth_protocol.jobs import Blob, GenerateSpec, Job
from motionbooth_protocol.link import WrongServer
from msgspec.structs import replace
from rich.console import Console

from motionbooth_lab.rig.attacks import ATTACKS, attack_command
from motionbooth_lab.rig.backend import RunningBackend, small_job
from motionbooth_lab.rig.proxy import Proxy
from motionbooth_lab.rig.server_process import SMALL_WORKER

_CLIENTS = 4
_ENVIRONMENT = {"WORKERS": "2", "SILENCE": "15", "REQUESTS_PER_SECOND": "1000"}
_SAMPLE_SECONDS = 2.0
_WARM_SECONDS = 10.0  # after a server's start, before its memory counts
_TIMEOUT, _PATIENCE = 15.0, 120.0
_SHARED, _SECONDS_SHARED = 0.3, 20.0
_REPAIRS = 5  # of one clip, by running its job again
_COMMANDS = (
    "steps=2", "steps=8 pause=0.05", "steps=3 size=2000000", "steps=3 die_once", "die_once_in=loading",
    "die_once_in=encoding", "fault", "memory", "invalid",
)  # fmt: skip
_FAIL = ("fault", "memory", "invalid")


@dataclass
class Tally:
    """Counters, updated by many threads."""

    submitted: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    damaged: set[str] = field(default_factory=set)  # the files in which a bit was flipped
    suspended: list[int] = field(default_factory=list)  # process ids of workers
    wrong: list[str] = field(default_factory=list)  # descriptions; must stay empty


@dataclass(frozen=True)
class Sample:
    """Resources of a server process, `age` seconds after its start."""

    pid: int
    age: float
    memory: int
    descriptors: int
    threads: int


def soak(minutes: float, seed: int, jobs_per_minute: float, console: Console) -> BenchResult:
    """Submit jobs, follow them and check their results while faults are injected. In the end all jobs must be right.

    All clients together submit about `jobs_per_minute`; 0: as many as they can. Raises MotionBoothError if a job is
    lost or wrong.
    """
    tally, samples, stop = Tally(), list[Sample](), threading.Event()
    pause = 60 * _CLIENTS / jobs_per_minute if jobs_per_minute else 0.0
    with tempfile.TemporaryDirectory(prefix="motionbooth-soak-") as folder:
        backend = RunningBackend(Path(folder) / "home").start(**_ENVIRONMENT)
        backend.new_key("mallory").write(_attackers_file(backend))
        for attack in ATTACKS:  # once before the memory is measured, which may stay what the worst of them takes
            _attack(backend, attack)
        proxy = Proxy(backend.connection.address)
        watch = threading.Thread(target=_watch, args=(backend, samples, stop, console, tally))
        clients = [
            threading.Thread(target=_work, args=(backend, proxy, Path(folder), number, seed, pause, stop, tally))
            for number in range(_CLIENTS)
        ]
        try:
            for thread in (watch, *clients):
                thread.start()
            _inject_faults(backend, proxy, minutes * 60, random.Random(seed), tally)
            stop.set()
            for thread in clients:
                thread.join(2 * _PATIENCE)
                if thread.is_alive():
                    tally.wrong.append("a client is still waiting for its job")
            _wait_for_all(backend, tally)
        finally:
            stop.set()
            watch.join()
            proxy.close()
            backend.end()
            for pid in tally.suspended:  # one whose server was killed is still there
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
    for wrong in tally.wrong:
        console.print(f"Wrong: {wrong}", markup=False)
    if tally.wrong:
        raise MotionBoothError(
            "The soak test found {count} problems. The first one: {first}.",
            count=len(tally.wrong),
            first=tally.wrong[0],
        )
    return BenchResult("soak", _measures(minutes, tally, samples))


def _work(
    backend: RunningBackend,
    proxy: Proxy,
    folder: Path,
    number: int,
    seed: int,
    pause: float,
    stop: threading.Event,
    tally: Tally,
) -> None:
    """Run one job after the other with a new connection each, at least `pause` seconds apart."""
    rng = random.Random(seed * 100 + number)
    connection = replace(backend.connection, address=proxy.address)
    serial, due = 0, time.monotonic()
    while not stop.wait(max(0.0, due - time.monotonic())):
        due = time.monotonic() + pause
        serial += 1
        # Some jobs duplicate those that other clients submit now or have submitted.
        shared = rng.random() < _SHARED
        of_job = int(time.monotonic() / _SECONDS_SHARED) if shared else number * 1_000_000 + serial
        commands = rng.choice(_COMMANDS)
        try:
            client = _connected(connection, stop)
            if client is None:
                return
            with client:
                _one_job(client, commands, of_job, folder / f"clip {number}", rng.random() < 0.1, tally)
        except MotionBoothError as error:
            tally.wrong.append(f"{type(error).__name__} for {commands!r}: {error}")
        except Exception as error:
            tally.wrong.append(f"{error!r} for {commands!r}")


def _connected(connection: Connection, stop: threading.Event) -> Client | None:
    """Connect, with retries. A connected client reconnects automatically. None: the soak is over."""
    while not stop.wait(0.2):
        client = Client(connection, timeout=_TIMEOUT, patience=_PATIENCE)
        try:
            client.connect()
            return client
        except (Unreachable, WrongServer):  # the latter is caused by a flipped bit in the handshake
            client.close()
    return None


def _one_job(client: Client, commands: str, number: int, clip: Path, cancel: bool, tally: Tally) -> None:
    job, spec = new_job_id(), small_job(commands, seed=number)
    _when_there_is_space(partial(client.submit, job, spec))
    tally.submitted += 1
    if cancel:
        _when_there_is_space(partial(client.cancel, job))
    states: list[str] = []
    try:
        ended: Job | None = client.follow(job, on_event=lambda event: states.append(event.state))
    except JobFailed:
        ended = None
        if not cancel and not any(word in commands for word in _FAIL) and "die" not in commands:
            tally.wrong.append(f"a valid job failed: {client.get(job).error}")
    except Canceled:
        ended = None
        if not cancel:
            tally.wrong.append(f"{commands!r} was canceled without a request")
    tally.ended[client.get(job).state] += 1
    if ended is None:
        return
    blob = ended.result("clip")
    _fetch(client, blob, spec, clip)
    expected = hashlib.sha256(bytes([number % 256]) * blob.size).hexdigest()
    if hashlib.sha256(clip.read_bytes()).hexdigest() != expected or states.count("done") != 1:
        tally.wrong.append(f"the clip of {commands!r} or its events {states} are wrong")
    clip.unlink()


def _when_there_is_space(act: Callable[[], object]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            act()
            return
        except OutOfSpace:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _fetch(client: Client, blob: Blob, spec: GenerateSpec, clip: Path) -> None:
    """Fetch the clip of a job. If it is damaged, run its job again."""
    for _ in range(_REPAIRS):
        try:
            client.fetch(blob, clip)
            return
        except (NotFound, Damaged):
            again = new_job_id()
            _when_there_is_space(partial(client.submit, again, spec))
            with suppress(JobFailed):  # its workers were killed
                client.follow(again)
    client.fetch(blob, clip)


def _limit_files(backend: RunningBackend, most: int) -> None:
    """Let the server and its workers write files of `most` bytes only."""
    assert backend.process is not None
    pids = [backend.process.pid]
    for pid in pids:
        with suppress(OSError):  # it has ended meanwhile
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
            # After the limit: a child that is started later inherits it.
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                pids += [int(child) for child in children.read_text().split()]


def _signal_workers(backend: RunningBackend, number: int) -> list[int]:
    """Send a signal to the workers of the running jobs. Returns their process ids."""
    found = []
    for file in (backend.home / "scratch").glob("*/worker.pid"):
        with suppress(OSError, ValueError):  # it has ended meanwhile
            pid = int(file.read_text())
            if SMALL_WORKER.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():  # the id may be another's now
                os.kill(pid, number)
                found.append(pid)
    return found


def _attackers_file(backend: RunningBackend) -> Path:
    return backend.home / "mallory.json"


def _attack(backend: RunningBackend, name: str) -> None:
    subprocess.run(attack_command(name, _attackers_file(backend)), stderr=subprocess.DEVNULL)


def _inject_faults(backend: RunningBackend, proxy: Proxy, seconds: float, rng: random.Random, tally: Tally) -> None:
    """Inject a fault every second or two. The server itself is killed or stopped only in the second half."""
    began = time.monotonic()

    def kill_server() -> None:
        backend.kill()
        backend.start(**_ENVIRONMENT)

    def stop_server() -> None:
        backend.stop()
        backend.start(**_ENVIRONMENT)

    def hang_server() -> None:
        assert backend.process is not None
        backend.process.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        backend.process.send_signal(signal.SIGCONT)

    def kill_worker() -> None:
        _signal_workers(backend, signal.SIGKILL)

    def suspend_worker() -> None:
        tally.suspended.extend(_signal_workers(backend, signal.SIGSTOP))

    def kill_key_check() -> None:
        assert backend.process is not None
        backend.process.send_signal(signal.SIGUSR1)

    def flip_bit() -> None:
        proxy.flip_next = True

    def pause() -> None:
        proxy.is_paused = True
        time.sleep(1.0)
        proxy.is_paused = False

    def throttle() -> None:
        proxy.bytes_per_second = 200_000
        time.sleep(1.0)
        proxy.bytes_per_second = 0

    def fill_disk() -> None:
        _limit_files(backend, 0)
        time.sleep(1.0)
        _limit_files(backend, resource.RLIM_INFINITY)

    def damage_file() -> None:
        # The latest one, since that will be fetched. It may be moved meanwhile.
        with suppress(FileNotFoundError):
            files = list((backend.home / "blobs").glob("??/*"))
            if not files:
                return
            path = max(files, key=lambda file: file.stat().st_mtime)
            tally.damaged.add(path.name)
            with path.open("r+b") as file:
                (byte,) = file.read(1)
                file.seek(0)
                file.write(bytes([byte ^ 1]))

    def attack() -> None:
        _attack(backend, rng.choice(list(ATTACKS)))

    gentle: list[Callable[[], None]] = [
        proxy.cut, flip_bit, pause, throttle, hang_server, kill_worker, suspend_worker, kill_key_check, fill_disk,
        damage_file, attack,
    ]  # fmt: skip
    hard = [*gentle, kill_server, stop_server]
    while (passed := time.monotonic() - began) < seconds:
        time.sleep(rng.uniform(0.5, 2.0))
        fault = rng.choice(hard if passed > seconds / 2 else gentle)
        fault()
        tally.faults[fault.__name__] += 1


def _wait_for_all(backend: RunningBackend, tally: Tally) -> None:
    """Wait until all jobs have ended; those that are done must have their clips."""
    with backend.client() as client:
        deadline = time.monotonic() + _PATIENCE
        while (status := client.status()).queued + status.running:
            if time.monotonic() > deadline:
                tally.wrong.append(f"{status.queued} jobs are still queued and {status.running} running")
                return
            time.sleep(0.2)
        for job in client.jobs(limit=500):
            expected = [blob.sha256 for blob in job.results if blob.sha256 not in tally.damaged]
            if job.state == "done" and not all(_is_there(backend.home, sha256) for sha256 in expected):
                tally.wrong.append(f"job {job.id} is done, but its clip is missing")


def _is_there(home: Path, sha256: str) -> bool:
    path = home / "blobs" / sha256[:2] / sha256
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


def _watch(
    backend: RunningBackend, samples: list[Sample], stop: threading.Event, console: Console, tally: Tally
) -> None:
    pid, since = 0, 0.0
    while not stop.wait(_SAMPLE_SECONDS):
        process = backend.process
        if process is None or process.poll() is not None:
            continue
        if process.pid != pid:
            pid, since = process.pid, time.monotonic()
        with suppress(OSError):  # it has ended in the meantime
            proc = Path(f"/proc/{pid}")
            sample = Sample(
                pid, time.monotonic() - since, backend.memory(), len(list((proc / "fd").iterdir())),
                len(list((proc / "task").iterdir())),
            )  # fmt: skip
            samples.append(sample)
            console.print(
                f"server {pid}: {sample.memory / 1e6:.1f} MB, {sample.descriptors} descriptors, {sample.threads} "
                f"threads; {sum(tally.ended.values())} jobs ended, {tally.faults.total()} faults"
            )


def _measures(minutes: float, tally: Tally, samples: list[Sample]) -> list[Measure]:
    first, last = _longest_life(samples)
    return [
        Measure("minutes", minutes, "min"),
        Measure("faults", tally.faults.total(), "injected"),
        Measure("jobs_submitted", tally.submitted, "jobs"),
        Measure("jobs_done", tally.ended["done"], "jobs, each with the right clip"),
        Measure("jobs_failed", tally.ended["failed"], "jobs, as intended"),
        Measure("jobs_canceled", tally.ended["canceled"], "jobs"),
        Measure("jobs_lost", len(tally.wrong), "jobs"),
        Measure(
            "memory_growth_mb", (last.memory - first.memory) / 1e6, f"MB in {last.age - first.age:.0f} s of one process"
        ),
        Measure("descriptor_growth", last.descriptors - first.descriptors, "descriptors"),
        Measure("thread_growth", last.threads - first.threads, "threads"),
    ]


def _longest_life(samples: list[Sample]) -> tuple[Sample, Sample]:
    """The first sample after the warm-up and the last one of the server process that ran longest."""
    oldest = max(samples, key=lambda sample: sample.age)
    life = [sample for sample in samples if sample.pid == oldest.pid]
    warm = [sample for sample in life if sample.age >= min(_WARM_SECONDS, oldest.age)]
    return warm[0], oldest
