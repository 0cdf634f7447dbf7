"""What the server answers to each request of a key that was let in. Knows nothing of sockets."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from motionbooth_protocol import messages
from motionbooth_protocol.errors import Malformed, NotAuthorized, OverLimit
from motionbooth_protocol.jobs import Job, JobState
from motionbooth_protocol.limits import MAX_WORKERS, PROTOCOL_VERSION
from msgspec.structs import replace

from motionbooth.server import worker_pipe
from motionbooth.server.blobs import Blobs
from motionbooth.server.keys import AuthorizedKeys, Key
from motionbooth.server.retention import Cleaner
from motionbooth.server.scheduler import Scheduler, WorkerState
from motionbooth.server.store import Store

Answer = tuple[messages.AnyReply, bytes | None]
DEFAULT_LIMITS = messages.Limits(waiting_jobs=10_000, requests_per_second=1000)  # of one key


class Answers:
    """`home` is the backend's folder, `server` the name by which it greets, `limits` what one key may use.

    `progress`, `pictures`: of each running job, by its number in the store, the latest; whoever hears it writes it
    there.
    """

    def __init__(
        self,
        home: Path,
        server: str,
        models: list[messages.ModelInfo],
        authorized: AuthorizedKeys,
        store: Store,
        blobs: Blobs,
        scheduler: Scheduler,
        cleaner: Cleaner,
        limits: messages.Limits = DEFAULT_LIMITS,
    ) -> None:
        self.limits = limits
        self.progress: dict[int, messages.Progress] = {}
        self.pictures: dict[int, worker_pipe.Pictured] = {}
        self._home = home
        self._server = server
        self._version = version("motionbooth")
        self._models = models
        self._authorized = authorized
        self._store = store
        self._blobs = blobs
        self._scheduler = scheduler
        self._cleaner = cleaner
        self._began = time.monotonic()
        self._handlers: dict[type[messages.AnyRequest], Callable[[Key, Any], messages.AnyReply]] = {
            messages.Submit: self._on_submit,
            messages.Get: self._on_get,
            messages.GetSpec: self._on_get_spec,
            messages.ListJobs: self._on_list_jobs,
            messages.ListSubjects: self._on_list_subjects,
            messages.Cancel: self._on_cancel,
            messages.Forget: self._on_forget,
            messages.GetStatus: self._on_get_status,
            messages.Put: self._on_put,
            messages.Ping: self._on_ping,
            messages.Bye: self._on_ping,
        }

    def welcome(self, key: Key, request: messages.Hello) -> messages.Welcome:
        """The greeting to a client that speaks our major version."""
        return messages.Welcome(
            re=request.id, server=self._server, version=PROTOCOL_VERSION, models=self._models,
            limits=self.limits, role=key.role, name=key.name,
        )  # fmt: skip

    def answer(self, key: Key, request: messages.AnyRequest, payload: bytes | None) -> Answer:
        """Raises MotionBoothError, which is the answer then."""
        if isinstance(request, messages.PutChunk):
            return self._on_put_chunk(key, request, payload), None
        if payload is not None:
            raise Malformed(f"{type(request).__name__} has no payload.")
        if isinstance(request, messages.Fetch):
            return self._on_fetch(key, request)
        return self._handlers[type(request)](key, request), None

    def number(self, key: Key, job: str) -> int:
        """The store's number for a job that this key may see. Raises NotFound."""
        return self._store.number(key.public, job, everybodys=key.is_admin)

    def snapshot(self, request_id: int, number: int) -> messages.Snapshot:
        """The job as it is now."""
        job = self.told(self._store.job(number))
        return messages.Snapshot(re=request_id, job=job, last_seq=self._store.last_seq(number))

    def told(self, job: Job) -> Job:
        """With the name of its owner's key instead of the key."""
        return replace(job, owner=self._authorized.name(job.owner))

    # Jobs

    def _on_submit(self, key: Key, request: messages.Submit) -> messages.AnyReply:
        if request.priority > 0 and not key.is_admin:
            raise NotAuthorized(
                "Priorities above 0 go before everybody's jobs and are for admins: send the job with 0 or less, or ask "
                "the backend's owner for that role."
            )
        if not self._store.knows(key.public, request.job):
            self._check_limits(key)
        job, cached = self._scheduler.submit(key.public, request.job, request.spec, request.priority)
        return messages.Accepted(re=request.id, job=job.id, state=job.state, cached=cached)

    def _on_get(self, key: Key, request: messages.Get) -> messages.AnyReply:
        return self.snapshot(request.id, self.number(key, request.job))

    def _on_get_spec(self, key: Key, request: messages.GetSpec) -> messages.AnyReply:
        number = self.number(key, request.job)
        spec, priority = self._store.spec(number)[1], self._store.job(number).priority
        return messages.Spec(re=request.id, job=request.job, spec=spec, priority=priority)

    def _on_list_jobs(self, key: Key, request: messages.ListJobs) -> messages.AnyReply:
        if request.all and not key.is_admin:
            raise NotAuthorized("Everybody's jobs are for admins; ask the backend's owner for that role.")
        jobs = self._store.jobs(None if request.all else key.public, request.limit)
        return messages.Jobs(re=request.id, jobs=[self.told(job) for job in jobs])

    def _on_list_subjects(self, key: Key, request: messages.ListSubjects) -> messages.AnyReply:
        return messages.Subjects(re=request.id, subjects=self._store.subjects(key.public))

    def _on_cancel(self, key: Key, request: messages.Cancel) -> messages.AnyReply:
        state = self._scheduler.cancel(self.number(key, request.job))
        return messages.Canceling(re=request.id, job=request.job, state=JobState(state))

    def _on_forget(self, key: Key, request: messages.Forget) -> messages.AnyReply:
        # For one's own jobs only: an admin may stop what others do, not take away what they have.
        if self._store.knows(key.public, request.job):
            for sha256 in self._store.forget(self._store.number(key.public, request.job)):
                self._blobs.remove(sha256)
        return messages.Forgotten(re=request.id, job=request.job)

    # Files

    def _on_put(self, key: Key, request: messages.Put) -> messages.AnyReply:
        if not self._blobs.has(request.sha256):
            self._check_space(key, request.size, request.sha256)
        offset = self._blobs.begin(key.public, request.sha256, request.size)
        return self._have(key, request, offset)

    def _on_put_chunk(self, key: Key, request: messages.PutChunk, payload: bytes | None) -> messages.AnyReply:
        if not payload:
            raise Malformed("PutChunk needs its bytes as payload.")
        return self._have(key, request, self._blobs.append(key.public, request.sha256, request.offset, payload))

    def _have(self, key: Key, request: messages.Put | messages.PutChunk, offset: int) -> messages.PutHave:
        """Where the file is complete now it is the owner's: noted on disk before it is told."""
        if self._blobs.has(request.sha256):
            self._store.holdings.hold(key.public, request.sha256, self._blobs.size(request.sha256))
        return messages.PutHave(re=request.id, sha256=request.sha256, offset=offset)

    def _on_fetch(self, key: Key, request: messages.Fetch) -> Answer:
        data, eof = self._blobs.read(request.sha256, request.offset, request.length)
        if eof:
            self._store.holdings.note_fetched(key.public, request.sha256)
        return messages.Chunk(re=request.id, sha256=request.sha256, offset=request.offset, eof=eof), data

    # The backend

    def _on_ping(self, key: Key, request: messages.Ping | messages.Bye) -> messages.AnyReply:
        return messages.Pong(re=request.id)

    def _on_get_status(self, key: Key, request: messages.GetStatus) -> messages.AnyReply:
        counts = self._store.counts()
        states = {state: counts.get(state, 0) for state in ("queued", "running", "done", "failed", "canceled")}
        return messages.Status(
            re=request.id, server=self._server, version=self._version,
            uptime=time.monotonic() - self._began, **states, sessions=0,
            disk_free=shutil.disk_usage(self._home).free, store_bytes=self._store.holdings.used(),
            workers=[self._worker(key, worker) for worker in self._scheduler.workers()[:MAX_WORKERS]],
        )  # fmt: skip

    def _worker(self, key: Key, worker: WorkerState) -> messages.WorkerInfo:
        place = worker.place
        info = messages.WorkerInfo(name=place.name, state=worker.state, device=place.device, model=worker.model)
        if worker.job is None:
            return info
        job = self._store.job(worker.job)
        is_told = key.is_admin or job.owner == key.public
        info = replace(
            info, model=job.model, kind=job.kind,
            job=job.id if is_told else None, owner=self._authorized.name(job.owner) if key.is_admin else "",
        )  # fmt: skip
        progress = self.progress.get(worker.job)
        return info if progress is None else replace(info, progress=progress.report)

    # Limits

    def _check_limits(self, key: Key) -> None:
        most = self.limits.waiting_jobs
        if most and self._store.waiting(key.public) >= most:
            raise OverLimit(
                f"You have {most} jobs waiting, as many as the backend takes from one key: wait for some of them, or "
                "cancel some."
            )
        self._check_space(key, 0)

    def _check_space(self, key: Key, size: int, sha256: str = "") -> None:
        """Whether the key may have so many bytes more, for the file `sha256` where it is one."""
        quota = self.limits.quota_bytes
        if not quota:
            return
        used = self._store.holdings.used_by(key.public) + self._blobs.incoming(key.public, but=sha256)
        if used + size > quota:
            self._cleaner.make_room(key.public, used + size - quota)
            used = self._store.holdings.used_by(key.public) + self._blobs.incoming(key.public, but=sha256)
        if used + size > quota:
            raise OverLimit(
                f"Your files on the backend take {used / 1e9:.2f} GB of the {quota / 1e9:.2f} GB that each key has, "
                f"and this needs {size / 1e9:.2f} GB more. Remove old jobs (forget them), or ask the backend's owner "
                "for more."
            )
