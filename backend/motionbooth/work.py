"""What a worker process does for one job: a spec in, finished files out. It knows nothing of the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from motionbooth_protocol.jobs import JobSpec


class Reporter(Protocol):
    """Where a job tells how far it is, and learns that nobody wants it any more."""

    def progress(self, stage: str, step: int, steps: int, note: str = "") -> None:
        """`step` of `steps` within `stage` are done. Raises `motionbooth_protocol.errors.Canceled` to stop the job.

        Stages, in plain words: "loading the model", "finding masks", "filming ordinary clips", "learning", "sampling",
        "encoding". Called at least once a training or sampling step.
        """


def run(spec: JobSpec, blob_path: Callable[[str], Path], scratch: Path, reporter: Reporter) -> dict[str, Path]:
    """Carry a job out. Returns the finished files inside `scratch` by role: {"subject": ...} or {"clip": ...}.

    `blob_path` gives the file of an uploaded blob by its sha256. `scratch` is the job's own folder and outlives the
    attempt: training keeps its checkpoint there, and a later attempt goes on from it to the same result. Same spec,
    same machine: same bytes.

    Raises InvalidInput (a picture, prompt or model that cannot be used, in a sentence that says what to change),
    NotFound (an unknown model), OutOfSpace, and whatever `reporter.progress` raises.
    """
    raise NotImplementedError
