"""The SQLite file of a backend: opened by one server at a time, and written in whole transactions.

EXCLUSIVE locking keeps a second server off the file. Unlike a lock file, it ends with a killed server.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from motionbooth_protocol.errors import Conflict, ErrorReport, InvalidInput, MotionBoothError, OutOfSpace

SCHEMA_VERSION = 7  # raised with every change; a file of another version is refused
_PAGES_AT_ONCE = 128  # half a MiB, which takes some milliseconds

_SCHEMA = """
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY,         -- in order of arrival
    owner TEXT NOT NULL,                -- public key of the sender
    id TEXT NOT NULL,                   -- made by the client
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    model TEXT NOT NULL,
    affinity_key TEXT,                  -- see specs.AffinityKey
    spec BLOB NOT NULL,
    spec_bytes INTEGER NOT NULL,        -- its length, for the index
    digest TEXT NOT NULL,
    model_version TEXT NOT NULL,        -- program and model that make the results (not reused for others)
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    worker_deaths INTEGER NOT NULL DEFAULT 0,
    canceling INTEGER NOT NULL DEFAULT 0,
    coalesced_with INTEGER,             -- the running job whose results this queued one waits for
    error TEXT,                         -- an ErrorReport as JSON
    created REAL NOT NULL,
    updated REAL NOT NULL,
    ended REAL,                         -- see Database.seconds_open
    UNIQUE (owner, id)
);
CREATE INDEX jobs_by_state ON jobs (state, priority DESC, number);
CREATE INDEX jobs_by_digest ON jobs (owner, digest, state);
CREATE INDEX assignable_by_owner ON jobs (priority, owner, number) WHERE state = 'queued' AND coalesced_with IS NULL;
CREATE INDEX assignable_by_affinity ON jobs (priority, affinity_key, number)
    WHERE state = 'queued' AND coalesced_with IS NULL;
