from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from motionbooth_lab.bench.scheduler import arrivals, bench_scheduler, mean_seconds, simulate


def test_the_jobs_keep_the_workers_busy_at_the_given_load() -> None:
    coming = list(arrivals(4000, workers=8))
    assert sum(one.seconds for one in coming) / coming[-1].at / 8 == pytest.approx(0.85, rel=0.12)
    assert sum(one.seconds for one in coming) / len(coming) == pytest.approx(mean_seconds(), rel=0.12)
    assert len({one.owner for one in coming}) == 40


def test_every_job_of_a_simulation_is_done_exactly_once(tmp_path: Path) -> None:
    outcome = simulate(tmp_path, 8, list(arrivals(600, 8)))
    with sqlite3.connect(tmp_path / "jobs.sqlite") as database:
        jobs = Counter(database.execute("SELECT state, attempt FROM jobs").fetchall())
    database.close()
    assert jobs == {("done", 1): 600}
    assert min(outcome.waits) >= 0
    assert len(outcome.waits) == 600
    assert 0.6 < outcome.share_busy <= 1
    assert outcome.loads < 600 * 0.7, "jobs of one subject run back to back"


@pytest.mark.slow
def test_the_bench_gives_its_figures(tmp_path: Path) -> None:
    result = bench_scheduler(2000, tmp_path)
    assert result.value("workers_64_busy_share") > 0.3
    assert result.value("dispatch_at_once") > 0
