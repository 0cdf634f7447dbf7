"""What the store has on jobs, their events and the trained subjects. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from motionbooth_protocol.errors import Conflict, NotFound
from motionbooth_protocol.jobs import Blob, Job, JobSpec, JobState
from motionbooth_protocol.messages import Event, SubjectInfo

from motionbooth.server.attempts import AttemptId, JobNumber
from motionbooth.server.database import Database, decode_error

_JOB = "SELECT number, owner, id, kind, state, created, updated, attempt, error, name, model, priority FROM jobs "
_spec_decoder: msgspec.msgpack.Decoder[JobSpec] = msgspec.msgpack.Decoder(JobSpec)


class CacheKey(NamedTuple):
    """Jobs with the same cache key give the same results, as long as the model's version is the same, too."""

    owner: str
    digest: str
    model: str


class JobQueries:
    """Owners are public keys here, in `Job.owner`, too."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def number(self, owner: str, job_id: str, any_owner: bool = False) -> JobNumber:
        """Raises NotFound; for the job of another owner too, unless `any_owner`. Then Conflict if several have it."""
        rows = self._database.rows("SELECT number FROM jobs WHERE owner = ? AND id = ?", owner, job_id)
        if not rows and any_owner:
            rows = self._database.rows("SELECT number FROM jobs WHERE id = ? LIMIT 2", job_id)
        if not rows:
            raise NotFound("The backend has no job {job} of yours.", job=job_id)
        if len(rows) > 1:
            raise Conflict("Several users have a job {job}: say whose it is.", job=job_id)
        return JobNumber(rows[0][0])

    def exists(self, owner: str, job_id: str) -> bool:
        return self._database.row("SELECT 1 FROM jobs WHERE owner = ? AND id = ?", owner, job_id) is not None

    def job(self, job_number: JobNumber) -> Job:
        """Raises NotFound if the job was removed."""
        row = self._database.row(_JOB + "WHERE number = ?", job_number)
        if row is None:
            raise NotFound("The job was removed.")
        return self._as_job(row)

    def jobs(self, owner: str | None, limit: int, before: int = 0) -> Iterator[tuple[JobNumber, Job]]:
        """The owner's jobs, or (None) those of all owners, with numbers below `before` unless that is 0; newest first.

        Each is read when it is taken, as a page may not have room for all.
        """
        below = f"number < {before}" if before else "TRUE"
        order = "ORDER BY number DESC LIMIT ?"
        if owner is None:
            rows = self._database.rows(f"{_JOB}WHERE {below} {order}", limit)
        else:
            rows = self._database.rows(f"{_JOB}WHERE owner = ? AND {below} {order}", owner, limit)
        return ((JobNumber(row[0]), self._as_job(row)) for row in rows)

    def jobs_by_state(self, limit: int) -> list[Job]:
        """The running jobs, the queued ones (highest priority first) and the ended ones (newest first): up to `limit`
        of each.
        """
        found: list[tuple[Any, ...]] = []
        for condition in (
            "WHERE state = 'running' ORDER BY number",
            "WHERE state = 'queued' ORDER BY priority DESC, number",
            # The plus makes SQLite walk back from the newest job instead of sorting all that ever ended.
            "WHERE +state NOT IN ('running', 'queued') ORDER BY number DESC",
        ):
            found += self._database.rows(f"{_JOB}{condition} LIMIT ?", limit)
        return [self._as_job(row) for row in found]

    def job_id(self, job_number: JobNumber) -> str:
        """The client's id of the job. Raises NotFound if the job was removed."""
        row = self._database.row("SELECT id FROM jobs WHERE number = ?", job_number)
        if row is None:
            raise NotFound("The job was removed.")
        return str(row[0])

    def spec(self, job_number: JobNumber) -> JobSpec:
        ((spec,),) = self._database.rows("SELECT spec FROM jobs WHERE number = ?", job_number)
        return _spec_decoder.decode(spec)

    def spec_bytes(self, job_number: JobNumber) -> int:
        """What the spec takes in the store."""
        ((size,),) = self._database.rows("SELECT spec_bytes FROM jobs WHERE number = ?", job_number)
        return int(size)

    def results(self, job_number: JobNumber) -> list[Blob]:
        rows = self._database.rows("SELECT role, sha256, size FROM results WHERE job = ? ORDER BY role", job_number)
        return [Blob(*row) for row in rows]

    def cache_key(self, job_number: JobNumber) -> CacheKey:
        return CacheKey(*self._database.rows("SELECT owner, digest, model FROM jobs WHERE number = ?", job_number)[0])

    def events(self, job_number: JobNumber, after_seq: int) -> list[Event]:
        """The job's changes of state after `after_seq`, in order and without a gap. Raises NotFound."""
        job = self.job(job_number)
        rows = self._database.rows(
            "SELECT seq, state, attempt, error FROM events WHERE job = ? AND seq > ? ORDER BY seq",
            job_number,
            after_seq,
        )
        return [
            Event(job=job.id, seq=seq, state=JobState(state), attempt=attempt, error=decode_error(error),
                  results=job.results if state == JobState.DONE else [])
            for seq, state, attempt, error in rows
        ]  # fmt: skip

    def last_seq(self, job_number: JobNumber) -> int:
        ((seq,),) = self._database.rows("SELECT max(seq) FROM events WHERE job = ?", job_number)
        return int(seq or 0)

    def state(self, job_number: JobNumber) -> JobState:
        ((state,),) = self._database.rows("SELECT state FROM jobs WHERE number = ?", job_number)
        return JobState(state)

    def running(self) -> list[JobNumber]:
        return [number for (number,) in self._database.rows("SELECT number FROM jobs WHERE state = 'running'")]

    def is_running(self, id: AttemptId) -> bool:
        """Whether the job is running and this is its latest attempt."""
        query = "SELECT 1 FROM jobs WHERE number = ? AND attempt = ? AND state = 'running'"
        return self._database.row(query, *id) is not None

    def is_canceling(self, job_number: JobNumber) -> bool:
        ((canceling,),) = self._database.rows("SELECT canceling FROM jobs WHERE number = ?", job_number)
        return bool(canceling)

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state; without the states that no job is in."""
        rows = self._database.rows("SELECT state, count(*) FROM jobs GROUP BY state")
        return {JobState(state): count for state, count in rows}

    def unfinished_count(self, owner: str) -> int:
        """How many of the owner's jobs are queued or running."""
        ((count,),) = self._database.rows("SELECT count(*) FROM jobs WHERE owner = ? AND ended IS NULL", owner)
        return int(count)

    def unfinished_with(self, model: str) -> int:
        """How many jobs with this base model are queued or running."""
        ((count,),) = self._database.rows("SELECT count(*) FROM jobs WHERE model = ? AND ended IS NULL", model)
        return int(count)

    def subjects(self, owner: str) -> list[SubjectInfo]:
        """The owner's trained subjects, newest first."""
        rows = self._database.rows(
            "SELECT name, token, class_word, model, weights, created, picture, coalesce(size, 0) FROM subjects "
            "LEFT JOIN file_owners ON file_owners.owner = subjects.owner AND sha256 = picture "
            "WHERE subjects.owner = ? ORDER BY created DESC",
            owner,
        )
        return [SubjectInfo(*row) for row in rows]

    def _as_job(self, row: tuple[Any, ...]) -> Job:
        number, owner, id, kind, state, created, updated, attempt, error, name, model, priority = row
        return Job(
            id=id, kind=kind, state=JobState(state), created=created, updated=updated, attempt=attempt,
            error=decode_error(error), results=self.results(number), name=name, model=model, priority=priority,
            owner=owner,
        )  # fmt: skip
