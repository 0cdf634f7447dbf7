"""The SQLite file of a backend: opened by one server alone, brought up to date, and written in whole transactions.

EXCLUSIVE locking keeps a second server off the same file and, unlike a lock file, is gone by itself when a server is
killed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from motionbooth_protocol.errors import Conflict, InvalidInput, MotionBoothError, OutOfSpace
from motionbooth_protocol.jobs import GenerateSpec, JobSpec, TrainSpec

SCHEMA_VERSION = 3

_SCHEMA_1 = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY,  -- in order of arrival
    owner TEXT NOT NULL,         -- public key of the sender
    id TEXT NOT NULL,            -- made by the client
    kind TEXT NOT NULL,
    spec BLOB NOT NULL,
    digest TEXT NOT NULL,
    maker TEXT NOT NULL,         -- program and model that made the results: another one's are not reused
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
# Version 2: what a listing tells without decoding specs, and which files are whose and needed by what.
_SCHEMA_2 = """
ALTER TABLE jobs ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN model TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN demand TEXT NOT NULL DEFAULT '';  -- see demand_of
ALTER TABLE jobs ADD COLUMN ended REAL;  -- see Database.served, NULL until then
ALTER TABLE subjects ADD COLUMN picture TEXT;
CREATE INDEX jobs_waiting_by_owner ON jobs (priority, owner, number) WHERE state = 'queued';
CREATE INDEX jobs_waiting_by_demand ON jobs (priority, demand, number) WHERE state = 'queued';
CREATE TABLE clock (served REAL NOT NULL, numbers INTEGER NOT NULL);  -- numbers: given to jobs so far
INSERT INTO clock SELECT 0, coalesce(max(number), 0) FROM jobs;
CREATE INDEX results_by_file ON results (sha256);
CREATE TABLE needs (job INTEGER NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (job, sha256)) WITHOUT ROWID;
CREATE INDEX needs_by_file ON needs (sha256);
CREATE TABLE holdings (
    owner TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
    at REAL NOT NULL,                    -- see Database.served: when it was uploaded, made or wanted last
    fetched INTEGER NOT NULL DEFAULT 0,  -- whether its owner has it, too
    PRIMARY KEY (owner, sha256)
) WITHOUT ROWID;
CREATE INDEX holdings_by_file ON holdings (sha256);
"""
# Version 3: a job that waits for the results of a running one, its leader, has no turn meanwhile; a large store answers
# as soon as a small one.
_SCHEMA_3 = """
ALTER TABLE jobs ADD COLUMN leader INTEGER;
DROP INDEX jobs_waiting_by_owner;
DROP INDEX jobs_waiting_by_demand;
CREATE INDEX jobs_in_turn_by_owner ON jobs (priority, owner, number) WHERE state = 'queued' AND leader IS NULL;
CREATE INDEX jobs_in_turn_by_demand ON jobs (priority, demand, number) WHERE state = 'queued' AND leader IS NULL;
CREATE INDEX jobs_by_leader ON jobs (leader) WHERE leader IS NOT NULL;
CREATE INDEX jobs_by_owner ON jobs (owner, number);
CREATE INDEX jobs_by_end ON jobs (owner, ended, number);
CREATE INDEX jobs_by_id ON jobs (id);
DROP INDEX holdings_by_file;
CREATE INDEX holdings_by_file ON holdings (sha256, size);
"""

spec_decoder: msgspec.msgpack.Decoder[JobSpec] = msgspec.msgpack.Decoder(JobSpec)


class Database:
    """The database in the file `path`. Raises Conflict where another server has it open."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, timeout=2.0, isolation_level=None)
        self._served, self._opened_at = 0.0, time.monotonic()
        try:
            self._prepare(path)
            ((self._served,),) = self.rows("SELECT served FROM clock")
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        with suppress(MotionBoothError, sqlite3.Error):  # the clock alone is no reason to fail at the end
            self.keep_clock()
        self._connection.close()

    def served(self) -> float:
        """Seconds for which this database has been open in its life. Ages are told by it and not by the clock on the
        wall, which may jump: nothing gets old while no backend runs.
        """
        return self._served + time.monotonic() - self._opened_at

    def keep_clock(self) -> None:
        """Note how long it was open; what is not noted before a crash is lost."""
        with self.committed():
            self.do("UPDATE clock SET served = ?", self.served())

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self._connection.execute(statement, values).fetchall()

    def row(self, statement: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of a query, None where there is none."""
        row: tuple[Any, ...] | None = self._connection.execute(statement, values).fetchone()
        return row

    def do(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """A change, inside `committed`."""
        return self._connection.execute(statement, values)

    def do_all(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """The same change for each row of values, inside `committed`."""
        self._connection.executemany(statement, rows)

    @contextmanager
    def committed(self) -> Iterator[None]:
        """All of the block, on disk, or nothing of it; inside another such block, part of that one.

        Raises OutOfSpace where the disk takes no more.
        """
        if self._connection.in_transaction:
            yield
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self.commit()
        except BaseException as error:
            if self._connection.in_transaction:  # a full disk makes SQLite roll back by itself
                self._connection.execute("ROLLBACK")
            raise _explained(error) from error

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def faults(self) -> list[str]:
        """What SQLite's own check finds wrong with the file; nothing where it is sound."""
        return [str(line) for (line,) in self.rows("PRAGMA integrity_check") if line != "ok"]

    def _prepare(self, path: Path) -> None:
        try:
            for setting in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
                self._connection.execute(f"PRAGMA {setting}")
            with self.committed():
                ((found,),) = self.rows("PRAGMA user_version")
                if found > SCHEMA_VERSION:
                    raise InvalidInput(
                        f"The job store {path} was written by a newer MotionBooth (format {found}, this one knows "
                        f"{SCHEMA_VERSION}). Install that version again, or give this one a folder of its own with "
                        "--home."
                    )
                self._bring_up_to_date(found)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise Conflict(
                    f"Another backend is running on {path.parent}. Use that one, stop it first, or give this one a "
                    "folder of its own with --home."
                ) from None
            raise InvalidInput(
                f"The job store {path} cannot be read ({error}). Restore it from a copy, or move it away to start anew."
            ) from error

    def _bring_up_to_date(self, found: int) -> None:
        for version, schema in ((1, _SCHEMA_1), (2, _SCHEMA_2), (3, _SCHEMA_3)):
            if found < version:
                for statement in schema.split(";"):
                    self.do(statement)
        if found == 1:
            self._fill_version_2()
        self.do(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _fill_version_2(self) -> None:
        for number, packed in self.rows("SELECT number, spec FROM jobs"):
            spec = spec_decoder.decode(packed)
            self.do(
                "UPDATE jobs SET name = ?, model = ?, demand = ? WHERE number = ?",
                name_of(spec), spec.model, demand_of(spec), number,
            )  # fmt: skip
            self.do_all("INSERT INTO needs VALUES (?, ?)", [(number, sha256) for sha256 in sorted(files_of(spec))])
        self.do("UPDATE jobs SET ended = 0 WHERE state IN ('done', 'failed', 'canceled')")
        self.do(
            "INSERT OR IGNORE INTO holdings SELECT owner, sha256, size, 0, 0 FROM results "
            "JOIN jobs ON jobs.number = results.job"
        )
        self.do(
            "INSERT OR IGNORE INTO holdings SELECT owner, sha256, 0, 0, 0 FROM needs "
            "JOIN jobs ON jobs.number = needs.job"
        )


def files_of(spec: JobSpec) -> set[str]:
    """The sha256 of every file that a job needs."""
    if isinstance(spec, TrainSpec):
        pictures = spec.subject.pictures
        return {sha for picture in pictures for sha in (picture.image, picture.mask) if sha is not None}
    assert isinstance(spec, GenerateSpec)
    return {track.weights for track in spec.shot.subjects if track.weights is not None}


def name_of(spec: JobSpec) -> str:
    """What the animator calls it: the subject's name, or the shot's."""
    return spec.subject.name if isinstance(spec, TrainSpec) else spec.shot.name


def demand_of(spec: JobSpec) -> str:
    """What a worker must have in memory to begin at once: the base model, then the subjects that it knows.

    "" where nothing stays in memory that another job could use: a training needs a model of its own.
    """
    if isinstance(spec, TrainSpec):
        return ""
    weights = dict.fromkeys(track.weights for track in spec.shot.subjects if track.weights is not None)
    return " ".join([spec.model, *weights])


def _explained(error: BaseException) -> BaseException:
    full = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    if not isinstance(error, sqlite3.OperationalError) or error.sqlite_errorcode & 0xFF not in full:
        return error
    return OutOfSpace(
        f"The backend cannot write to its disk ({error}): free some space there and try again; nothing was lost."
    )
