"""Jobs on disk: what was asked, what became of it, and every change of state in order. SQLite, one connection.

A change is told to anybody only after its commit. EXCLUSIVE locking keeps a second server off the same store and,
unlike a lock file, is gone by itself when a server is killed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import msgspec
from motionbooth_protocol.errors import Conflict, InvalidInput, MotionBoothError, NotFound, OutOfSpace
from motionbooth_protocol.jobs import Blob, Job, JobSpec, TrainSpec, spec_digest
from motionbooth_protocol.messages import Event, SubjectInfo

SCHEMA_VERSION = 1
MAX_WORKER_DEATHS = 3
MAX_SERVER_CRASHES = 5  # of one job: a job that brings the whole machine down must not do so for ever

_SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY,  -- in order of arrival
    owner TEXT NOT NULL,         -- public key of the sender
    id TEXT NOT NULL,            -- made by the client
    kind TEXT NOT NULL,
    spec BLOB NOT NULL,
    digest TEXT NOT NULL,
    maker TEXT NOT NULL,         -- version of the program: another one's results are not reused
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,   -- workers that died of it
    crashes INTEGER NOT NULL DEFAULT 0,  -- servers that ended, not in good order, while it ran
    canceling INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL,
    updated REAL NOT NULL,
    UNIQUE (owner, id)
);
CREATE INDEX jobs_in_turn ON jobs (state, priority DESC, number);
CREATE INDEX jobs_by_digest ON jobs (owner, digest, state);
CREATE TABLE events (
    job INTEGER NOT NULL, seq INTEGER NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL,
    error TEXT NOT NULL, at REAL NOT NULL, PRIMARY KEY (job, seq)
) WITHOUT ROWID;
CREATE TABLE results (
    job INTEGER NOT NULL, role TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (job, role)
) WITHOUT ROWID;
CREATE TABLE subjects (
    owner TEXT NOT NULL, weights TEXT NOT NULL, name TEXT NOT NULL, token TEXT NOT NULL, class_word TEXT NOT NULL,
    model TEXT NOT NULL, created REAL NOT NULL, PRIMARY KEY (owner, weights)
) WITHOUT ROWID;
"""

_GIVEN_UP = (
    f"The backend ended {MAX_SERVER_CRASHES} times while this job ran; the job was given up. The machine may lack "
    "memory for it: try fewer frames, or a smaller model."
)
_spec_decoder: msgspec.msgpack.Decoder[JobSpec] = msgspec.msgpack.Decoder(JobSpec)


@dataclass(frozen=True)
class Work:
    """One attempt at one job. (number, attempt) fences it: reports of an older attempt are refused."""

    number: int
    attempt: int
    spec: JobSpec


