"""The commands that the main thread sends to the connection's threads, and the events that it receives. No bpy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .._protocol.errors import ErrorReport, MotionBoothError
from .._protocol.jobs import Blob, GenerateSpec, JobState, TrainSpec
from .._protocol.messages import ModelInfo, Progress, SubjectInfo
from .job_store import TrainRequest

# Commands


@dataclass(frozen=True)
class Generate:
    job: str
    spec: GenerateSpec


@dataclass(frozen=True)
class Train:
    """Render the pictures if needed (into `folder`), upload them, and submit the training."""

    job: str
    request: TrainRequest
    folder: Path


@dataclass(frozen=True)
class Follow:
    """Receive the events after number `after_seq` of a job that was submitted before."""

    job: str
    after_seq: int = 0


@dataclass(frozen=True)
class Cancel:
    job: str


@dataclass(frozen=True)
class Remove:
    """Remove an ended job from the backend."""

    job: str


@dataclass(frozen=True)
class Fetch:
    """Download a result of a job to a file. `job` is "" for the picture of a subject."""

    job: str
    blob: Blob
    path: Path


@dataclass(frozen=True)
class Refresh:
    """List the backend's models and subjects again."""

    job: str = ""


Command = Generate | Train | Follow | Cancel | Remove | Fetch | Refresh


# Events


@dataclass(frozen=True)
class Connected:
    """There is a session with the backend, or its lists were refreshed."""

    server: str
    models: list[ModelInfo]
    subjects: list[SubjectInfo]


@dataclass(frozen=True)
class Disconnected:
    """The backend cannot be reached; the threads keep trying."""

    error: MotionBoothError


@dataclass(frozen=True)
class TrainingSubmitted:
    """The pictures of a training were uploaded, and `spec` was submitted."""

    job: str
    spec: TrainSpec


@dataclass(frozen=True)
class StateChanged:
    """A job's state, as the backend has stored it."""

    job: str
    state: JobState
    last_seq: int = 0
    error: ErrorReport | None = None
    results: list[Blob] | None = None


@dataclass(frozen=True)
class PreviewSaved:
    """A preview of a running job is in the file `path`. Only the latest one of a job is kept."""

    job: str
    path: Path


@dataclass(frozen=True)
class Fetched:
    job: str
    role: str
    path: Path


@dataclass(frozen=True)
class Refused:
    """A command that cannot be carried out, and why."""

    command: Command
    error: MotionBoothError


Event = Connected | Disconnected | TrainingSubmitted | StateChanged | Progress | PreviewSaved | Fetched | Refused
