"""The jobs that a user has sent, one JSON file each, so that they survive closing Blender. No bpy.

Several Blenders may use the folder at once: a file is replaced as a whole, and each Blender writes only the jobs that
it sent or that belong to the .blend that it has open.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from ._protocol.errors import ErrorReport
from ._protocol.jobs import TERMINAL_STATES, Blob, GenerateSpec, JobId, JobState, SubjectSpec, TrainSpec
from ._protocol.masters import Master


class Render(msgspec.Struct, frozen=True):
    """Training pictures that are still to be rendered, `size` pixels square: of an object and its children, which are
    `collection` in the library `blend`."""

    blend: str
    collection: str
    frame: int
    size: int


class TrainRequest(msgspec.Struct, frozen=True, tag="train"):
    """A subject to train, with its picture files on this machine (a mask each, or None) or what `render` will make."""

    name: str
    token: str
    class_word: str
    model: str
    pictures: list[tuple[str, str | None]] = []
    render: Render | None = None
    steps: int | None = None

    def spec(self, subject: SubjectSpec) -> TrainSpec:
        return TrainSpec(subject=subject, model=self.model, steps=self.steps)


class GuideRender(msgspec.Struct, frozen=True):
    """The guide of a clip: `clip`, or what is rendered in `folder` from the scene that is saved there.

    clip: a file of the user's; "" to render.
    size: width and height of the model's frame.
    masked: the names of the objects whose visible parts are the guide's masks; none: the subjects' boxes are used.
    engines: those to try, in this order.
    """

    folder: str
    scene: str
    size: tuple[int, int]
    masked: list[str]
    subject_strength: float
    background_strength: float
    engines: list[str]
    clip: str = ""


JobRequest = TrainRequest | GenerateSpec


class StyleFile(msgspec.Struct, frozen=True):
    """A LoRA of another program on this machine, and how strongly it acts (-2 to 2)."""

    path: str
    strength: float


class JobRecord(msgspec.Struct, kw_only=True):
    """One job: what was requested, for which shot of which .blend, on which backend, and its state.

    shot: the scene's `motionbooth.uid`.
    backend: the backend's public key.
    clip: the path of the fetched clip, "" before.
    placed: whether the shot has received the result.
    styles: what must be uploaded before the clip is submitted; then they are in the request.
    awaits: the jobs that train the clip's subjects, by subject name; their weights are filled in when they are done.
    canceling: cancel it as soon as the backend can be reached.
    guide: the clip's guide, which is rendered and uploaded before the job is sent.
    """

    id: JobId
    request: JobRequest
    title: str
    created: float
    backend: str
    shot: str = ""
    scene: str = ""
    blend: str = ""
    state: JobState = JobState.SENDING
    error: ErrorReport | None = None
    last_seq: int = 0
    results: list[Blob] = []
    clip: str = ""
    placed: bool = False
    styles: list[StyleFile] = []
    awaits: dict[str, JobId] = {}
    canceling: bool = False
    guide: GuideRender | None = None

    @property
    def kind(self) -> str:
        return "train" if isinstance(self.request, TrainRequest) else "generate"

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL_STATES

    @property
    def has_clip(self) -> bool:
        """Whether the clip's file is on this machine."""
        return bool(self.clip) and Path(self.clip).is_file()

    @property
    def master(self) -> Master | None:
        """The master that was asked for."""
        return self.request.master if isinstance(self.request, GenerateSpec) else None

    @property
    def lacks_master(self) -> bool:
        """Whether the clip is on this machine without the master that was asked for."""
        return self.has_clip and self.master is not None and not self.master.exists(Path(self.clip))

    def result(self, role: str) -> Blob | None:
        return next((blob for blob in self.results if blob.role == role), None)


class JobStore:
    """All records of a folder, by job id, oldest first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.records: dict[str, JobRecord] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.read_new(lambda record: True)

    def read_new(self, wanted: Callable[[JobRecord], bool]) -> list[JobRecord]:
        """Take in the `wanted` ones of the records that are not known yet: another Blender has stored them since."""
        paths = [path for path in self._folder.glob("*.json") if path.stem not in self.records]
        new = [record for path in paths if (record := _read(path)) is not None and wanted(record)]
        known = [*self.records.values(), *new]
        self.records = {record.id: record for record in sorted(known, key=lambda record: record.created)}
        return new

    def put(self, record: JobRecord) -> None:
        """Store a new or changed record, but not one that another Blender has removed since. Raises OSError."""
        path = self._path(record.id)
        if record.id in self.records and self._folder.is_dir() and not path.exists():
            return
        scratch = path.with_suffix(f".{os.getpid()}.part")
        scratch.write_bytes(msgspec.json.encode(record))
        scratch.replace(path)
        self.records[record.id] = record

    def remove(self, job: str) -> None:
        self.records.pop(job, None)
        self._path(job).unlink(missing_ok=True)

    def _path(self, job: str) -> Path:
        return self._folder / f"{job}.json"


def _read(path: Path) -> JobRecord | None:
    """None for a file that is corrupt or has just been removed."""
    with contextlib.suppress(msgspec.MsgspecError, OSError):
        return msgspec.json.decode(path.read_bytes(), type=JobRecord)
    return None
