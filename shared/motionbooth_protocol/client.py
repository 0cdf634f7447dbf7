"""A blocking client of the backend, for a script or for a thread of its own. Needs pyzmq; no bpy, no torch."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from msgspec.structs import replace

from . import messages
from .dialogue import Dialogue
from .errors import Canceled, Damaged, ErrorReport, InvalidInput, JobFailed, NotFound, OutOfSpace, is_disk_full
from .jobs import TERMINAL_STATES, Blob, Job, JobSpec, JobState, check_spec
from .limits import CHUNK_BYTES, CHUNKS_IN_FLIGHT, MAX_BLOB_BYTES, MAX_LISTED
from .reports import PreviewReport, ProgressReport

OnBytes = Callable[[int, int], None]  # bytes transferred so far, and in all


def new_job_id() -> str:
    """A new, unique job id."""
    return uuid.uuid4().hex


class Client(Dialogue):
    """A client of one backend; Dialogue documents its parameters. Not thread-safe."""

    def ping(self) -> float:
        """The round-trip time to the server, in seconds."""

        def once() -> float:
            began = time.monotonic()
            self._ask(messages.Ping(id=0), messages.Pong)
            return time.monotonic() - began

        return self._persist(once, self._timeout)

    def models(self) -> list[messages.ModelInfo]:
        """The base models that the backend can run."""
        return self.connect().models

    def published(self) -> list[messages.PublishedModel]:
        """The published models that the backend can fetch. Raises NotAuthorized for others than admins."""
        return self._request(messages.ListPublished(id=0), messages.Published).models

    def manage_model(self, name: str, action: str, license_accepted: bool = False) -> list[messages.PublishedModel]:
        """Begin an action on a published model, see ManageModel; `published` then says how far it is.

        Raises NotAuthorized, NotFound, InvalidInput without the license, Conflict if the model is in use.
        """
        request = messages.ManageModel(id=0, name=name, action=action, license_accepted=license_accepted)
        return self._request(request, messages.Published).models

    def jobs(self, limit: int = 100, all_users: bool = False) -> list[Job]:
        """This key's jobs, or those of all users (admins only); newest first."""
        found: list[Job] = []
        more = 0
        while len(found) < limit:
            request = messages.ListJobs(id=0, limit=min(limit - len(found), MAX_LISTED), all=all_users, after=more)
            page = self._request(request, messages.Jobs)
            found += page.jobs
            more = page.more
            if not more:
                break
        return found

    def status(self) -> messages.Status:
        """How the backend is doing."""
        status = self._request(messages.GetStatus(id=0), messages.Status)
        page = status
        while page.more:
            page = self._request(messages.GetStatus(id=0, after=page.more), messages.Status)
            status.workers.extend(page.workers)
        return replace(status, more=0)

    def spec(self, job: str) -> messages.Spec:
        """The spec of a job. To run the job again, submit its spec under a new id. Raises NotFound."""
        return self._request(messages.GetSpec(id=0, job=job), messages.Spec)

    def forget(self, job: str) -> None:
        """Remove an ended job, see Forget. Raises Conflict while it has not ended."""
        self._request(messages.Forget(id=0, job=job), messages.Forgotten)

    def subjects(self) -> list[messages.SubjectInfo]:
        """This key's trained subjects, newest first."""
        page = self._request(messages.ListSubjects(id=0), messages.Subjects)
        found = page.subjects
        while page.more:
            page = self._request(messages.ListSubjects(id=0, after=page.more), messages.Subjects)
            found += page.subjects
        return found

    def get(self, job: str) -> Job:
        """The job as it is now. Raises NotFound."""
        return self._request(messages.Get(id=0, job=job), messages.Snapshot).job

    def submit(self, job: str, spec: JobSpec, priority: int = 0) -> messages.Accepted:
        """Submit a job under an id of your own (see `new_job_id`); submitted twice, it is still one job.

        The job is on the backend's disk when this returns. Raises InvalidInput if a value of the spec is out of bounds,
        Conflict if the id was used for another spec, NotFound if a file that the spec names was not uploaded.
        """
        check_spec(spec)
        request = messages.Submit(id=0, job=job, spec=spec, priority=priority)
        return self._request(request, messages.Accepted, self._patience)

    def cancel(self, job: str, owner: str = "") -> JobState:
        """Cancel a job; returns its new state, which is RUNNING until its worker has stopped.

        `owner`: for admins, the name of the job's owner. Raises Conflict if several users have this id.
        """
        return self._request(messages.Cancel(id=0, job=job, owner=owner), messages.Canceling).state

    def attach(self, job: str, after_seq: int = 0) -> messages.Snapshot:
        """Subscribe `on_push` to the job's events after `after_seq`, its progress and previews, for this session."""
        return self._request(messages.Attach(id=0, job=job, after_seq=after_seq), messages.Snapshot)

    def follow(
        self,
        job: str,
        on_progress: Callable[[ProgressReport], None] | None = None,
        on_event: Callable[[messages.Event], None] | None = None,
        on_preview: Callable[[PreviewReport], None] | None = None,
    ) -> Job:
        """Wait until the job is done, across network failures and restarts of the server.

        `on_event` receives each change of state once and in order; `on_progress` and `on_preview` may miss reports.
        Raises JobFailed with the reason, Canceled, NotFound, or Unreachable after `patience` seconds of silence.
        """
        last_seq = 0

        def handle(message: messages.AnyReply) -> bool:
            """Pass the message on; True if the job has ended."""
            nonlocal last_seq
            match message:
                case messages.Progress(job=about, report=progress) if about == job and on_progress is not None:
                    on_progress(progress)
                case messages.Preview(job=about, report=preview) if about == job and on_preview is not None:
                    on_preview(preview)
                case messages.Event(job=about, seq=seq) if about == job and seq > last_seq:
                    last_seq = seq
                    if on_event is not None:
                        on_event(message)
                    return message.state in TERMINAL_STATES
            return False

        def once() -> Job:
            snapshot = self._ask(messages.Attach(id=0, job=job, after_seq=last_seq), messages.Snapshot)
            if snapshot.job.state in TERMINAL_STATES and snapshot.last_seq <= last_seq:
                return snapshot.job
            while not handle(self._next()):
                pass
            return self._ask(messages.Get(id=0, job=job), messages.Snapshot).job

        ended = self._persist(once, self._patience)
        raise_failure(ended.state, ended.error)
        return ended

    def upload(self, path: Path, on_bytes: OnBytes | None = None) -> str:
        """Upload a file, or the part that the backend lacks. Returns its sha256, by which jobs name it."""
        sha256, size = _identity(path)

        def once() -> None:
            with path.open("rb") as file:
                self._send_file(file, sha256, size, on_bytes)

        self._persist_damaged(once)
        return sha256

    def fetch(self, blob: Blob, path: Path, on_bytes: OnBytes | None = None) -> None:
        """Download a result to `path`, which appears once the sha256 is verified. A broken download is resumed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{blob.sha256[:16]}.part")

        def once() -> None:
            self._receive_file(part, blob, on_bytes)

        self._persist_damaged(once)
        part.replace(path)

    # Transfers

    def _send_file(self, file: BinaryIO, sha256: str, size: int, on_bytes: OnBytes | None) -> None:
        have = sent = self._ask(messages.Put(id=0, sha256=sha256, size=size), messages.PutHave).offset
        in_flight: set[int] = set()
        while have < size:
            while sent < size and len(in_flight) < CHUNKS_IN_FLIGHT:
                file.seek(sent)
                data = file.read(min(CHUNK_BYTES, size - sent))
                if not data:
                    raise InvalidInput("{file} became shorter during the upload; send it again.", file=file.name)
                in_flight.add(self._send(messages.PutChunk(id=0, sha256=sha256, offset=sent), data))
                sent += len(data)
            reply, _ = self._reply(in_flight, messages.PutHave)
            in_flight.discard(reply.re)
            have = max(have, reply.offset)
            # Another session may be sending the same file: continue from where the server is.
            sent = max(sent, have) if in_flight else have
            if on_bytes is not None:
                on_bytes(have, size)

    def _receive_file(self, part: Path, blob: Blob, on_bytes: OnBytes | None) -> None:
        with part.open("ab+") as file:
            digest, have = _digest_so_far(file)
            asked, in_flight, early = have, set[int](), dict[int, bytes]()
            while have < blob.size:
                while asked < blob.size and len(in_flight) < CHUNKS_IN_FLIGHT:
                    length = min(CHUNK_BYTES, blob.size - asked)
                    request = messages.Fetch(id=0, sha256=blob.sha256, offset=asked, length=length)
                    in_flight.add(self._send(request))
                    asked += length
                reply, data = self._reply(in_flight, messages.Chunk)
                in_flight.discard(reply.re)
                early[reply.offset] = data or b""
                while piece := early.pop(have, b""):
                    _write(file, have, piece)
                    digest.update(piece)
                    have += len(piece)
                if not in_flight and asked > have:
                    raise Damaged("The backend's file {sha256}... is shorter than expected.", sha256=blob.sha256[:12])
                if on_bytes is not None:
                    on_bytes(have, blob.size)
            size = os.fstat(file.fileno()).st_size  # larger if another process fetches the same file
        if digest.hexdigest() != blob.sha256 or size != blob.size:
            part.unlink(missing_ok=True)
            raise Damaged(
                "The bytes received are not the file {sha256}...; they were discarded. Fetch it again.",
                sha256=blob.sha256[:12],
            )


def raise_failure(state: JobState, error: ErrorReport | None) -> None:
    """Raises JobFailed or Canceled for a job that ended so."""
    if state == JobState.FAILED:
        raise JobFailed(error or "The job failed.")
    if state == JobState.CANCELED:
        raise Canceled("The job was canceled.")


def _identity(path: Path) -> tuple[str, int]:
    """sha256 and size in bytes of a file to upload."""
    try:
        with path.open("rb") as file:
            digest, size = _digest_so_far(file)
    except FileNotFoundError:
        raise NotFound("There is no file {path}.", path=path) from None
    except OSError as error:
        raise InvalidInput("The file {path} cannot be read ({reason}).", path=path, reason=error.strerror) from error
    if size > MAX_BLOB_BYTES:
        raise InvalidInput(
            "{path} has {size} bytes, but at most {most} can be sent.", path=path, size=size, most=MAX_BLOB_BYTES
        )
    return digest.hexdigest(), size


def _digest_so_far(file: BinaryIO) -> tuple[Any, int]:
    """The running hash and size of an open file, which is left at its end."""
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest, file.tell()


def _write(file: BinaryIO, offset: int, data: bytes) -> None:
    """Append `data` at `offset`. If the disk is full, the file keeps its old contents."""
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        file.truncate(offset)
        if not is_disk_full(error):
            raise
        raise OutOfSpace(
            "The disk of {file} is full; free some space and fetch again; the download resumes.", file=file.name
        ) from error
