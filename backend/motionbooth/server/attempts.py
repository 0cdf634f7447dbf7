"""One attempt at one job, as the store starts it, an executor runs it and a worker reports on it."""

from __future__ import annotations

from typing import NamedTuple, NewType

from motionbooth_protocol.jobs import JobSpec
from msgspec import Struct

JobNumber = NewType("JobNumber", int)  # the store's key of a job, in order of arrival; clients know its id instead


class AttemptId(NamedTuple):
    """Attempts at a job count up from 1. A report that names an older attempt than the running one is ignored."""

    job_number: JobNumber
    attempt: int


class TimeLimits(Struct, frozen=True):
    """Seconds after which an attempt is ended."""

    silence: float = 120.0  # without a word from the worker, which sends one every few seconds
    stall: float = 7200.0  # without progress
    wall: float = 0.0  # in all; 0: no limit


class Attempt(Struct, frozen=True, tag=True):
    """Also the message that starts it in a worker."""

    id: AttemptId
    spec: JobSpec
    limits: TimeLimits = TimeLimits()
