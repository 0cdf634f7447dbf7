"""What the backend shows of its jobs, workers and subjects, to each viewer as far as that key may see it."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Iterator
from typing import TypeVar

import msgspec
from motionbooth_protocol import messages
from motionbooth_protocol.jobs import BACKEND_STATES, Job
from motionbooth_protocol.limits import MAX_TEXT, PAGE_BYTES, PROTOCOL_VERSION
from motionbooth_protocol.printable import on_one_line
from msgspec.structs import replace

from motionbooth.server.attempts import JobNumber
from motionbooth.server.keys import AuthorizedKeys, Key
from motionbooth.server.live_state import Counters, LiveState
from motionbooth.server.model_version import PROGRAM_VERSION
from motionbooth.server.scheduler import Scheduler, WorkerState
from motionbooth.server.settings import ServerSettings
from motionbooth.server.store import Store

Listed = TypeVar("Listed", Job, messages.SubjectInfo, messages.WorkerInfo)


class Views:
    """Reads the store and the live state; changes nothing."""

    def __init__(
        self,
        settings: ServerSettings,
        authorized: AuthorizedKeys,
        store: Store,
        scheduler: Scheduler,
        live: LiveState,
    ) -> None:
        self._settings = settings
        self._authorized = authorized
        self._store = store
        self._queries = store.queries
        self._scheduler = scheduler
        self._live = live
        self._started_at = time.monotonic()

    def welcome(self, key: Key, request_id: int) -> messages.Welcome:
        return messages.Welcome(
            re=request_id, server=self._settings.name, version=PROTOCOL_VERSION, models=self._live.models,
            limits=self._settings.limits, role=key.role, name=key.name,
        )  # fmt: skip

    def job_number(self, key: Key, job_id: str, owner: str = "") -> JobNumber:
        """`owner`: a name. Raises NotFound if there is no such job, or the key may not see it."""
        if owner and key.is_admin:
            public = next((one.public for one in self._authorized.all() if one.name == owner), "")
            return self._queries.number(public, job_id)
        return self._queries.number(key.public, job_id, any_owner=key.is_admin)

    def owner_name(self, job_number: JobNumber) -> str:
        """The name of the key that sent the job."""
        return self._authorized.name(self._queries.job(job_number).owner)

    def snapshot(self, job_number: JobNumber, request_id: int) -> messages.Snapshot:
        job = self._with_owner_name(self._queries.job(job_number))
        return messages.Snapshot(re=request_id, job=job, last_seq=self._queries.last_seq(job_number))

    def jobs(self, owner: str | None, request: messages.ListJobs) -> messages.Jobs:
        """A page of the jobs of a public key, or (None) of all; newest first."""
        found = self._queries.jobs(owner, request.limit, request.after)
        jobs, more = _page((number, self._with_owner_name(job)) for number, job in found)
        return messages.Jobs(re=request.id, jobs=jobs, more=more)

    def subjects(self, owner: str, request: messages.ListSubjects) -> messages.Subjects:
        """A page of the trained subjects of a public key, newest first."""
        found = list(enumerate(self._queries.subjects(owner), start=1))
        subjects, more = _page(iter(found[request.after :]))
        return messages.Subjects(re=request.id, subjects=subjects, more=more)

    def jobs_by_state(self, limit: int) -> list[Job]:
        """See JobQueries.jobs_by_state."""
        return [self._with_owner_name(job) for job in self._queries.jobs_by_state(limit)]

    def counters(self) -> Counters:
        """As they are now."""
        return copy.deepcopy(self._live.counters)

    def previews(self) -> dict[str, bytes]:
        """The pictures of all running jobs, JPEG or PNG, by the job's id."""
        return {self._queries.job_id(number): report.picture for number, report in self._live.previews.items()}

    def status(self, viewer: Key, request: messages.GetStatus) -> messages.Status:
        """As far as the viewer may see it, with a page of the workers."""
        workers, more = _page(self._workers(viewer, request.after))
        return replace(self._status(), re=request.id, workers=workers, more=more)

    def whole_status(self) -> messages.Status:
        """As the owner of the backend may see it, with all workers."""
        return replace(self._status(), workers=[worker for _, worker in self._workers(None)])

    def _status(self) -> messages.Status:
        counts = self._queries.counts()
        return messages.Status(
            re=0, workers=[], server=self._settings.name, version=PROGRAM_VERSION,
            uptime=time.monotonic() - self._started_at, sessions=self._live.connections,
            disk_free=shutil.disk_usage(self._settings.home).free,
            store_bytes=self._store.ownership.total_bytes(),
            problems=dict(self._live.problems),
            **{state.value: counts.get(state, 0) for state in BACKEND_STATES},
        )  # fmt: skip

    def _workers(self, viewer: Key | None, after: int = 0) -> Iterator[tuple[int, messages.WorkerInfo]]:
        for number, worker in enumerate(self._scheduler.workers()[after:], start=after + 1):
            yield number, self._worker(viewer, worker)

    def _worker(self, viewer: Key | None, worker: WorkerState) -> messages.WorkerInfo:
        device, number = worker.device, worker.job_number
        description = on_one_line(device.description)[:MAX_TEXT]  # such as the reason why a box cannot work
        info = messages.WorkerInfo(device.name, worker.state, description, worker.model)
        if number is None:
            return info
        job = self._queries.job(number)
        sees_all = viewer is None or viewer.is_admin
        sees_job = sees_all or (viewer is not None and viewer.public == job.owner)
        return replace(
            info, model=job.model, kind=job.kind, progress=self._live.progress.get(number),
            job=job.id if sees_job else None, owner=self._authorized.name(job.owner) if sees_all else "",
        )  # fmt: skip

    def _with_owner_name(self, job: Job) -> Job:
        """The store has the owner's public key, which others need not see."""
        return replace(job, owner=self._authorized.name(job.owner))


def _page(numbered: Iterator[tuple[int, Listed]]) -> tuple[list[Listed], int]:
    """As many as fit into a reply, and the number of the last one; 0 if that is the last of all."""
    page: list[Listed] = []
    size = 0
    for number, one in numbered:
        page.append(one)
        size += len(msgspec.msgpack.encode(one))
        if size >= PAGE_BYTES:
            return page, number if next(numbered, None) is not None else 0
    return page, 0
