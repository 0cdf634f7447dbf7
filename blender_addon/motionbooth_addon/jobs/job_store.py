"""The jobs that this person sent, one small file each, so that they survive closing Blender. No bpy.

Several Blenders may use the folder at once: a file is replaced whole, and each Blender writes only about jobs that it
sent or that belong to the .blend that it has open.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from .._protocol.jobs import TERMINAL_STATES, Blob, GenerateSpec, JobId, JobState, SubjectSpec, TrainSpec


class Render(msgspec.Struct, frozen=True):
    """Training pictures that have still to be rendered: object `object` of library `blend`, `size` pixels square."""

    blend: str
    object: str
    frame: int
    size: int


class TrainOrder(msgspec.Struct, frozen=True, tag="train"):
    """A subject to be learned, from pictures (and masks, or None) on this machine, or from what `render` makes."""

    name: str
    token: str
    class_word: str
    model: str
    pictures: list[tuple[str, str | None]] = []
    render: Render | None = None
    steps: int | None = None

    def spec(self, subject: SubjectSpec) -> TrainSpec:
        return TrainSpec(subject=subject, model=self.model, steps=self.steps)


Order = TrainOrder | GenerateSpec


class Record(msgspec.Struct, kw_only=True):
    """One job: what was ordered, for which shot of which .blend on which backend, and how far it is.

    `shot` is the id that the scene keeps, `backend` the backend's public key. `clip` is where the clip is on this
    machine, once it was fetched; `placed` says that the shot has been given its result. `awaits`: the jobs that train
    its subjects, by the subjects' names; their weights are filled into the order when they are done.
    `canceling`: it is to be canceled as soon as the backend can be told.
    """

    id: JobId
    order: Order
    title: str
    created: float
    backend: str
    shot: str = ""
    scene: str = ""
    blend: str = ""
    state: JobState = JobState.SENDING
    error: str = ""
    last_seq: int = 0
    results: list[Blob] = []
    clip: str = ""
    placed: bool = False
    awaits: dict[str, JobId] = {}
    canceling: bool = False

    @property
    def kind(self) -> str:
        return "train" if isinstance(self.order, TrainOrder) else "generate"

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL_STATES

    def result(self, role: str) -> Blob | None:
        return next((blob for blob in self.results if blob.role == role), None)


class Ledger:
    """All records in a folder, by job id, oldest first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.records: dict[str, Record] = {}
        folder.mkdir(parents=True, exist_ok=True)
        found = [record for path in folder.glob("*.json") if (record := _read(path)) is not None]
        for record in sorted(found, key=lambda record: record.created):
            self.records[record.id] = record

    def put(self, record: Record) -> None:
        """Keep a new or changed record."""
        self.records[record.id] = record
        path = self._path(record.id)
        scratch = path.with_suffix(f".{os.getpid()}.part")
        scratch.write_bytes(msgspec.json.encode(record))
        scratch.replace(path)

    def forget(self, job: str) -> None:
        self.records.pop(job, None)
        self._path(job).unlink(missing_ok=True)

    def _path(self, job: str) -> Path:
        return self._folder / f"{job}.json"


def _read(path: Path) -> Record | None:
    """None for a file that another version wrote, that was damaged, or that is just being taken away."""
    with contextlib.suppress(msgspec.MsgspecError, OSError):
        return msgspec.json.decode(path.read_bytes(), type=Record)
    return None
