"""The messages of the protocol. README.md in this folder is their written specification.

Every request carries an `id` chosen by the client, counting up from 1; its reply repeats it in `re`. Messages that the
server sends unasked (events, progress, previews) have `re = 0`.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from .errors import ErrorReport
from .jobs import Blob, Job, JobId, JobSpec, JobState
from .limits import (
    CHUNK_BYTES,
    CHUNKS_IN_FLIGHT,
    MAX_BLOB_BYTES,
    MAX_FRAMES,
    MAX_LISTED,
    MAX_PICTURES,
    MAX_SUBJECTS,
    MAX_TEXT,
)
from .motion import Sha256, Short
from .printable import PRINTABLE
from .reports import Count, PreviewReport, ProgressReport
from .text import Text

Size = Annotated[int, Meta(ge=0, le=MAX_BLOB_BYTES)]
Role = Annotated[str, Meta(pattern=r"\A(user|admin)\Z")]


class Request(Struct, frozen=True, tag=True, kw_only=True):
    id: Count


class Hello(Request, frozen=True, tag=True):
    """First message of a session."""

    version: Count
    client: Short = ""


class Submit(Request, frozen=True, tag=True):
    """A new job under an id made by the client: sent twice, it is one job."""

    job: JobId
    spec: JobSpec
    priority: Annotated[int, Meta(ge=-10, le=10)] = 0


class Attach(Request, frozen=True, tag=True):
    """Subscribe to a job: its durable events after `after_seq`, its progress and its previews."""

    job: JobId
    after_seq: Count = 0


class Get(Request, frozen=True, tag=True):
    job: JobId


class GetSpec(Request, frozen=True, tag=True):
    """Ask for the spec of a job. To run a job again, submit its spec under a new id."""

    job: JobId


class ListJobs(Request, frozen=True, tag=True):
    """`all`: the jobs of all users (admins only). `after`: where the page before ended (Jobs.more)."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LISTED)] = 100
    all: bool = False
    after: Count = 0


class ListSubjects(Request, frozen=True, tag=True):
    """Ask for the trained subjects of this key. `after`: where the page before ended (Subjects.more)."""

    after: Count = 0


class Cancel(Request, frozen=True, tag=True):
    """Cancel a job. An admin may cancel any user's job, with the user's name as `owner` if several have this id."""

    job: JobId
    owner: Short = ""


class Forget(Request, frozen=True, tag=True):
    """Remove an ended job, the subject that it trained, and the files that no other job needs."""

    job: JobId


class GetStatus(Request, frozen=True, tag=True):
    """Ask how the backend is doing. `after`: where the page of workers before ended (Status.more)."""

    after: Count = 0


class ListPublished(Request, frozen=True, tag=True):
    """Ask for the published models that the backend can fetch (admins only)."""


class ManageModel(Request, frozen=True, tag=True):
    """Begin an action on a published model, by its name in the backend's registry (admins only).

    `offer`: ask the hub for its size and license. `get`: fetch it; `license_accepted`: these licenses. `check` its
    files. `remove` it. `cancel`: end the action that runs; what was fetched is kept for the next `get`.
    """

    name: Short
    action: Annotated[str, Meta(pattern=r"\A(offer|get|check|remove|cancel)\Z")]
    license_accepted: bool = False


class Put(Request, frozen=True, tag=True):
    """Announce an upload. The reply gives the offset to send from: `size` if the server has the whole blob already."""

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
    """Check that the connection and the server's loop are alive."""


class Bye(Request, frozen=True, tag=True):
    """End the session. Jobs continue."""


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
    | ListPublished
    | ManageModel
    | Put
    | PutChunk
    | Fetch
    | Ping
    | Bye
)


class Reply(Struct, frozen=True, tag=True, kw_only=True):
    re: Count = 0


class ModelInfo(Struct, frozen=True):
    """A base model that the backend can run: `frames` frames of `width` x `height` pixels at its own `fps`.

    A longer clip, in windows, has 1 + a multiple of `frame_step` frames.
    """

    name: Short
    frames: Count
    width: Count
    height: Count
    fps: float
    title: Short = ""
    frame_step: Annotated[int, Meta(ge=1)] = 1