class Store:
    """The store in the file `path`. Raises Conflict where another server has it open."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._maker = version("motionbooth")
        self._database = sqlite3.connect(path, timeout=2.0, isolation_level=None)
        try:
            self._prepare(path)
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        self._database.close()

    def _prepare(self, path: Path) -> None:
        try:
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            with self._committed():
                (found,) = self._database.execute("PRAGMA user_version").fetchone()
                if found == 0:
                    self._create()
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise Conflict(
                    f"Another backend is running on {path.parent}. Use that one, stop it first, or give this one a "
                    "folder of its own with --home."
                ) from None
            raise InvalidInput(
                f"The job store {path} cannot be read ({error}). Restore it from a copy, or move it away to start anew."
            ) from error
        if found > SCHEMA_VERSION:
            raise InvalidInput(
                f"The job store {path} was written by a newer MotionBooth (format {found}, this one knows "
                f"{SCHEMA_VERSION}). Install that version again, or give this one a folder of its own with --home."
            )

    def _create(self) -> None:
        for statement in _SCHEMA.split(";"):
            self._database.execute(statement)
        self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    # What clients ask

    def submit(
        self, owner: str, job_id: str, spec: JobSpec, priority: int = 0, cached: Sequence[Blob] | None = None
    ) -> Job:
        """Keep a new job, already done where `cached` results are given; the job of that id where it is known.

        Raises Conflict where the id was used for another spec.
        """
        digest = spec_digest(spec)
        with self._committed():
            known = self._database.execute(
                "SELECT number, digest FROM jobs WHERE owner = ? AND id = ?", (owner, job_id)
            ).fetchone()
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

    def number(self, owner: str, job_id: str) -> int:
        """Our number for an owner's job. Raises NotFound, for another owner's job too."""
        row = self._database.execute("SELECT number FROM jobs WHERE owner = ? AND id = ?", (owner, job_id)).fetchone()
        if row is None:
            raise NotFound(f"The backend has no job {job_id} of yours.")
        return int(row[0])

    def job(self, number: int) -> Job:
        row = self._database.execute(
            "SELECT id, kind, state, created, updated, attempt, error FROM jobs WHERE number = ?", (number,)
        ).fetchone()
        values = dict(zip(("id", "kind", "state", "created", "updated", "attempt", "error"), row, strict=True))
        return Job(**values, results=self._results(number))

    def jobs(self, owner: str, limit: int) -> list[Job]:
        """The owner's jobs, newest first."""
        rows = self._database.execute(
            "SELECT number FROM jobs WHERE owner = ? ORDER BY number DESC LIMIT ?", (owner, limit)
        )
        return [self.job(number) for (number,) in rows.fetchall()]

    def subjects(self, owner: str) -> list[SubjectInfo]:
        """The owner's trained subjects, newest first."""
        rows = self._database.execute(
            "SELECT name, token, class_word, model, weights, created FROM subjects WHERE owner = ? "
            "ORDER BY created DESC",
            (owner,),
        )
        return [SubjectInfo(*row) for row in rows.fetchall()]

    def last_seq(self, number: int) -> int:
        row = self._database.execute("SELECT max(seq) FROM events WHERE job = ?", (number,)).fetchone()
        return int(row[0] or 0)

    def events(self, number: int, after_seq: int) -> list[Event]:
        """The job's changes of state after `after_seq`, in order, without a gap."""
        job = self.job(number)
        rows = self._database.execute(
            "SELECT seq, state, attempt, error FROM events WHERE job = ? AND seq > ? ORDER BY seq", (number, after_seq)
        )
        return [
            Event(job=job.id, seq=seq, state=state, attempt=attempt, error=error,
                  results=job.results if state == "done" else [])
            for seq, state, attempt, error in rows.fetchall()
        ]  # fmt: skip

    def finished_twin(self, owner: str, spec: JobSpec) -> list[Blob] | None:
        """The results of a job of this owner that asked for the same and is done, if there is one."""
        row = self._database.execute(
            "SELECT number FROM jobs WHERE owner = ? AND digest = ? AND state = 'done' AND maker = ? "
            "ORDER BY number DESC LIMIT 1",
            (owner, spec_digest(spec), self._maker),
        ).fetchone()
        return None if row is None else self._results(row[0])

    # What the scheduler does

    def next_queued(self) -> int | None:
        """The number of the job whose turn it is."""
        row = self._database.execute(
            "SELECT number FROM jobs WHERE state = 'queued' ORDER BY priority DESC, number LIMIT 1"
        ).fetchone()
        return None if row is None else int(row[0])

    def spec(self, number: int) -> tuple[str, JobSpec]:
        """The job's owner and spec."""
        owner, spec = self._database.execute("SELECT owner, spec FROM jobs WHERE number = ?", (number,)).fetchone()
        return owner, _spec_decoder.decode(spec)

    def start(self, number: int) -> Work:
        """Raise the attempt and mark the job as running, before anything runs."""
        with self._committed():
            self._database.execute("UPDATE jobs SET attempt = attempt + 1 WHERE number = ?", (number,))
            self._change(number, "running")
        return Work(number, self.job(number).attempt, self.spec(number)[1])

    def finish(self, number: int, attempt: int, results: Sequence[Blob]) -> bool:
        """The attempt's results are in. False where the attempt is not the running one: nothing is changed then."""
        with self._committed():
            if not self._is_running(number, attempt):
                return False
            self._keep_results(number, results)
            self._change(number, "done")
        return True

    def end(self, number: int, attempt: int, state: str, error: str) -> bool:
        """The attempt ended "failed" or "canceled". False where it is not the running one."""
        with self._committed():
            if not self._is_running(number, attempt):
                return False
            self._change(number, state, error)
        return True

    def requeue(self, number: int, attempt: int, reason: str = "") -> bool:
        """The attempt ended through no fault of the job; another follows. False where it is not the running one."""
        with self._committed():
            if not self._is_running(number, attempt):
                return False
            self._end_attempt(number, reason)
        return True

    def worker_died(self, number: int, attempt: int, reason: str) -> bool:
        """The attempt's worker died: another attempt follows, or after MAX_WORKER_DEATHS the job has failed."""
        with self._committed():
            if not self._is_running(number, attempt):
                return False
            deaths = self._count(number, "deaths")
            if deaths >= MAX_WORKER_DEATHS and not self.is_canceling(number):
                self._change(number, "failed", f"{reason} This happened {deaths} times; the job was given up.")
            else:
                self._end_attempt(number, reason)
        return True

    def request_cancel(self, number: int) -> tuple[str, int]:
        """Cancel a queued job at once, note the wish for a running one: the state after that, and the attempt."""
        with self._committed():
            job = self.job(number)
            if job.state == "queued":
                self._change(number, "canceled")
            elif job.state == "running":
                self._database.execute("UPDATE jobs SET canceling = 1 WHERE number = ?", (number,))
        job = self.job(number)
        return job.state, job.attempt

    def is_canceling(self, number: int) -> bool:
        return bool(self._database.execute("SELECT canceling FROM jobs WHERE number = ?", (number,)).fetchone()[0])

    def requeue_running(self, crashed: bool) -> None:
        """Put what runs back into the queue; `crashed`: because the last server ended without a word."""
        with self._committed():
            rows = self._database.execute("SELECT number FROM jobs WHERE state = 'running'").fetchall()
            for (number,) in rows:
                if crashed and self._count(number, "crashes") >= MAX_SERVER_CRASHES:
                    self._change(number, "failed", _GIVEN_UP)
                else:
                    self._end_attempt(number, "The backend was stopped while the job ran; it goes on.")

    # Inside a transaction

    def _insert(self, owner: str, job_id: str, spec: JobSpec, digest: str, priority: int) -> int:
        kind = "train" if isinstance(spec, TrainSpec) else "generate"
        now = time.time()
        cursor = self._database.execute(
            "INSERT INTO jobs (owner, id, kind, spec, digest, maker, priority, state, created, updated) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?)",
            (owner, job_id, kind, msgspec.msgpack.encode(spec), digest, self._maker, priority, now, now),
        )
        number = int(cursor.lastrowid or 0)
        self._change(number, "queued")
        return number

    def _change(self, number: int, state: str, error: str = "") -> None:
        """The one place where a state changes, and where a durable event is made."""
        self._database.execute(
            "UPDATE jobs SET state = ?, error = ?, updated = ? WHERE number = ?", (state, error, time.time(), number)
        )
        self._database.execute(
            "INSERT INTO events SELECT number, ?, state, attempt, error, updated FROM jobs WHERE number = ?",
            (self.last_seq(number) + 1, number),
        )

    def _end_attempt(self, number: int, reason: str) -> None:
        """Back into the queue, unless its owner wanted it canceled."""
        if self.is_canceling(number):
            self._change(number, "canceled")
        else:
            self._change(number, "queued", reason)

    def _is_running(self, number: int, attempt: int) -> bool:
        row = self._database.execute(
            "SELECT 1 FROM jobs WHERE number = ? AND attempt = ? AND state = 'running'", (number, attempt)
        ).fetchone()
        return row is not None

    def _count(self, number: int, column: str) -> int:
        self._database.execute(f"UPDATE jobs SET {column} = {column} + 1 WHERE number = ?", (number,))
        return int(self._database.execute(f"SELECT {column} FROM jobs WHERE number = ?", (number,)).fetchone()[0])

    def _results(self, number: int) -> list[Blob]:
        rows = self._database.execute("SELECT role, sha256, size FROM results WHERE job = ? ORDER BY role", (number,))
        return [Blob(*row) for row in rows.fetchall()]

    def _keep_results(self, number: int, results: Sequence[Blob]) -> None:
        self._database.executemany(
            "INSERT INTO results VALUES (?, ?, ?, ?)", [(number, blob.role, blob.sha256, blob.size) for blob in results]
        )
        owner, spec = self.spec(number)
        if isinstance(spec, TrainSpec):
            subject = spec.subject
            self._database.executemany(
                "INSERT OR REPLACE INTO subjects VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (owner, blob.sha256, subject.name, subject.token, subject.class_word, spec.model, time.time())
                    for blob in results
                    if blob.role == "subject"
                ],
            )

    @contextmanager
    def _committed(self) -> Iterator[None]:
        """All of the block, on disk, or nothing of it. Raises OutOfSpace where the disk takes no more."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._commit()
        except BaseException as error:
            if self._database.in_transaction:  # a full disk makes SQLite roll back by itself
                self._database.execute("ROLLBACK")
            raise _explained(error) from error

    def _commit(self) -> None:
        self._database.execute("COMMIT")


def _explained(error: BaseException) -> BaseException:
    full = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    if not isinstance(error, sqlite3.OperationalError) or error.sqlite_errorcode & 0xFF not in full:
        return error
    space: MotionBoothError = OutOfSpace(
        f"The backend cannot write to its disk ({error}): free some space there and try again; nothing was lost."
    )
    return space
