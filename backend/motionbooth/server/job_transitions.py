"""Every change of a job's state. Each one is a durable event, and is published only after its commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Sequence

from motionbooth_protocol.errors import Conflict, ErrorReport, MotionBoothError
from motionbooth_protocol.jobs import TERMINAL_STATES, Blob, Job, JobSpec, JobState, TrainSpec, spec_digest

from motionbooth.server.attempts import Attempt, AttemptId, JobNumber
from motionbooth.server.database import Database, encode_error
from motionbooth.server.file_ownership import FileOwnership
from motionbooth.server.job_queries import CacheKey, JobQueries
from motionbooth.server.model_version import ModelVersion
from motionbooth.server.specs import affinity_key, display_name, encode_spec, input_files, kind_of

MAX_WORKER_DEATHS = 3

_STOPPED = MotionBoothError("The backend was stopped while the job ran; the job resumes.").report


class JobTransitions:
    """Results are reused for a job with the same spec as long as `model_version(model)` is the same."""

    def __init__(
        self, database: Database, queries: JobQueries, ownership: FileOwnership, model_version: ModelVersion
    ) -> None:
        self._database = database
        self._queries = queries
        self._ownership = ownership
        self._model_version = model_version

    def submit(
        self,
        owner: str,
        job_id: str,
        spec: JobSpec,
        priority: int = 0,
        cached: Sequence[Blob] | None = None,
        digest: str = "",
    ) -> Job:
        """Store a new job, which is done at once if `cached` results are given. If the id is known, return that job.

        `digest`: that of the spec, if it is known; that of a large one takes milliseconds.
        Raises Conflict if the id was used for another spec.
        """
        digest = digest or spec_digest(spec)
        with self._database.transaction():
            known = self._database.row("SELECT number, digest FROM jobs WHERE owner = ? AND id = ?", owner, job_id)
            if known is None:
                number = self._insert(owner, job_id, spec, digest, priority)
                if cached is not None:
                    self._complete(number, cached)
            elif known[1] != digest:
                raise Conflict(
                    "The job id {job} was already used for another job; send this one under a new id.", job=job_id
                )
            else:
                number = known[0]
        return self._queries.job(number)

    # Duplicate jobs

    def find_duplicate(self, key: CacheKey, state: JobState) -> JobNumber | None:
        """The latest job in this state whose results are, or will be, valid for the cache key."""
        row = self._database.row(
            "SELECT number FROM jobs WHERE owner = ? AND digest = ? AND state = ? AND model_version = ? "
            "ORDER BY number DESC LIMIT 1",
            key.owner, key.digest, state, self._model_version(key.model),
        )  # fmt: skip
        return None if row is None else JobNumber(row[0])

    def queued_duplicates(self, key: CacheKey) -> list[JobNumber]:
        """The queued jobs with this cache key, coalesced or not."""
        query = "SELECT number FROM jobs WHERE owner = ? AND digest = ? AND state = 'queued' ORDER BY number"
        return [number for (number,) in self._database.rows(query, key.owner, key.digest)]

    def coalesce(self, job_number: JobNumber, running: JobNumber) -> None:
        """Let a queued job wait for the results of a running one, until the state of that one changes."""
        with self._database.transaction():
            self._database.execute("UPDATE jobs SET coalesced_with = ? WHERE number = ?", running, job_number)

    def complete_from_cache(self, job_number: JobNumber, results: Sequence[Blob]) -> None:
        """End a queued job with the results of a duplicate."""
        with self._database.transaction():
            self._set_model_version(job_number, self._queries.cache_key(job_number).model)
            self._complete(job_number, results)

    # Attempts

    def start(self, job_number: JobNumber) -> Attempt:
        """Count a new attempt and mark the job as running, before anything runs.

        Raises MsgspecError, and changes nothing, if the stored spec cannot be read.
        """
        spec = self._queries.spec(job_number)
        with self._database.transaction():
            self._set_model_version(job_number, spec.model)
            attempt = self._increment(job_number, "attempt")
            self._change(job_number, JobState.RUNNING)
        return Attempt(AttemptId(job_number, attempt), spec)

    def give_up(self, job_number: JobNumber, error: ErrorReport) -> None:
        """A queued job that can never start has failed."""
        with self._database.transaction():
            self._change(job_number, JobState.FAILED, error)

    # Each of these returns False, and changes nothing, if the attempt is not the running one.

    def finish(self, id: AttemptId, results: Sequence[Blob]) -> bool:
        """The attempt has succeeded."""
        return self._if_running(id, lambda: self._complete(id.job_number, results))

    def end(self, id: AttemptId, state: JobState, error: ErrorReport | None = None) -> bool:
        """The attempt has FAILED, or was CANCELED."""
        return self._if_running(id, lambda: self._change(id.job_number, state, error))

    def requeue(self, id: AttemptId, reason: ErrorReport | None = None) -> bool:
        """The attempt ended without the job's fault; another follows."""
        return self._if_running(id, lambda: self._requeue(id.job_number, reason))

    def worker_died(self, id: AttemptId, reason: ErrorReport) -> bool:
        """Another attempt follows; after MAX_WORKER_DEATHS the job has failed."""
        return self._if_running(id, lambda: self._requeue_after_death(id.job_number, reason))

    # Cancellation and restarts

    def request_cancel(self, job_number: JobNumber) -> Job:
        """Cancel a queued job at once; mark a running one, which ends when its worker has stopped."""
        with self._database.transaction():
            state = self._queries.job(job_number).state
            if state == JobState.QUEUED:
                self._change(job_number, JobState.CANCELED)
            elif state == JobState.RUNNING:
                self._database.execute("UPDATE jobs SET canceling = 1 WHERE number = ?", job_number)
        return self._queries.job(job_number)

    def requeue_running(self, adopted: Container[JobNumber] = ()) -> list[JobNumber]:
        """Requeue the running jobs except `adopted`: their server or their connection to it ended, through no fault of
        theirs that is known. Returns them.
        """
        with self._database.transaction():
            lost = [number for number in self._queries.running() if number not in adopted]
            for number in lost:
                self._requeue(number, _STOPPED)
        return lost

    # Inside a transaction

    def _insert(self, owner: str, job_id: str, spec: JobSpec, digest: str, priority: int) -> JobNumber:
        now = time.time()
        # Not SQLite's own numbering, which reuses the number of a removed job: late reports name numbers.
        self._database.execute("UPDATE counters SET last_job_number = last_job_number + 1")
        ((number,),) = self._database.rows("SELECT last_job_number FROM counters")
        affinity, encoded = affinity_key(spec), encode_spec(spec)
        self._database.execute(
            "INSERT INTO jobs (number, owner, id, kind, name, model, affinity_key, spec, spec_bytes, digest, "
            "model_version, priority, state, created, updated) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?)",
            number, owner, job_id, kind_of(spec), display_name(spec), spec.model,
            None if affinity is None else affinity.encoded(), encoded, len(encoded), digest,
            self._model_version(spec.model), priority, now, now,
        )  # fmt: skip
        for sha256 in input_files(spec):
            self._database.execute("INSERT INTO inputs VALUES (?, ?)", number, sha256)
            self._ownership.add_input(owner, sha256)
        self._change(number, JobState.QUEUED)
        return JobNumber(number)

    def _change(self, job_number: JobNumber, state: JobState, error: ErrorReport | None = None) -> None:
        """The only place that changes a state and adds a durable event."""
        ended = self._database.seconds_open() if state in TERMINAL_STATES else None
        self._database.execute(
            "UPDATE jobs SET state = ?, error = ?, updated = ?, ended = ?, coalesced_with = NULL WHERE number = ?",
            state, encode_error(error), time.time(), ended, job_number,
        )  # fmt: skip
        self._database.execute("UPDATE jobs SET coalesced_with = NULL WHERE coalesced_with = ?", job_number)
        self._database.execute(
            "INSERT INTO events SELECT number, (SELECT coalesce(max(seq), 0) + 1 FROM events WHERE job = number), "
            "state, attempt, error, updated FROM jobs WHERE number = ?", job_number,
        )  # fmt: skip

    def _set_model_version(self, job_number: JobNumber, model: str) -> None:
        """It may have changed since the submission; what counts is the one that makes the results."""
        self._database.execute(
            "UPDATE jobs SET model_version = ? WHERE number = ?", self._model_version(model), job_number
        )

    def _if_running(self, id: AttemptId, change: Callable[[], None]) -> bool:
        with self._database.transaction():
            is_running = self._queries.is_running(id)
            if is_running:
                change()
        return is_running

    def _requeue_after_death(self, job_number: JobNumber, reason: ErrorReport) -> None:
        deaths = self._increment(job_number, "worker_deaths")
        if deaths >= MAX_WORKER_DEATHS and not self._queries.is_canceling(job_number):
            given_up = MotionBoothError(
                "{reason} This happened {count} times; the job was given up.", reason=reason, count=deaths
            )
            self._change(job_number, JobState.FAILED, given_up.report)
        else:
            self._requeue(job_number, reason)

    def _requeue(self, job_number: JobNumber, reason: ErrorReport | None) -> None:
        if self._queries.is_canceling(job_number):
            self._change(job_number, JobState.CANCELED)
        else:
            self._change(job_number, JobState.QUEUED, reason)

    def _increment(self, job_number: JobNumber, column: str) -> int:
        self._database.execute(f"UPDATE jobs SET {column} = {column} + 1 WHERE number = ?", job_number)
        ((count,),) = self._database.rows(f"SELECT {column} FROM jobs WHERE number = ?", job_number)
        return int(count)

    def _complete(self, job_number: JobNumber, results: Sequence[Blob]) -> None:
        owner = self._queries.cache_key(job_number).owner
        for blob in results:
            self._database.execute(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", job_number, blob.role, blob.sha256, blob.size
            )
            self._ownership.add(owner, blob.sha256, blob.size)
        files = {blob.role: blob.sha256 for blob in results}
        if "subject" in files and isinstance(spec := self._queries.spec(job_number), TrainSpec):
            subject = spec.subject
            self._database.execute(
                "INSERT OR REPLACE INTO subjects (owner, weights, name, token, class_word, model, created, picture) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                owner, files["subject"], subject.name, subject.token, subject.class_word, spec.model, time.time(),
                files.get("samples"),
            )  # fmt: skip
        self._change(job_number, JobState.DONE)
