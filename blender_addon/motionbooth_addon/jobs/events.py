"""What the main thread orders from the threads of background.py, and what it hears from them. No bpy, no sockets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .._protocol.jobs import Blob, GenerateSpec, JobState
from .._protocol.messages import ModelInfo, Progress, SubjectInfo
from .job_store import TrainOrder

# What can be ordered


@dataclass(frozen=True)
class Film:
    job: str
    spec: GenerateSpec


@dataclass(frozen=True)
class Train:
    """`folder` is for pictures that have still to be rendered."""

    job: str
    order: TrainOrder
    folder: Path


@dataclass(frozen=True)
class Follow:
    """Hear of a job that was sent before: what happened after its event `after_seq`."""

    job: str
    after_seq: int = 0


@dataclass(frozen=True)
class Cancel:
    job: str


@dataclass(frozen=True)
class Forget:
    """Have the backend remove a job that has ended."""

    job: str


@dataclass(frozen=True)
class Fetch:
    """Get a result of a job into a file; `job` is "" for a picture of a subject, trained by whatever machine."""

    job: str
    blob: Blob
    path: Path


@dataclass(frozen=True)
class Look:
    """Tell once more what the backend has: it has learned a subject."""

    job: str = ""


AnyOrder = Film | Train | Follow | Cancel | Forget | Fetch | Look


# What is heard


@dataclass(frozen=True)
class Linked:
    """There is a session."""

    server: str
    models: list[ModelInfo]
    subjects: list[SubjectInfo]


@dataclass(frozen=True)
class Lost:
    """There is none, and why; it is tried again."""

    reason: str


@dataclass(frozen=True)
class Changed:
    """A job's state, as the backend has it on its disk."""

    job: str
    state: JobState
    last_seq: int
    error: str
    results: list[Blob]


@dataclass(frozen=True)
class Pictured:
    """A picture of a job under way is in `path`. Only the latest of a job is kept."""

    job: str
    path: Path


@dataclass(frozen=True)
class Fetched:
    job: str
    role: str
    path: Path


@dataclass(frozen=True)
class Refused:
    """An order that cannot be carried out, and why."""

    order: AnyOrder
    reason: str


News = Linked | Lost | Changed | Progress | Pictured | Fetched | Refused
