"""The messages of protocol version 1. README.md beside this file is their written specification.

Every request carries an `id` chosen by the client, counting up from 1; its reply names it in `re`. Messages that the
server sends of its own accord (events, progress, previews) have `re = 0`. What came with a later minor version says so.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from .jobs import Blob, Job, JobId, JobSpec, State
from .limits import (
    CHUNK_BYTES,
    CHUNKS_IN_FLIGHT,
    MAX_BLOB_BYTES,
    MAX_FRAMES,
    MAX_LISTED,
    MAX_NAME,
    MAX_PICTURES,
    MAX_SUBJECTS,
    MAX_WORKERS,
)
from .motion import Sha256

Count = Annotated[int, Meta(ge=0, lt=2**53)]
Size = Annotated[int, Meta(ge=0, le=MAX_BLOB_BYTES)]
Short = Annotated[str, Meta(max_length=MAX_NAME)]
Role = Annotated[str, Meta(pattern=r"\A(user|admin)\Z")]


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


class GetSpec(Request, frozen=True, tag=True):
    """What a job asked for. Since 1.1. A job is tried once more by sending its spec under a new id."""

    job: JobId


class ListJobs(Request, frozen=True, tag=True):
    """`all` (since 1.1): everybody's jobs; for admins."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LISTED)] = 100
    all: bool = False


class ListSubjects(Request, frozen=True, tag=True):
    """Trained subjects that this key may use."""


class Cancel(Request, frozen=True, tag=True):
    """An admin may cancel anybody's job."""

    job: JobId


class Forget(Request, frozen=True, tag=True):
    """Remove an ended job, and the files that no other job needs. Since 1.1."""

    job: JobId


class GetStatus(Request, frozen=True, tag=True):
    """How the backend is doing. Since 1.1."""


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


AnyRequest = (
    Hello
    | Submit
    | Attach
    | Get
    | GetSpec
    | ListJobs
    | ListSubjects
    | Cancel
    | Forget
    | GetStatus
    | Put
    | PutChunk
    | Fetch
    | Ping
    | Bye
)


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
    """A trained subject: `weights` goes into SubjectTrack.weights.

    `picture` (since 1.1): a png that shows it, of `picture_size` bytes, to be fetched like any blob.
    """

    name: Short
    token: Short
    class_word: Short
    model: Short
    weights: Sha256
    created: float
    picture: Sha256 | None = None
    picture_size: Size = 0


class Limits(Struct, frozen=True):
    """What the backend takes from one key. 0: no limit of the backend's own."""

    blob_bytes: Count = MAX_BLOB_BYTES
    chunk_bytes: Count = CHUNK_BYTES
    chunks_in_flight: Count = CHUNKS_IN_FLIGHT
    frames: Count = MAX_FRAMES
    subjects: Count = MAX_SUBJECTS
    pictures: Count = MAX_PICTURES
    quota_bytes: Count = 0  # of uploads and results, together
    waiting_jobs: Count = 0  # queued and running
    requests_per_second: Count = 0  # chunks apart; beyond it: Error(busy), to be tried again in a while


class Welcome(Reply, frozen=True, tag=True):
    """`limits`, and the `role` and `name` of the client's key: since 1.1."""

    server: Short
    major: Count
    minor: Count
    models: list[ModelInfo]
    limits: Limits = Limits()
    role: Role = "user"
    name: Short = ""


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
    """How far a running job is; latest value only, dropped rather than queued. `step` of `steps` within `stage`;
    `seconds_left` of the whole job, as far as the worker can tell.
    """

    job: JobId
    stage: Short
    step: Count
    steps: Count
    seconds_left: float | None = None
    note: str = ""


class Preview(Reply, frozen=True, tag=True):
    """A small picture of a running job so far, with its JPEG or PNG bytes as payload; dropped like progress. Since 1.1.

    The picture is `width` x `height` pixels and has at most PREVIEW_BYTES bytes; it shows `step` of `steps` of `stage`.
    """

    job: JobId
    stage: Short
    step: Count
    steps: Count
    width: Count
    height: Count


class Spec(Reply, frozen=True, tag=True):
    """Answer to GetSpec."""

    job: JobId
    spec: JobSpec
    priority: int = 0


class Jobs(Reply, frozen=True, tag=True):
    jobs: list[Job]


class Subjects(Reply, frozen=True, tag=True):
    subjects: list[SubjectInfo]


class Canceling(Reply, frozen=True, tag=True):
    job: JobId
    state: State


class Forgotten(Reply, frozen=True, tag=True):
    """The job is gone, or was never there."""

    job: JobId


class WorkerInfo(Struct, frozen=True):
    """One worker and what it runs. `job` is told to its owner and to admins only, `owner` (a name) to admins."""

    name: Short
    state: Annotated[str, Meta(pattern=r"\A(starting|idle|running)\Z")]
    device: Short = ""
    model: Short = ""  # that it holds in memory
    job: JobId | None = None
    owner: Short = ""
    kind: Short = ""
    stage: Short = ""
    step: Count = 0
    steps: Count = 0
    seconds_left: float | None = None  # of the whole job


class Status(Reply, frozen=True, tag=True):
    """Answer to GetStatus. Counts of everybody's jobs, ended ones as far as the store still has them."""

    server: Short
    version: Short
    uptime: float  # seconds
    queued: Count
    running: Count
    done: Count
    failed: Count
    canceled: Count
    sessions: Count
    disk_free: Count  # bytes
    store_bytes: Count  # that the files of all jobs take
    workers: Annotated[list[WorkerInfo], Meta(max_length=MAX_WORKERS)] = []


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
    | Preview
    | Spec
    | Jobs
    | Subjects
    | Canceling
    | Forgotten
    | Status
    | PutHave
    | Chunk
    | Pong
    | Draining
    | Error
)
