"""`motionbooth bench server`: transfers, submissions, many clients, many jobs, and the faults that it survives."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.server.store import Store
from motionbooth_protocol.client import Client, new_job_id
from motionbooth_protocol.errors import MotionBoothError
from motionbooth_protocol.jobs import Blob

from motionbooth_lab.bench.bare_pair import bare_rate
from motionbooth_lab.rig.attacks import ATTACKS, Attacked
from motionbooth_lab.rig.backend import RunningBackend, small_job, wait_until
from motionbooth_lab.rig.faults import faults_survived

_MB = 1e6
_CLIP_BYTES = 256_000_000
_ROUNDS = 7
_SUBMITS = 200
_CLIENTS = 200
_SECONDS = 15.0
_JOBS = 100_000
_ATTACKERS_JOBS = 8000
_HANG_UPS = {"hang_up": 70, "hang_up_with_heartbeats": 70, "hang_up_together": 3}  # the last one of 20 connections


def bench_server() -> BenchResult:
    """Run the bench. Takes some minutes and 1 GB of temporary files."""
    with tempfile.TemporaryDirectory(prefix="motionbooth-bench-") as folder:
        home = Path(folder)
        measures = transfer(home / "transfer") + submitting(home / "submitting") + many_clients(home / "clients")
        measures += many_jobs(home / "jobs") + attacks(home / "attacks")
    survived = faults_survived()
    if survived is not None:
        measures.append(Measure("faults_survived", survived, "of 20"))
    return BenchResult("server", measures)


def transfer(home: Path) -> list[Measure]:
    """Transfer 256 MB over loopback, alternately by the product and by a bare pair of sockets. Reports medians.

    The bare pair is two processes with CURVE that do the same work: a DEALER requests the same number of chunks of the
    same size, with the same window, hashes and writes them, and a ROUTER reads them from the file.
    """
    clip = home / "clip"
    home.mkdir(parents=True)
    data = os.urandom(_CLIP_BYTES)
    clip.write_bytes(data)
    ours, bare = [], []
    with running(home / "backend") as backend, backend.client() as client:
        began = time.perf_counter()
        blob = Blob("clip", client.upload(clip), _CLIP_BYTES)
        upload = _CLIP_BYTES / (time.perf_counter() - began)
        for number in range(_ROUNDS):
            bare.append(bare_rate(clip, home / "copy"))
            began = time.perf_counter()
            client.fetch(blob, home / f"fetched {number}")
            ours.append(_CLIP_BYTES / (time.perf_counter() - began))
            (home / f"fetched {number}").unlink()
    assert blob.sha256 == hashlib.sha256(data).hexdigest()
    return [
        Measure("transfer_ratio", statistics.median(ours) / statistics.median(bare), "of the bare pair's rate"),
        Measure("transfer_mb_s", statistics.median(ours) / _MB, "MB/s"),
        Measure("bare_pair_mb_s", statistics.median(bare) / _MB, "MB/s"),
        Measure("upload_mb_s", upload / _MB, "MB/s"),
    ]


def submitting(home: Path) -> list[Measure]:
    """Time from Submit to Accepted, each stored on disk, compared with the commit of a single row. Reports medians."""
    home.mkdir(parents=True)
    ours, bare = [], []
    with running(home / "backend") as backend, backend.client() as client, sqlite3.connect(home / "bare") as database:
        database.isolation_level = None
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE one (number INTEGER PRIMARY KEY, value BLOB)")
        client.submit(new_job_id(), small_job("steps=100000 pause=1"))  # the others are queued behind it
        for number in range(_SUBMITS):
            job, spec = new_job_id(), small_job("a toy", seed=number)
            began = time.perf_counter()
            client.submit(job, spec)
            accepted = time.perf_counter()
            database.execute("INSERT INTO one (value) VALUES (?)", (b"x" * 1000,))
            ours.append(accepted - began)
            bare.append(time.perf_counter() - accepted)
    database.close()
    return [
        Measure("submit_ratio", statistics.median(ours) / statistics.median(bare), "of one commit's time"),
        Measure("submit_ms", 1000 * statistics.median(ours), "ms"),
        Measure("commit_ms", 1000 * statistics.median(bare), "ms"),
    ]


def many_clients(home: Path) -> list[Measure]:
    """Ping time of a client while 200 other clients each follow a job that reports ten times a second."""
    backend = RunningBackend(home, "motionbooth_lab.rig.pulse_server", str(_CLIENTS))
    backend.start()
    heard = [0] * _CLIENTS
    stop = threading.Event()
    try:
        threads = [
            threading.Thread(target=_follow, args=(backend, number, heard, stop), daemon=True)
            for number in range(_CLIENTS)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(heard), 120)
        before, pings = sum(heard), []
        began = time.perf_counter()
        with backend.client() as client:
            while time.perf_counter() - began < _SECONDS:
                pings.append(client.ping())
                time.sleep(0.01)
        rate = (sum(heard) - before) / (time.perf_counter() - began)
        stop.set()
        for thread in threads:
            thread.join(30)
    finally:
        backend.end()
    return [
        Measure("ping_p99_ms", 1000 * statistics.quantiles(pings, n=100)[98], "ms"),
        Measure("ping_median_ms", 1000 * statistics.median(pings), "ms"),
        Measure("reports_heard_a_second", rate, "of 2000 made"),
    ]


def _follow(backend: RunningBackend, number: int, heard: list[int], stop: threading.Event) -> None:
    def count(_: object) -> None:
        heard[number] += 1

    client = Client(backend.connection, timeout=60.0, stop=stop)
    try:
        job = new_job_id()
        client.submit(job, small_job(seed=number))
        client.follow(job, on_progress=count)
    except MotionBoothError:
        if not stop.is_set():
            raise
    finally:
        client.close()


def many_jobs(home: Path) -> list[Measure]:
    """Memory of a server with 100,000 jobs in its store, nine in ten finished, compared with an empty one."""
    memory = []
    for name, jobs in (("empty", 0), ("full", _JOBS)):
        (home / name).mkdir(parents=True)
        if jobs:
            fill(home / name / "jobs.sqlite", jobs)
        with running(home / name) as backend, backend.client() as client:
            for seed in range(20):
                client.submit(new_job_id(), small_job("steps=1", seed=10_000_000 + seed), priority=1)
                client.jobs(limit=100)
                client.status()
            memory.append(backend.memory())
    return [Measure("store_memory_mb", (memory[1] - memory[0]) / _MB, "MB more than an empty store")]


def attacks(home: Path) -> list[Measure]:
    """Attack a server in each way, and count what of 200 hang-ups under backlog aborts it."""
    attacked = Attacked(home, _ATTACKERS_JOBS)
    aborts, pings, memory = 0, dict[str, float](), 0
    try:
        for name in ATTACKS:
            times = _HANG_UPS.get(name, 1)
            harms = [attacked.suffer(name, min(10, times - done)) for done in range(0, times, 10)]
            aborts += sum(harm.aborts for harm in harms)
            pings[name] = 1000 * statistics.quantiles([ping for harm in harms for ping in harm.pings], n=100)[98]
            memory = max(memory, *(harm.memory for harm in harms))
    finally:
        attacked.backend.end()
    worst = max(pings, key=lambda name: pings[name])
    return [
        Measure("hangup_aborts", aborts, "of 200 hang-ups under backlog"),
        Measure("others_ping_ms", pings[worst], f"ms, 99th percentile during the worst attack, {worst}"),
        Measure("attack_memory_mb", memory / _MB, "MB more during the worst attack"),
    ]


def fill(path: Path, jobs: int) -> None:
    """Fill a store in which every tenth job is queued and the others have a clip."""
    store = Store(path)
    clip = Blob("clip", "0" * 64, 1000)
    with store.database.transaction():
        for number in range(jobs):
            results = [clip] if number % 10 else None
            store.transitions.submit(
                f"owner {number % 20}", new_job_id(), small_job("steps=1", seed=number), cached=results
            )
    store.close()


@contextmanager
def running(home: Path) -> Iterator[RunningBackend]:
    with ExitStack() as stack:
        backend = RunningBackend(home)
        stack.callback(backend.end)
        yield backend.start()
