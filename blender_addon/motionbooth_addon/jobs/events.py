"""The commands that the main thread sends to the connection's threads, and the events that it receives. No bpy."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from .._protocol.errors import ErrorReport, MotionBoothError
from .._protocol.jobs import Blob, GenerateSpec, JobState, TrainSpec
from .._protocol.messages import ModelInfo, Progress, PublishedModel, SubjectInfo
from ..job_store import GuideRender, StyleFile, TrainRequest

# Commands


class Generate(Struct, frozen=True):
    """Upload the styles and the guide, which is rendered before, if there are any, and submit the clip."""

    job: str
    spec: GenerateSpec
    styles: list[StyleFile] = []
    guide: GuideRender | None = None

    @property
    def has_files(self) -> bool:
        return bool(self.styles) or self.guide is not None


class Train(Struct, frozen=True):
    """Render the pictures if needed (into `folder`), upload them, and submit the training."""

    job: str
    request: TrainRequest
    folder: Path


class Follow(Struct, frozen=True):
    """Receive the events after number `after_seq` of a job that was submitted before."""

    job: str
    after_seq: int = 0


class Cancel(Struct, frozen=True):
    job: str


class Remove(Struct, frozen=True):
    """Remove an ended job from the backend."""

    job: str


class Fetch(Struct, frozen=True):
    """Download a result of a job to a file. `job` is "" for the picture of a subject."""

    job: str
    blob: Blob
    path: Path


class Refresh(Struct, frozen=True):
    """List the backend's models and subjects again."""

    job: str = ""


class ListPublished(Struct, frozen=True):
    """List the models that the backend can fetch."""

    job: str = ""


class ManageModel(Struct, frozen=True):
    """Begin an action on a published model, see the message of this name."""

    name: str
    action: str
    license_accepted: bool = False
    job: str = ""


Command = Generate | Train | Follow | Cancel | Remove | Fetch | Refresh | ListPublished | ManageModel


# Events


class Connected(Struct, frozen=True):
    """There is a session with the backend, or its lists were refreshed."""

    server: str
    models: list[ModelInfo]
    subjects: list[SubjectInfo]
    is_admin: bool = False


class PublishedListed(Struct, frozen=True):
    """The models that the backend can fetch, and how far that is."""

    models: list[PublishedModel]


class Disconnected(Struct, frozen=True):
    """The backend cannot be reached; the threads keep trying."""

    error: MotionBoothError


class Submitted(Struct, frozen=True):
    """The pictures of a training, or the style and the guide of a clip, were uploaded, and `spec` was submitted."""

    job: str
    spec: TrainSpec | GenerateSpec


class StateChanged(Struct, frozen=True):
    """A job's state, as the backend has stored it."""

    job: str
    state: JobState
    last_seq: int = 0
    error: ErrorReport | None = None
    results: list[Blob] | None = None


class PreviewSaved(Struct, frozen=True):
    """A preview of a running job is in the file `path`. Only the latest one of a job is kept."""

    job: str
    path: Path


class Fetched(Struct, frozen=True):
    job: str
    role: str
    path: Path


class Refused(Struct, frozen=True):
    """A command that cannot be carried out, and why."""

    command: Command
    error: MotionBoothError


Event = (
    Connected | Disconnected | PublishedListed | Submitted | StateChanged | Progress | PreviewSaved | Fetched | Refused
)
