"""How work that takes long tells of itself, to whoever waits for it."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Where a job tells how far it is, and learns that nobody wants it any more."""

    def progress(self, stage: str, step: int, steps: int, note: str = "") -> None:
        """`step` of `steps` within `stage` are done. Raises `motionbooth_protocol.errors.Canceled` to stop the job.

        Stages, in plain words: "loading the model", "finding masks", "filming ordinary clips", "learning", "sampling",
        "encoding". Called at least once a training or sampling step.
        """
