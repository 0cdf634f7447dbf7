"""Jobs on disk: what was asked, what became of it, and every change of state in order.

A change is told to anybody only after its commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from motionbooth_protocol.errors import Conflict, NotFound
from motionbooth_protocol.jobs import TERMINAL_STATES, Blob, Job, JobSpec, TrainSpec, spec_digest
from motionbooth_protocol.messages import Event, SubjectInfo

from motionbooth.server.database import Database, demand_of, files_of, name_of, spec_decoder
from motionbooth.server.file_ownership import Holdings

MAX_WORKER_DEATHS = 3
MAX_SERVER_CRASHES = 5  # of one job: a job that brings the whole machine down must not do so for ever

_GIVEN_UP = (
    f"The backend ended {MAX_SERVER_CRASHES} times while this job ran; the job was given up. The machine may lack "
    "memory for it: try fewer frames, or a smaller model."
)
_JOB = "SELECT number, owner, id, kind, state, created, updated, attempt, error, name, model, priority FROM jobs "

Maker = Callable[[str], str]


@dataclass(frozen=True)
class Work:
    """One attempt at one job. (number, attempt) fences it: reports of an older attempt are refused."""

    number: int
    attempt: int
    spec: JobSpec


class Wish(NamedTuple):
    """What decides whether the results of one job answer another, besides the program and the model's state."""

    owner: str
    digest: str
    model: str


_VERSION = version("motionbooth")


def this_version(model: str) -> str:
    """The simplest Maker: the program's version, whatever became of the model."""
    return _VERSION