class SubjectInfo(Struct, frozen=True):
    """A trained subject: `weights` goes into SubjectTrack.weights.

    `picture`: a PNG that shows it, `picture_size` bytes long, to be fetched like any blob.
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
    """What the backend accepts from one key. 0: no limit."""

    blob_bytes: Count = MAX_BLOB_BYTES
    chunk_bytes: Count = CHUNK_BYTES
    chunks_in_flight: Count = CHUNKS_IN_FLIGHT
    frames: Count = MAX_FRAMES
    subjects: Count = MAX_SUBJECTS
    pictures: Count = MAX_PICTURES
    quota_bytes: Count = 0  # uploads, results and the specs of jobs together
    waiting_jobs: Count = 0  # queued and running
    # Chunks excluded; a request that keeps the server busy counts once for each 0.2 ms. Above it: Error(busy).
    requests_per_second: Count = 0


class Welcome(Reply, frozen=True, tag=True):
    """Reply to Hello. `limits`, `role` and `name` are those of the client's key."""

    server: Short
    version: Count
    models: list[ModelInfo]
    limits: Limits = Limits()
    role: Role = "user"
    name: Short = ""


class Accepted(Reply, frozen=True, tag=True):
    """Reply to Submit: the job is on disk. `cached`: its results are those of an earlier job with the same spec."""

    job: JobId
    state: JobState
    cached: bool = False


class Snapshot(Reply, frozen=True, tag=True):
    """Reply to Attach and Get: the job as it is now, and the number of its last durable event."""

    job: Job
    last_seq: Count


class Event(Reply, frozen=True, tag=True):
    """A durable change of state. Replayed from the store after a broken connection."""

    job: JobId
    seq: Count
    state: JobState
    attempt: int = 0
    error: ErrorReport | None = None
    results: list[Blob] = []


class Progress(Reply, frozen=True, tag=True):
    """How far a running job is. Only the latest counts: the server drops it rather than queue it."""

    job: JobId
    report: ProgressReport


class Preview(Reply, frozen=True, tag=True):
    """A picture of a running job so far. Dropped like progress."""

    job: JobId
    report: PreviewReport


class Spec(Reply, frozen=True, tag=True):
    """Reply to GetSpec."""

    job: JobId
    spec: JobSpec
    priority: int = 0


class Jobs(Reply, frozen=True, tag=True):
    """A page of the jobs, newest first. `more`: where it ends; 0 for the last page."""

    jobs: list[Job]
    more: Count = 0


class Subjects(Reply, frozen=True, tag=True):
    """A page of the subjects, newest first. `more`: where it ends; 0 for the last page."""

    subjects: list[SubjectInfo]
    more: Count = 0


class Canceling(Reply, frozen=True, tag=True):
    job: JobId
    state: JobState


class Forgotten(Reply, frozen=True, tag=True):
    """The job is gone, or was never there."""

    job: JobId


class WorkerInfo(Struct, frozen=True):
    """One worker and the job that it runs. `job` is shown to its owner and to admins, `owner` (a name) to admins only.

    `model`: the base model in its memory. `progress`: None while no job runs there, or before its first report.
    """

    name: Short
    state: Annotated[str, Meta(pattern=r"\A(starting|idle|running)\Z")]
    device: Annotated[str, Meta(max_length=MAX_TEXT, pattern=PRINTABLE)] = ""  # or why it cannot work
    model: Short = ""
    job: JobId | None = None
    owner: Short = ""
    kind: Short = ""
    progress: ProgressReport | None = None


class Status(Reply, frozen=True, tag=True):
    """Reply to GetStatus. Counts the jobs of all users; ended ones as long as the store keeps them.

    `workers`: a page of them. `more`: where it ends; 0 for the last page.
    """

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
    store_bytes: Count  # in the files of all jobs
    workers: list[WorkerInfo] = []
    more: Count = 0
    problems: dict[Short, Text] = {}  # what is wrong with the backend itself, by a name for programs


class ModelLicense(Struct, frozen=True):
    """The license of one repository: its name on the hub ("" if that states none), and where its text is."""

    hub: Short
    name: Short
    page: Short


class PublishedModel(Struct, frozen=True):
    """A model that can be fetched. `size`: in bytes, on the backend or on the hub; 0 while unknown.

    `licenses`: once `offer` has ended. `doing`: the action that runs, or "". `outcome`: how the last one ended.
    """

    name: Short
    title: Short
    kind: Short
    here: bool
    size: Count = 0
    licenses: list[ModelLicense] = []
    doing: Short = ""
    progress: ProgressReport | None = None
    outcome: Text | None = None
    failed: bool = False


class Published(Reply, frozen=True, tag=True):
    """Reply to ListPublished and ManageModel."""

    models: list[PublishedModel]


class Models(Reply, frozen=True, tag=True):
    """Sent unasked: the base models have changed since Welcome."""

    models: list[ModelInfo]


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
    """The request was refused, or failed."""

    report: ErrorReport
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
    | Published
    | Models
    | PutHave
    | Chunk
    | Pong
    | Draining
    | Error
)
