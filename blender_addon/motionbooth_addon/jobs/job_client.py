"""Sends jobs to a backend, follows them and fetches their results, for the window and for batch work. No bpy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from .._protocol.connection import Connection
from .._protocol.errors import InvalidInput
from .._protocol.jobs import Blob, GenerateSpec, JobState
from ..job_store import GuideRender, JobRecord, JobRequest, JobStore, StyleFile, TrainRequest
from ..timeline.take_motion import report_path
from . import masters
from .events import (
    Cancel,
    Connected,
    Event,
    Fetch,
    Fetched,
    Follow,
    Generate,
    Refused,
    Remove,
    StateChanged,
    Submitted,
    Train,
)

if TYPE_CHECKING:
    from .connection_threads import ConnectionThreads


class JobClient:
    """The jobs in `store`, and the connection that carries them out. No method waits.

    folder: where training pictures are rendered.
    on_change: receives each record whose state has changed.
    """

    def __init__(self, store: JobStore, folder: Path, on_change: Callable[[JobRecord], None]) -> None:
        self.store = store
        self.threads: ConnectionThreads | None = None
        self._folder = folder
        self._on_change = on_change
        self._fetching: set[Path] = set()

    @property
    def backend(self) -> str:
        """The public key of the connected backend, "" without a connection."""
        return self.threads.connection.server_public if self.threads else ""

    def connect(self, connection: Connection, scratch: Path, renderer: list[str]) -> None:
        """Start the threads (see ConnectionThreads), and resume the jobs of that backend that have not ended."""
        from .connection_threads import ConnectionThreads  # loads pyzmq

        self.threads = ConnectionThreads(connection, scratch, renderer).start()
        for record in self.store.records.values():
            self.resume(record)

    def resume(self, record: JobRecord) -> None:
        """Send or follow a job that has not ended, if its backend is connected."""
        if not record.ended:
            self._send(record)

    def disconnect(self, seconds: float = 3.0) -> None:
        """Stop the threads, waiting at most so long for each. Jobs continue on the backend."""
        if self.threads is not None:
            self.threads.stop(seconds)
            self.threads = None
            self._fetching.clear()

    def events(self) -> Iterator[Event]:
        """The events since the last call, each applied to its record; what is not consumed stays queued."""
        if self.threads is not None:
            for event in self.threads.events():
                self._apply(event)
                yield event

    # Requests

    def submit(
        self,
        request: JobRequest,
        title: str,
        awaits: Mapping[str, str] | None = None,
        styles: Sequence[StyleFile] = (),
        guide: GuideRender | None = None,
        shot: str = "",
        scene: str = "",
        blend: str = "",
    ) -> JobRecord:
        """Send a new job, once the jobs in `awaits` (by subject name) have trained its subjects, and after its files.

        Raises InvalidInput without a connection.
        """
        from .._protocol.client import new_job_id  # loads zmq, which must not slow down the start of Blender

        if self.threads is None:
            raise InvalidInput("There is no backend. Start the local backend or connect to a remote one.")
        record = JobRecord(
            id=new_job_id(),
            request=request,
            title=title,
            created=time.time(),
            backend=self.backend,
            shot=shot,
            scene=scene,
            blend=blend,
            state=JobState.WAITING if awaits else JobState.SENDING,
            styles=list(styles),
            awaits=dict(awaits or {}),
            guide=guide,
        )
        self.store.put(record)
        self._send(record)
        self._release_waiting()
        return record

    def retry(self, record: JobRecord) -> JobRecord:
        """Send the same request as a new job of the same shot."""
        where = record.shot, record.scene, record.blend
        return self.submit(record.request, record.title, record.awaits, record.styles, record.guide, *where)

    def cancel(self, record: JobRecord) -> None:
        """Raises InvalidInput if the job is on another backend."""
        is_reachable = self.threads is not None and record.backend == self.backend
        if record.state == JobState.WAITING or (record.state == JobState.SENDING and not is_reachable):  # not sent yet
            self._change(record, StateChanged(record.id, JobState.CANCELED))
        elif self.threads is not None and is_reachable:
            record.canceling = True
            self.store.put(record)
            self.threads.send(Cancel(record.id))
        else:
            raise InvalidInput('"{job}" is on a backend that is not connected; connect to it first.', job=record.title)

    def remove(self, record: JobRecord) -> None:
        """Remove an ended job from the store and from the backend."""
        if self.threads is not None and record.backend == self.backend:
            self.threads.send(Remove(record.id))
        self.store.remove(record.id)
        self._release_waiting()

    def fetch(self, job: str, blob: Blob, path: Path) -> None:
        """Download a file, unless that is under way."""
        if self.threads is not None and path not in self._fetching:
            self._fetching.add(path)
            self.threads.send(Fetch(job, blob, path))

    def can_fetch_clip(self, record: JobRecord) -> bool:
        return record.backend == self.backend and record.result("clip") is not None

    def fetch_clip(self, record: JobRecord, path: Path) -> None:
        """Download a done job's clip, after its report and its master.

        Raises InvalidInput if the backend is not connected.
        """
        clip = record.result("clip")
        if clip is None or record.backend != self.backend:
            raise InvalidInput('The clip of "{job}" is on a backend that is not connected.', job=record.title)
        if (report := record.result("report")) is not None:
            self.fetch(record.id, report, report_path(path))
        if (master := record.result("master")) is not None and record.master is not None:
            self.fetch(record.id, master, masters.file_to_fetch(record.master, path))
        self.fetch(record.id, clip, path)

    # Events

    def _apply(self, event: Event) -> None:
        match event:
            case Connected():
                self._release_waiting()
            case Submitted(job, GenerateSpec() as spec) if (record := self.store.records.get(job)) is not None:
                record.request, record.styles = spec, []
                self.store.put(record)
            case StateChanged(job) if (record := self.store.records.get(job)) is not None:
                self._change(record, event)
            case Fetched(job, role, path):
                self._fetching.discard(path)
                if role == "clip" and (record := self.store.records.get(job)) is not None:
                    record.clip = str(path)
                    self.store.put(record)
            case Refused(Fetch(path=path)):
                self._fetching.discard(path)
            case Refused(Generate(job) | Train(job), error) if (record := self.store.records.get(job)) is not None:
                self._change(record, StateChanged(job, JobState.FAILED, error=error.report))

    def _change(self, record: JobRecord, event: StateChanged) -> None:
        if record.ended:
            return
        record.state, record.error, record.results = event.state, event.error, event.results or []
        record.last_seq = max(record.last_seq, event.last_seq)
        self._on_change(record)  # first: the result is placed even if the record cannot be stored
        self.store.put(record)
        if record.kind == "train" and record.ended:
            self._release_waiting()

    def _release_waiting(self) -> None:
        """Send the clips whose subjects are trained; a clip whose training ended without a result fails."""
        for record in list(self.store.records.values()):
            if record.state != JobState.WAITING:
                continue
            assert isinstance(record.request, GenerateSpec)
            trainings = {name: self.store.records.get(job) for name, job in record.awaits.items()}
            lost = next((name for name, training in trainings.items() if _is_lost(training)), None)
            if lost is not None:
                error = InvalidInput(
                    'Subject "{subject}" was not trained; train it, then generate again.', subject=lost
                )
                self._change(record, StateChanged(record.id, JobState.FAILED, error=error.report))
            elif all(training is not None and training.state == JobState.DONE for training in trainings.values()):
                record.request, record.awaits = _with_weights(record.request, trainings), {}
                record.state = JobState.SENDING
                self.store.put(record)
                self._on_change(record)
                self._send(record)

    def _send(self, record: JobRecord) -> None:
        if self.threads is None or record.backend != self.backend or record.state == JobState.WAITING:
            return
        if record.state != JobState.SENDING:
            self.threads.send(Follow(record.id, record.last_seq))
        elif isinstance(record.request, TrainRequest):
            self.threads.send(Train(record.id, record.request, self._folder / record.id))
        else:
            self.threads.send(Generate(record.id, record.request, record.styles, record.guide))
        if record.canceling:
            self.threads.send(Cancel(record.id))


def _is_lost(training: JobRecord | None) -> bool:
    """Whether a training was removed, or ended without a trained subject."""
    return training is None or (training.ended and training.result("subject") is None)


def _with_weights(spec: GenerateSpec, trainings: Mapping[str, JobRecord | None]) -> GenerateSpec:
    """The spec with the subjects that these jobs have trained."""
    weights = {
        name: blob.sha256
        for name, training in trainings.items()
        if training is not None and (blob := training.result("subject")) is not None
    }
    tracks = [replace(track, weights=weights.get(track.name, track.weights)) for track in spec.shot.subjects]
    return replace(spec, shot=replace(spec.shot, subjects=tracks))