class Store:
    """The store in the file `path`. Raises Conflict where another server has it open.

    `maker(model)` names all that decides what a spec gives: program and model. Results are reused as long as it is
    the same.
    """

    def __init__(self, path: Path, maker: Maker = this_version) -> None:
        self._maker = maker
        self.database = Database(path)
        self.holdings = Holdings(self.database)

    def close(self) -> None:
        self.database.close()

    # What clients ask

    def submit(
        self, owner: str, job_id: str, spec: JobSpec, priority: int = 0, cached: Sequence[Blob] | None = None
    ) -> Job:
        """Keep a new job, already done where `cached` results are given; the job of that id where it is known.

        Raises Conflict where the id was used for another spec.
        """
        digest = spec_digest(spec)
        with self.database.committed():
            known = self.database.row("SELECT number, digest FROM jobs WHERE owner = ? AND id = ?", owner, job_id)
            if known is None:
                number = self._insert(owner, job_id, spec, digest, priority)
                if cached is not None:
                    self._keep_results(number, cached)
                    self._change(number, "done")
            elif known[1] != digest:
                raise Conflict(f"The job id {job_id} was used for another job before; send this one under a new id.")
            else:
                number = known[0]
        return self.job(number)

    def number(self, owner: str, job_id: str, everybodys: bool = False) -> int:
        """Our number for an owner's job, or for anybody's. Raises NotFound, for another owner's job too."""
        row = self.database.row("SELECT number FROM jobs WHERE owner = ? AND id = ?", owner, job_id)
        if row is None and everybodys:
            row = self.database.row("SELECT number FROM jobs WHERE id = ? ORDER BY number DESC", job_id)
        if row is None:
            raise NotFound(f"The backend has no job {job_id} of yours.")
        return int(row[0])

    def knows(self, owner: str, job_id: str) -> bool:
        """Whether the owner has a job of this id."""
        return self.database.row("SELECT 1 FROM jobs WHERE owner = ? AND id = ?", owner, job_id) is not None

    def job(self, number: int) -> Job:
        """`owner` is the sender's public key here. Raises NotFound where it was forgotten."""
        row = self.database.row(_JOB + "WHERE number = ?", number)
        if row is None:
            raise NotFound("The job was removed.")
        return self._as_job(row)

    def jobs(self, owner: str | None, limit: int) -> list[Job]:
        """The owner's jobs, or everybody's, newest first; `owner` is the sender's public key here."""
        order = "ORDER BY number DESC LIMIT ?"
        if owner is None:
            rows = self.database.rows(_JOB + order, limit)
        else:
            rows = self.database.rows(_JOB + "WHERE owner = ? " + order, owner, limit)
        return [self._as_job(row) for row in rows]

    def newest_of_all_states(self, limit: int) -> list[Job]:
        """What runs, then what waits (the highest priority first), then what ended (the newest first): so many of each.

        `owner` is the sender's public key here.
        """
        found: list[tuple[Any, ...]] = []
        for condition in (
            "WHERE state = 'running' ORDER BY number",
            "WHERE state = 'queued' ORDER BY priority DESC, number",
            # The plus keeps SQLite from sorting all that ever ended: it walks back from the newest.
            "WHERE +state NOT IN ('running', 'queued') ORDER BY number DESC",
        ):
            found += self.database.rows(f"{_JOB}{condition} LIMIT ?", limit)
        return [self._as_job(row) for row in found]

    def subjects(self, owner: str) -> list[SubjectInfo]:
        """The owner's trained subjects, newest first."""
        rows = self.database.rows(
            "SELECT name, token, class_word, model, weights, created, picture, coalesce(size, 0) FROM subjects "
            "LEFT JOIN holdings ON holdings.owner = subjects.owner AND sha256 = picture "
            "WHERE subjects.owner = ? ORDER BY created DESC",
            owner,
        )
        return [SubjectInfo(*row) for row in rows]

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state; a state that no job is in is missing."""
        return dict(self.database.rows("SELECT state, count(*) FROM jobs GROUP BY state"))

    def waiting(self, owner: str) -> int:
        """How many of the owner's jobs have not ended."""
        ((count,),) = self.database.rows("SELECT count(*) FROM jobs WHERE owner = ? AND ended IS NULL", owner)
        return int(count)

    def last_seq(self, number: int) -> int:
        ((seq,),) = self.database.rows("SELECT max(seq) FROM events WHERE job = ?", number)
        return int(seq or 0)

    def events(self, number: int, after_seq: int) -> list[Event]:
        """The job's changes of state after `after_seq`, in order, without a gap."""
        job = self.job(number)
        rows = self.database.rows(
            "SELECT seq, state, attempt, error FROM events WHERE job = ? AND seq > ? ORDER BY seq", number, after_seq
        )
        return [
            Event(job=job.id, seq=seq, state=state, attempt=attempt, error=error,
                  results=job.results if state == "done" else [])
            for seq, state, attempt, error in rows
        ]  # fmt: skip

    def forget(self, number: int) -> list[str]:
        """Remove an ended job, and a subject that it gave: the files that nobody holds any more, to be removed.

        Raises Conflict where it has not ended.
        """
        with self.database.committed():
            job = self.job(number)
            if job.state not in TERMINAL_STATES:
                raise Conflict(f"The job {job.id} is {job.state}; cancel it, and forget it when it has ended.")
            files = self.database.rows(
                "SELECT sha256 FROM needs WHERE job = ? UNION SELECT sha256 FROM results WHERE job = ?", number, number
            )
            self.database.do(
                "DELETE FROM subjects WHERE owner = ? AND weights IN "
                "(SELECT sha256 FROM results WHERE job = ? AND role = 'subject')", job.owner, number,
            )  # fmt: skip
            for table, column in (("events", "job"), ("results", "job"), ("needs", "job"), ("jobs", "number")):
                self.database.do(f"DELETE FROM {table} WHERE {column} = ?", number)
            return self.holdings.let_go(job.owner, [sha256 for (sha256,) in files])

    def owners(self) -> list[str]:
        """Whoever has a job here."""
        return [owner for (owner,) in self.database.rows("SELECT DISTINCT owner FROM jobs")]

    def ended(self, owner: str, before: float, limit: int, fetched_only: bool = False) -> list[int]:
        """The owner's first `limit` jobs that ended before that time (see Database.served), but none that gave a
        subject. `fetched_only`: those whose results the owner has.
        """
        # A CROSS JOIN is done in its order: from the one job to its few results, not through all that the owner holds.
        rows = self.database.rows(
            "SELECT number FROM jobs WHERE owner = ? AND ended < ? AND (kind != 'train' OR state != 'done') AND NOT "
            "(? AND EXISTS (SELECT 1 FROM results CROSS JOIN holdings USING (sha256) WHERE job = number AND "
            "holdings.owner = jobs.owner AND NOT fetched)) ORDER BY ended, number LIMIT ?",
            owner, before, fetched_only, limit,
        )  # fmt: skip
        return [number for (number,) in rows]

    # What the scheduler does

    def state(self, number: int) -> str:
        ((state,),) = self.database.rows("SELECT state FROM jobs WHERE number = ?", number)
        return str(state)

    def results(self, number: int) -> list[Blob]:
        rows = self.database.rows("SELECT role, sha256, size FROM results WHERE job = ? ORDER BY role", number)
        return [Blob(*row) for row in rows]

    def wish(self, number: int) -> Wish:
        """What the job asks for."""
        return Wish(*self.database.rows("SELECT owner, digest, model FROM jobs WHERE number = ?", number)[0])

    def twin(self, wish: Wish, state: str) -> int | None:
        """The latest job in this state ("done" or "running") whose results are or will be what is wished."""
        row = self.database.row(
            "SELECT number FROM jobs WHERE owner = ? AND digest = ? AND state = ? AND maker = ? "
            "ORDER BY number DESC LIMIT 1",
            wish.owner, wish.digest, state, self._maker(wish.model),
        )  # fmt: skip
        return None if row is None else int(row[0])

    def waiting_twins(self, wish: Wish) -> list[int]:
        """The jobs that wait for the same, whether they follow another one or not."""
        query = "SELECT number FROM jobs WHERE owner = ? AND digest = ? AND state = 'queued' ORDER BY number"
        return [number for (number,) in self.database.rows(query, wish.owner, wish.digest)]

    def follow(self, number: int, leader: int) -> None:
        """The waiting job has no turn until the state of its leader, which runs, changes."""
        with self.database.committed():
            self.database.do("UPDATE jobs SET leader = ? WHERE number = ?", leader, number)

    def answer(self, number: int, results: Sequence[Blob]) -> None:
        """Another job's results end this one, which waits."""
        with self.database.committed():
            self._keep_results(number, results)
            self._change(number, "done")

    def spec(self, number: int) -> tuple[str, JobSpec]:
        """The job's owner and spec."""
        ((owner, spec),) = self.database.rows("SELECT owner, spec FROM jobs WHERE number = ?", number)
        return owner, spec_decoder.decode(spec)

    def running(self) -> list[int]:
        """The numbers of the jobs that run."""
        return [number for (number,) in self.database.rows("SELECT number FROM jobs WHERE state = 'running'")]

    def start(self, number: int) -> Work:
        """Raise the attempt and mark the job as running, before anything runs."""
        spec = self.spec(number)[1]
        with self.database.committed():
            # The model may be another one since the job was sent: what counts is what the results come from.
            self.database.do(
                "UPDATE jobs SET attempt = attempt + 1, maker = ? WHERE number = ?", self._maker(spec.model), number
            )
            self._change(number, "running")
            ((attempt,),) = self.database.rows("SELECT attempt FROM jobs WHERE number = ?", number)
        return Work(number, attempt, spec)

    def finish(self, number: int, attempt: int, results: Sequence[Blob]) -> bool:
        """The attempt's results are in. False where the attempt is not the running one: nothing is changed then."""
        with self.database.committed():
            if not self.is_running(number, attempt):
                return False
            self._keep_results(number, results)
            self._change(number, "done")
        return True

    def end(self, number: int, attempt: int, state: str, error: str) -> bool:
        """The attempt ended "failed" or "canceled". False where it is not the running one."""
        with self.database.committed():
            if not self.is_running(number, attempt):
                return False
            self._change(number, state, error)
        return True

    def requeue(self, number: int, attempt: int, reason: str = "") -> bool:
        """The attempt ended through no fault of the job; another follows. False where it is not the running one."""
        with self.database.committed():
            if not self.is_running(number, attempt):
                return False
            self._end_attempt(number, reason)
        return True

    def worker_died(self, number: int, attempt: int, reason: str) -> bool:
        """The attempt's worker died: another attempt follows, or after MAX_WORKER_DEATHS the job has failed."""
        with self.database.committed():
            if not self.is_running(number, attempt):
                return False
            deaths = self._count(number, "deaths")
            if deaths >= MAX_WORKER_DEATHS and not self.is_canceling(number):
                self._change(number, "failed", f"{reason} This happened {deaths} times; the job was given up.")
            else:
                self._end_attempt(number, reason)
        return True

    def request_cancel(self, number: int) -> tuple[str, int]:
        """Cancel a queued job at once, note the wish for a running one: the state after that, and the attempt."""
        with self.database.committed():
            job = self.job(number)
            if job.state == "queued":
                self._change(number, "canceled")
            elif job.state == "running":
                self.database.do("UPDATE jobs SET canceling = 1 WHERE number = ?", number)
        job = self.job(number)
        return job.state, job.attempt

    def is_canceling(self, number: int) -> bool:
        ((canceling,),) = self.database.rows("SELECT canceling FROM jobs WHERE number = ?", number)
        return bool(canceling)

    def requeue_running(self, crashed: bool, adopted: Container[int] = ()) -> None:
        """Put what runs back into the queue, except `adopted`; `crashed`: the last server ended without a word."""
        with self.database.committed():
            for number in self.running():
                if number in adopted:
                    continue
                if crashed and self._count(number, "crashes") >= MAX_SERVER_CRASHES:
                    self._change(number, "failed", _GIVEN_UP)
                else:
                    self._end_attempt(number, "The backend was stopped while the job ran; it goes on.")

    # Inside a transaction

    def _insert(self, owner: str, job_id: str, spec: JobSpec, digest: str, priority: int) -> int:
        kind = "train" if isinstance(spec, TrainSpec) else "generate"
        now = time.time()
        # Our own count, since SQLite gives the number of a removed job to the next one, and late reports name numbers.
        self.database.do("UPDATE clock SET numbers = numbers + 1")
        ((number,),) = self.database.rows("SELECT numbers FROM clock")
        self.database.do(
            "INSERT INTO jobs (number, owner, id, kind, name, model, demand, spec, digest, maker, priority, state, "
            "created, updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?)",
            number, owner, job_id, kind, name_of(spec), spec.model, demand_of(spec), msgspec.msgpack.encode(spec),
            digest, self._maker(spec.model), priority, now, now,
        )  # fmt: skip
        for sha256 in files_of(spec):
            self.database.do("INSERT INTO needs VALUES (?, ?)", number, sha256)
            self.holdings.want(owner, sha256)
        self._change(number, "queued")
        return int(number)

    def _change(self, number: int, state: str, error: str = "") -> None:
        """The one place where a state changes, and where a durable event is made."""
        ended = self.database.served() if state in TERMINAL_STATES else None
        self.database.do(
            "UPDATE jobs SET state = ?, error = ?, updated = ?, ended = ?, leader = NULL WHERE number = ?",
            state, error, time.time(), ended, number,
        )  # fmt: skip
        self.database.do("UPDATE jobs SET leader = NULL WHERE leader = ?", number)
        self.database.do(
            "INSERT INTO events SELECT number, (SELECT coalesce(max(seq), 0) + 1 FROM events WHERE job = number), "
            "state, attempt, error, updated FROM jobs WHERE number = ?", number,
        )  # fmt: skip

    def _end_attempt(self, number: int, reason: str) -> None:
        """Back into the queue, unless its owner wanted it canceled."""
        if self.is_canceling(number):
            self._change(number, "canceled")
        else:
            self._change(number, "queued", reason)

    def is_running(self, number: int, attempt: int) -> bool:
        """Whether the job runs, and this attempt is its latest."""
        query = "SELECT 1 FROM jobs WHERE number = ? AND attempt = ? AND state = 'running'"
        return self.database.row(query, number, attempt) is not None

    def _count(self, number: int, column: str) -> int:
        self.database.do(f"UPDATE jobs SET {column} = {column} + 1 WHERE number = ?", number)
        ((count,),) = self.database.rows(f"SELECT {column} FROM jobs WHERE number = ?", number)
        return int(count)

    def _as_job(self, row: tuple[Any, ...]) -> Job:
        number, owner, id, kind, state, created, updated, attempt, error, name, model, priority = row
        return Job(
            id=id, kind=kind, state=state, created=created, updated=updated, attempt=attempt, error=error,
            results=self.results(number), name=name, model=model, priority=priority, owner=owner,
        )  # fmt: skip

    def _keep_results(self, number: int, results: Sequence[Blob]) -> None:
        owner = self.wish(number).owner
        for blob in results:
            self.database.do("INSERT INTO results VALUES (?, ?, ?, ?)", number, blob.role, blob.sha256, blob.size)
            self.holdings.hold(owner, blob.sha256, blob.size)
        files = {blob.role: blob.sha256 for blob in results}
        if "subject" in files and isinstance(spec := self.spec(number)[1], TrainSpec):
            subject = spec.subject
            self.database.do(
                "INSERT OR REPLACE INTO subjects (owner, weights, name, token, class_word, model, created, picture) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                owner, files["subject"], subject.name, subject.token, subject.class_word, spec.model, time.time(),
                files.get("samples"),
            )  # fmt: skip