CREATE INDEX coalesced_jobs ON jobs (coalesced_with) WHERE coalesced_with IS NOT NULL;
CREATE INDEX jobs_by_owner ON jobs (owner, number);
CREATE INDEX spec_bytes_by_owner ON jobs (owner, spec_bytes);
CREATE INDEX jobs_by_end ON jobs (owner, ended, number);
CREATE INDEX jobs_by_id ON jobs (id);
CREATE TABLE events (
    job INTEGER NOT NULL, seq INTEGER NOT NULL, state TEXT NOT NULL, attempt INTEGER NOT NULL,
    error TEXT, at REAL NOT NULL, PRIMARY KEY (job, seq)
) WITHOUT ROWID;
CREATE TABLE inputs (job INTEGER NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (job, sha256)) WITHOUT ROWID;
CREATE INDEX inputs_by_file ON inputs (sha256);
CREATE TABLE results (
    job INTEGER NOT NULL, role TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (job, role)
) WITHOUT ROWID;
CREATE INDEX results_by_file ON results (sha256);
CREATE TABLE subjects (
    owner TEXT NOT NULL, weights TEXT NOT NULL, name TEXT NOT NULL, token TEXT NOT NULL, class_word TEXT NOT NULL,
    model TEXT NOT NULL, created REAL NOT NULL, picture TEXT, PRIMARY KEY (owner, weights)
) WITHOUT ROWID;
CREATE TABLE file_owners (
    owner TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
    used_at REAL NOT NULL,                      -- uploaded, made or named last (see Database.seconds_open)
    downloaded INTEGER NOT NULL DEFAULT 0,      -- whether its owner has a copy
    PRIMARY KEY (owner, sha256)
) WITHOUT ROWID;
CREATE INDEX owners_by_file ON file_owners (sha256, size);
CREATE TABLE counters (seconds_open REAL NOT NULL, last_job_number INTEGER NOT NULL);
INSERT INTO counters VALUES (0, 0);
"""


class Database:
    """The database in the file `path`. Raises Conflict if another server has it open."""

    def __init__(self, path: Path) -> None:
        self.on_full: Callable[[], None] = lambda: None  # called when a write failed for lack of space
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_emptied(path)
        path.touch(mode=0o600)
        self._connection = sqlite3.connect(path, timeout=2.0, isolation_level=None)
        self._seconds_before, self._opened_at = 0.0, time.monotonic()
        try:
            self._prepare(path)
            ((self._seconds_before,),) = self.rows("SELECT seconds_open FROM counters")
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        with suppress(MotionBoothError, sqlite3.Error):  # losing the count of seconds is no reason to fail
            self.save_seconds_open()
        self._connection.close()

    def seconds_open(self) -> float:
        """Seconds for which the database has been open in its life.

        Ages are measured by this clock and not by the system's, which may jump; nothing ages while no backend runs.
        """
        return self._seconds_before + time.monotonic() - self._opened_at

    def save_seconds_open(self) -> None:
        """A crash loses the seconds since the last call."""
        with self.transaction():
            self.execute("UPDATE counters SET seconds_open = ?", self.seconds_open())

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        try:
            return self.execute(statement, *values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._translated(error) from error

    def row(self, statement: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of a query, or None."""
        row: tuple[Any, ...] | None = self.execute(statement, *values).fetchone()
        return row

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Run a statement; a change belongs inside `transaction`. Raises MotionBoothError if the file is damaged."""
        try:
            return self._connection.execute(statement, values)
        except sqlite3.DatabaseError as error:
            raise self._translated(error) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit the changes of the block to disk, or none of them. A nested block is part of the outer one.

        Raises OutOfSpace if the disk is full.
        """
        if self._connection.in_transaction:
            yield
            return
        try:
            self.execute("BEGIN IMMEDIATE")
            yield
            self.commit()
        except BaseException as error:
            if self._connection.in_transaction:  # SQLite itself rolls back on a full disk
                self.execute("ROLLBACK")
            raise self._translated(error) from error

    def shrink(self) -> None:
        """Give a part of the space back to the disk that removed rows took, if it is worth it."""
        ((free_pages,),) = self.rows("PRAGMA freelist_count")
        if free_pages > _PAGES_AT_ONCE:
            try:
                # It frees a page at each step, and only executescript takes all steps of a statement without rows.
                self._connection.executescript(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")
            except sqlite3.Error as error:
                raise self._translated(error) from error

    def commit(self) -> None:
        self.execute("COMMIT")

    def integrity_faults(self) -> list[str]:
        """What SQLite's integrity check reports; empty for a sound file."""
        try:
            return [str(line) for (line,) in self.rows("PRAGMA integrity_check") if line != "ok"]
        except MotionBoothError as error:
            return [str(error)]

    def _prepare(self, path: Path) -> None:
        try:
            # auto_vacuum has to be set before anything is written.
            for setting in (
                "locking_mode = EXCLUSIVE", "auto_vacuum = INCREMENTAL", "journal_mode = WAL", "synchronous = FULL",
            ):  # fmt: skip
                self.execute(f"PRAGMA {setting}")
            with self.transaction():
                ((found,),) = self.rows("PRAGMA user_version")
                if found not in (0, SCHEMA_VERSION):
                    raise InvalidInput(
                        "The job store {path} was written by another version of MotionBooth (format {found}, this one "
                        "reads {known}). Use that version, or choose another folder with --home.",
                        path=path,
                        found=found,
                        known=SCHEMA_VERSION,
                    )
                if not found:
                    for statement in _SCHEMA.split(";\n"):
                        self.execute(statement)
                    self.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise Conflict(
                    "Another backend is running on {folder}. Use that one, stop it first, or choose another "
                    "folder with --home.",
                    folder=path.parent,
                ) from None
            raise _damaged(error) from error

    def _translated(self, error: BaseException) -> BaseException:
        # Not every error of the module sqlite3 comes from SQLite.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return _damaged(error)
        if code not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return error
        self.on_full()
        return OutOfSpace(
            "The backend cannot write to its disk ({reason}): free some space there and try again; nothing was lost.",
            reason=error,
        )


def _damaged(reason: BaseException) -> MotionBoothError:
    return MotionBoothError(
        "The backend's job store cannot be read ({reason}). Its owner must stop the backend, move jobs.sqlite and "
        "jobs.sqlite-wal from its folder to a safe place, and restore them from a backup. Without one, the backend "
        "starts with an empty store; clips and subjects are still in the folder blobs.",
        reason=reason,
    )


def _refuse_emptied(path: Path) -> None:
    """A store that has lost its contents must not look like one that never had any."""
    log = path.with_name(f"{path.name}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    was_used = any((path.parent / name).exists() for name in ("keys", "blobs"))
    is_missing = not path.exists()
    if (has_log and is_missing) or ((has_log or was_used) and not is_missing and path.stat().st_size == 0):
        raise InvalidInput(
            "The job store {path} is {how}, although it had jobs: a full disk or an incomplete copy may be the reason. "
            "Restore it from a backup; or move {names} away to start with an empty one.",
            path=path,
            how="missing" if is_missing else "empty (0 bytes)",
            names=f"{path.name}*",
        )


def encode_error(error: ErrorReport | None) -> str | None:
    return None if error is None else msgspec.json.encode(error).decode()


def decode_error(stored: str | None) -> ErrorReport | None:
    return None if stored is None else msgspec.json.decode(stored, type=ErrorReport)
