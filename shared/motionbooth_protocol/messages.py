"""The messages of protocol version 1. README.md beside this file is their written specification.

Every request carries an `id` chosen by the client, counting up from 1; its reply names it in `re`. Messages that the
server sends of its own accord (events, progress) have `re = 0`.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from .jobs import Blob, Job, JobId, JobSpec, State
from .limits import CHUNK_BYTES, MAX_BLOB_BYTES, MAX_LISTED, MAX_NAME
from .motion import Sha256

Count = Annotated[int, Meta(ge=0, lt=2**53)]
Size = Annotated[int, Meta(ge=0, le=MAX_BLOB_BYTES)]
Short = Annotated[str, Meta(max_length=MAX_NAME)]


class Request(Struct, frozen=True, tag=True, kw_only=True):
    id: Count


class Hello(Request, frozen=True, tag=True):
    """First message of a session."""

    major: Count
    minor: Count
    client: Short = ""


class Submit(Request, frozen=True, tag=True):
    """A new job under an id made by the client: sent twice, it is one job."""

    job: JobId
    spec: JobSpec
    priority: Annotated[int, Meta(ge=-10, le=10)] = 0


class Attach(Request, frozen=True, tag=True):
    """Follow a job: its durable events after `after_seq`, and its progress, arrive from now on."""

    job: JobId
    after_seq: Count = 0


class Get(Request, frozen=True, tag=True):
    job: JobId


class ListJobs(Request, frozen=True, tag=True):
    limit: Annotated[int, Meta(ge=1, le=MAX_LISTED)] = 100


class ListSubjects(Request, frozen=True, tag=True):
    """Trained subjects that this key may use."""


class Cancel(Request, frozen=True, tag=True):
    job: JobId


class Put(Request, frozen=True, tag=True):
    """Announce an upload; the answer says from which offset to send, `size` itself when the blob is there already."""

    sha256: Sha256
    size: Size


class PutChunk(Request, frozen=True, tag=True):
    """A piece of an upload, with its bytes as payload."""

    sha256: Sha256
    offset: Size


class Fetch(Request, frozen=True, tag=True):
    """Ask for one piece of a blob."""

    sha256: Sha256
    offset: Size
    length: Annotated[int, Meta(ge=1, le=CHUNK_BYTES)] = CHUNK_BYTES


class Ping(Request, frozen=True, tag=True):
    """Is the server's loop alive? (libzmq answers its own heartbeats even where it hangs.)"""


class Bye(Request, frozen=True, tag=True):
    """The session ends; jobs go on."""


AnyRequest = Hello | Submit | Attach | Get | ListJobs | ListSubjects | Cancel | Put | PutChunk | Fetch | Ping | Bye


class Reply(Struct, frozen=True, tag=True, kw_only=True):
    re: Count = 0


class ModelInfo(Struct, frozen=True):
    """A base model that the backend can run: `frames` frames of `width` x `height` pixels at its own `fps`."""

    name: Short
    frames: Count
    width: Count
    height: Count
    fps: float
    title: str = ""


class SubjectInfo(Struct, frozen=True):
    """A trained subject: `weights` goes into SubjectTrack.weights."""

    name: Short
    token: Short
    class_word: Short
    model: Short
    weights: Sha256
    created: float


class Welcome(Reply, frozen=True, tag=True):
    server: Short
    major: Count
    minor: Count
    models: list[ModelInfo]


class Accepted(Reply, frozen=True, tag=True):
    """The job is on disk. `cached`: it was answered from an earlier job with the same spec."""

    job: JobId
    state: State
    cached: bool = False


class Snapshot(Reply, frozen=True, tag=True):
    """Answer to Attach and Get: the job as it is now, and the number of its last durable event."""

    job: Job
    last_seq: Count


class Event(Reply, frozen=True, tag=True):
    """A durable change of state. Replayed from the store after a broken connection."""

    job: JobId
    seq: Count
    state: State
    attempt: int = 0
    error: str = ""
    results: list[Blob] = []


class Progress(Reply, frozen=True, tag=True):
    """How far a running job is; latest value only, dropped rather than queued. `step` of `steps` within `stage`."""

    job: JobId
    stage: Short
    step: Count
    steps: Count
    seconds_left: float | None = None
    note: str = ""


class Jobs(Reply, frozen=True, tag=True):
    jobs: list[Job]


class Subjects(Reply, frozen=True, tag=True):
    subjects: list[SubjectInfo]


class Canceling(Reply, frozen=True, tag=True):
    job: JobId
    state: State


class PutHave(Reply, frozen=True, tag=True):
    """The server has the first `offset` bytes; with `offset` = size the blob is complete and verified."""

    sha256: Sha256
    offset: Size


class Chunk(Reply, frozen=True, tag=True):
    """A piece of a blob, with its bytes as payload."""

    sha256: Sha256
    offset: Size
    eof: bool


class Pong(Reply, frozen=True, tag=True):
    pass


class Draining(Reply, frozen=True, tag=True):
    """The server is going away; jobs are kept. Connect again later."""


class Error(Reply, frozen=True, tag=True):
    """A refusal, in words for a person; `code` is the `code` of a class in errors.py."""

    code: Short
    message: str
    retryable: bool = False


AnyReply = (
    Welcome
    | Accepted
    | Snapshot
    | Event
    | Progress
    | Jobs
    | Subjects
    | Canceling
    | PutHave
    | Chunk
    | Pong
    | Draining
    | Error
)
