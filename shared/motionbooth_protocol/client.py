"""A blocking client of the backend, for a script or for a thread of its own. Needs pyzmq; no bpy, no torch.

A connection that breaks is made again here and not by ZeroMQ, which would never try again after a refusal, and would
send into a session that the server does not know. Every request may be sent twice without harm, so whatever was under
way is asked again on the new connection.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Container
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

import msgspec
import zmq

from . import messages
from .codec import decode_reply, encode
from .connection import Connection
from .errors import (
    Canceled,
    Damaged,
    InvalidInput,
    JobFailed,
    Malformed,
    NoSession,
    NotFound,
    OutOfSpace,
    Unreachable,
    by_code,
    is_disk_full,
)
from .jobs import TERMINAL_STATES, Blob, Job, JobSpec
from .limits import CHUNK_BYTES, CHUNKS_IN_FLIGHT, MAX_BLOB_BYTES, PROTOCOL_MAJOR, PROTOCOL_MINOR
from .link import Link, WrongServer

_QUIET_SECONDS = 5.0  # of a followed job, before the client asks whether the server is still there
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds between attempts to connect again

ReplyType = TypeVar("ReplyType", bound=messages.Reply)
Result = TypeVar("Result")
OnBytes = Callable[[int, int], None]  # bytes that are over, of how many


def new_job_id() -> str:
    """An id for a job that nobody has used."""
    return uuid.uuid4().hex


class Client:
    """A session with one backend, to be used by one thread at a time.

    `timeout`: seconds for one answer, and for the first connection. `patience`: seconds for which a transfer, a
    submission or the following of a job goes on trying after the backend was last heard. `stop`: once set, waiting
    raises Canceled.
    """

    def __init__(
        self,
        connection: Connection,
        timeout: float = 10.0,
        patience: float = 300.0,
        stop: threading.Event | None = None,
        name: str = "",
    ) -> None:
        self._connection = connection
        self._timeout = timeout
        self._patience = patience
        self._stop = stop or threading.Event()
        self._name = name
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._ids = itertools.count(1)
        self._link: Link | None = None
        self._welcome: messages.Welcome | None = None
        self._heard_at = float("-inf")

    def __enter__(self) -> Client:
        try:
            self.connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session; jobs go on. The client cannot be used after that."""
        if self._link is not None:
            with contextlib.suppress(Unreachable):  # the end is what was wanted
                self._send(messages.Bye(id=0))
            self._drop_link(linger_milliseconds=200)
        self._context.term()

    def connect(self) -> messages.Welcome:
        """Connect if that is still to be done; the server's greeting.

        Raises Unreachable, NotAuthorized or VersionMismatch, each with what to do about it.
        """
        if self._link is None or self._welcome is None:
            self._link = Link(self._context, self._connection, self._timeout, self._stop)
            hello = messages.Hello(id=0, major=PROTOCOL_MAJOR, minor=PROTOCOL_MINOR, client=self._name)
            try:
                self._welcome = self._ask(hello, messages.Welcome)
            except BaseException:
                self._drop_link()
                raise
        return self._welcome

    def ping(self) -> float:
        """Seconds that the server took to answer."""

        def once() -> float:
            began = time.monotonic()
            self._ask(messages.Ping(id=0), messages.Pong)
            return time.monotonic() - began

        return self._persist(once, self._timeout)

    def models(self) -> list[messages.ModelInfo]:
        """The base models that the backend can run."""
        return self.connect().models

    def jobs(self, limit: int = 100) -> list[Job]:
        """This key's jobs, newest first."""
        return self._persist(lambda: self._ask(messages.ListJobs(id=0, limit=limit), messages.Jobs).jobs, self._timeout)

    def subjects(self) -> list[messages.SubjectInfo]:
        """This key's trained subjects, newest first."""
        return self._persist(lambda: self._ask(messages.ListSubjects(id=0), messages.Subjects).subjects, self._timeout)

    def get(self, job: str) -> Job:
        """The job as it is now. Raises NotFound."""
        return self._persist(lambda: self._ask(messages.Get(id=0, job=job), messages.Snapshot).job, self._timeout)

    def submit(self, job: str, spec: JobSpec, priority: int = 0) -> messages.Accepted:
        """Send a job under an id of your own (`new_job_id`); sent twice, it is one job. Afterwards it is on disk.

        Raises Conflict where the id was used for another spec, NotFound where a file it names was not uploaded.
        """
        request = messages.Submit(id=0, job=job, spec=spec, priority=priority)
        return self._persist(lambda: self._ask(request, messages.Accepted), self._patience)

    def cancel(self, job: str) -> str:
        """Cancel a job; its state after that: "running" until its worker has stopped."""
        request = messages.Cancel(id=0, job=job)
        return self._persist(lambda: self._ask(request, messages.Canceling).state, self._timeout)

    def follow(
        self,
        job: str,
        on_progress: Callable[[messages.Progress], None] | None = None,
        on_event: Callable[[messages.Event], None] | None = None,
    ) -> Job:
        """Wait until the job is done, through broken networks and restarts of the server.

        `on_event` gets each change of state once, in order; `on_progress` what comes of progress.
        Raises JobFailed with the reason, Canceled, NotFound, or Unreachable after the client's patience.
        """
        last_seq = 0

        def heed(message: messages.AnyReply) -> bool:
            """Whether the message ends the job."""
            nonlocal last_seq
            if isinstance(message, messages.Progress) and message.job == job and on_progress is not None:
                on_progress(message)
            elif isinstance(message, messages.Event) and message.job == job and message.seq > last_seq:
                last_seq = message.seq
                if on_event is not None:
                    on_event(message)
                return message.state in TERMINAL_STATES
            return False

        def once() -> Job:
            snapshot = self._ask(messages.Attach(id=0, job=job, after_seq=last_seq), messages.Snapshot)
            if snapshot.job.state in TERMINAL_STATES and snapshot.last_seq <= last_seq:
                return snapshot.job
            while not heed(self._next()):
                pass
            return self._ask(messages.Get(id=0, job=job), messages.Snapshot).job

        return _successful(self._persist(once, self._patience))

    def upload(self, path: Path, on_bytes: OnBytes | None = None) -> str:
        """Send a file, or what is missing of it there; its sha256, by which jobs name it."""
        sha256, size = _identity(path)

        def once() -> None:
            with path.open("rb") as file:
                self._send_file(file, sha256, size, on_bytes)

        self._persist_damaged(once)
        return sha256

    def fetch(self, blob: Blob, path: Path, on_bytes: OnBytes | None = None) -> None:
        """Get a result; `path` is there once it is whole and its sha256 right. A broken fetch goes on where it was."""
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
                    raise InvalidInput(f"{file.name} became shorter while it was sent; send it again.")
                in_flight.add(self._send(messages.PutChunk(id=0, sha256=sha256, offset=sent), data))
                sent += len(data)
            reply, _ = self._reply(in_flight, messages.PutHave)
            in_flight.discard(reply.re)
            have = max(have, reply.offset)
            # Another session may send the same file: go on from wherever it has got to.
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
                    raise Damaged(f"The backend's file {blob.sha256[:12]}... is shorter than it should be.")
                if on_bytes is not None:
                    on_bytes(have, blob.size)
        if digest.hexdigest() != blob.sha256:
            part.unlink()
            raise Damaged(f"What arrived is not the file {blob.sha256[:12]}...; it was thrown away. Fetch it again.")

    # Requests and replies

    def _persist(self, once: Callable[[], Result], patience: float) -> Result:
        """Do it; where the connection breaks, again on a new one, until the server was not heard for `patience` s."""
        began, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            try:
                self.connect()
                return once()
            except (Unreachable, NoSession, WrongServer):
                self._drop_link()
                never_there = self._welcome is None
                if never_there or time.monotonic() - max(began, self._heard_at) > patience:
                    raise
            if self._stop.wait(pause):
                raise Canceled("Stopped waiting for the backend.")
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _persist_damaged(self, once: Callable[[], None]) -> None:
        """A transfer; from its beginning a second time where what was kept of an earlier one proves to be spoilt."""
        try:
            self._persist(once, self._patience)
        except Damaged:
            self._persist(once, self._patience)

    def _ask(self, request: messages.AnyRequest, kind: type[ReplyType]) -> ReplyType:
        number = self._send(request)
        return self._reply((number,), kind)[0]

    def _send(self, request: messages.AnyRequest, payload: bytes | None = None) -> int:
        """Send under a new id, which is returned."""
        number = next(self._ids)
        self._connected().send(encode(msgspec.structs.replace(request, id=number), payload))
        return number

    def _reply(self, numbers: Container[int], kind: type[ReplyType]) -> tuple[ReplyType, bytes | None]:
        """The next answer to one of these requests. Raises the error that the server answers instead."""
        deadline = time.monotonic() + self._timeout
        while (left := deadline - time.monotonic()) > 0:
            received = self._receive(left, numbers)
            if received is None:
                break
            reply, payload = received
            if reply.re in numbers:
                if not isinstance(reply, kind):
                    raise Malformed(f"The backend answered {type(reply).__name__} where {kind.__name__} was due.")
                return reply, payload
        raise self._silent()

    def _next(self) -> messages.AnyReply:
        """The next message of any kind; after a while of silence the server is asked for one."""
        received = self._receive(_QUIET_SECONDS)
        if received is None:
            number = self._send(messages.Ping(id=0))
            received = self._receive(self._timeout, (number,))
        if received is None:
            raise self._silent()
        return received[0]

    def _receive(self, timeout: float, numbers: Container[int] = ()) -> tuple[messages.AnyReply, bytes | None] | None:
        """The next message; None after `timeout` seconds. Raises an error that is meant for one of these requests, or
        for the whole session; late refusals of what was given up before are passed over.
        """
        frames = self._connected().receive(timeout)
        if frames is None:
            return None
        reply, payload = decode_reply(frames)
        self._heard_at = time.monotonic()
        if isinstance(reply, messages.Draining):
            raise Unreachable(f"The backend at {self._connection.address} is stopping; jobs are kept. Start it again.")
        if isinstance(reply, messages.Error) and (reply.re == 0 or reply.re in numbers):
            raise by_code(reply.code)(reply.message)
        return reply, payload

    def _connected(self) -> Link:
        if self._link is None:
            raise Unreachable("There is no connection to the backend.")
        return self._link

    def _drop_link(self, linger_milliseconds: int = 0) -> None:
        if self._link is not None:
            self._link.close(linger_milliseconds)
        self._link = None

    def _silent(self) -> Unreachable:
        return Unreachable(
            f"The backend at {self._connection.address} is there but did not answer for {self._timeout:.0f} s. It may "
            "be overloaded or hang: look at its log, or start it again."
        )


