"""The job client for batch work, whose methods wait. No bpy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from .._protocol.client import raise_failure
from .._protocol.connection import Connection
from .._protocol.errors import MotionBoothError
from .._protocol.jobs import TrainSpec
from .._protocol.messages import ModelInfo, Progress
from .._protocol.picture_files import pictures_with_masks
from .._protocol.reports import ProgressReport
from .._protocol.text import Text
from ..job_store import GuideRender, JobRecord, JobRequest, JobStore, StyleFile, TrainRequest
from ..jobs.events import Connected, Disconnected, Event, Refused, Submitted
from ..jobs.job_client import JobClient

_PAUSE = 0.05  # seconds between two looks at the events
_PATIENCE = 300.0  # seconds without a connection, after which the call fails
_CANCEL_SECONDS = 10.0


class BlockingJobs:
    """The jobs of one call. They are not resumed by a later call: a backend shares the results of equal requests.

    scratch: a folder that may be removed after `close`.
    renderer: the command that renders training pictures and guides, see `background_render.renderer`.
    train_specs: the specs of the trainings that were submitted, by job id.

    All methods raise MotionBoothError if a command is refused, or if the backend cannot be reached for _PATIENCE.
    """

    def __init__(
        self,
        connection: Connection,
        scratch: Path,
        on_progress: Callable[[ProgressReport], None],
        renderer: Sequence[str] = (),
    ) -> None:
        self.train_specs: dict[str, TrainSpec] = {}
        self._models: list[ModelInfo] | None = None
        self._on_progress = on_progress
        self._disconnected_at: float | None = None
        self._rendered = scratch / "training"
        self._client = JobClient(JobStore(scratch / "jobs"), self._rendered, on_change=lambda record: None)
        self._client.connect(connection, scratch / "previews", list(renderer))

    def models(self) -> list[ModelInfo]:
        """The backend's models, once it is connected."""
        self._wait(lambda: self._models is not None)
        return self._models or []

    def submit(
        self,
        request: JobRequest,
        title: str,
        awaits: Mapping[str, str] | None = None,
        styles: Sequence[StyleFile] = (),
        guide: GuideRender | None = None,
    ) -> JobRecord:
        """See JobClient.submit."""
        if isinstance(request, TrainRequest):
            stage = "uploading pictures" if request.render is None else "rendering pictures"
            self._on_progress(ProgressReport(stage, 0, len(request.pictures), note=_name(title)))
        return self._client.submit(request, title, awaits, styles, guide)

    def wait_until_done(self, record: JobRecord) -> None:
        """Raises JobFailed with the reason, or Canceled."""
        self._wait(lambda: record.ended)
        raise_failure(record.state, record.error)

    def pictures(self, training: JobRecord) -> list[tuple[Path, Path | None]]:
        """What a training was sent, each picture with its mask: the user's files, or those that were rendered."""
        assert isinstance(training.request, TrainRequest)
        if training.request.render is not None:
            return pictures_with_masks(self._rendered / training.id)
        return [(Path(image), Path(mask) if mask else None) for image, mask in training.request.pictures]

    def fetch_clip(self, record: JobRecord, path: Path) -> None:
        """Download a done job's clip, and its report beside it."""
        self._on_progress(ProgressReport("downloading", 0, 0, note=_name(record.title)))
        self._client.fetch_clip(record, path)
        self._wait(lambda: record.clip)

    def cancel(self) -> None:
        """Cancel the jobs that have not ended, and wait a moment until they have."""
        unfinished = [record for record in self._client.store.records.values() if not record.ended]
        for record in unfinished:
            with contextlib.suppress(MotionBoothError):
                self._client.cancel(record)
        deadline = time.monotonic() + _CANCEL_SECONDS
        while time.monotonic() < deadline and not all(record.ended for record in unfinished):
            for _ in self._client.events():
                pass
            time.sleep(_PAUSE)

    def close(self) -> None:
        self._client.disconnect()

    def _wait(self, until: Callable[[], object]) -> None:
        while not until():
            for event in self._client.events():
                self._handle_event(event)
            time.sleep(_PAUSE)

    def _handle_event(self, event: Event) -> None:
        match event:
            case Connected(models=models):
                self._models, self._disconnected_at = models, None
            case Disconnected(error):
                now = time.monotonic()
                self._disconnected_at = self._disconnected_at or now
                if self._models is None or not error.retryable or now - self._disconnected_at > _PATIENCE:
                    raise error
            case Progress(job=job, report=report):
                self._on_progress(replace(report, note=report.note or _name(self._client.store.records[job].title)))
            case Submitted(job, TrainSpec() as spec):
                self.train_specs[job] = spec
            case Refused(error=error):
                raise error


def _name(title: str) -> Text:
    """A note that says which job it is."""
    return Text.of("{name}", name=title)
