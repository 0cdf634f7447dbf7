"""Jobs and workers that would hold their place forever."""

from __future__ import annotations

import os
import signal

import pytest
from following import Following
from motionbooth_protocol.client import new_job_id
from motionbooth_protocol.errors import JobFailed
from refused import assert_says, refused
from running_backend import RunningBackend, is_running, small_job, wait_until


def test_a_suspended_worker_is_replaced_and_its_job_continues(backend: RunningBackend) -> None:
    backend.start(SILENCE="6")
    following = Following(backend, "steps=30 pause=0.1")
    wait_until(lambda: len(following.progress) > 3)
    worker = backend.worker_pid()
    os.kill(worker, signal.SIGSTOP)
    assert following.done().attempt == 2
    assert not is_running(worker)
    assert_says(following.events[2].error, seconds=6)


def test_a_worker_caught_in_a_call_that_never_ends_is_ended_and_the_next_job_runs(backend: RunningBackend) -> None:
    backend.start(SILENCE="4")
    with backend.client() as client:
        job = new_job_id()
        client.submit(job, small_job("hang"))
        with refused(JobFailed, seconds=4, count=3):
            client.follow(job)
    assert Following(backend, "steps=1").done().state == "done"


def test_a_job_that_makes_no_progress_is_given_up_although_its_worker_lives(backend: RunningBackend) -> None:
    backend.start(STALL="3", SILENCE="30")
    with backend.client() as client:
        job = new_job_id()
        client.submit(job, small_job("steps=2 pause=1000"))
        with refused(JobFailed, stage="sampling", count=3):
            client.follow(job)


@pytest.mark.slow
def test_a_long_job_that_makes_progress_outlives_both_limits(backend: RunningBackend) -> None:
    backend.start(STALL="3", SILENCE="5")
    assert Following(backend, "steps=16 pause=0.5").done().attempt == 1


def test_a_users_job_is_ended_at_its_time_limit_and_an_admins_is_not(backend: RunningBackend) -> None:
    backend.start(WALL="4", WORKERS="2")
    admins = Following(backend, "steps=40 pause=0.2")
    with backend.client(connection=backend.new_key("ann")) as client:
        wait_until(lambda: client.ping() < 5)
        job = new_job_id()
        client.submit(job, small_job("steps=1000 pause=0.1"))
        with refused(JobFailed, hours=...):
            client.follow(job)
        assert client.get(job).attempt == 1, "it is not tried again"
    assert admins.done().attempt == 1