def _successful(job: Job) -> Job:
    if job.state == "failed":
        raise JobFailed(job.error)
    if job.state == "canceled":
        raise Canceled("The job was canceled.")
    return job


def _identity(path: Path) -> tuple[str, int]:
    """sha256 and size of a file that is to be sent."""
    try:
        with path.open("rb") as file:
            digest, size = _digest_so_far(file)
    except FileNotFoundError:
        raise NotFound(f"There is no file {path}.") from None
    except OSError as error:
        raise InvalidInput(f"The file {path} cannot be read ({error.strerror}).") from error
    if size > MAX_BLOB_BYTES:
        raise InvalidInput(f"{path} has {size} bytes; at most {MAX_BLOB_BYTES} can be sent.")
    return digest.hexdigest(), size


def _digest_so_far(file: BinaryIO) -> tuple[Any, int]:
    """A hash of what the file holds, to go on with, and its size; the file stands at its end then."""
    file.seek(0)
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest, file.tell()


def _write(file: BinaryIO, offset: int, data: bytes) -> None:
    """Append, or leave the file as it was."""
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        file.truncate(offset)
        if not is_disk_full(error):
            raise
        raise OutOfSpace(
            f"The disk of {file.name} is full; free some space and fetch again, it goes on from here."
        ) from error
