"""How work that takes long tells of itself, to whoever waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from motionbooth.progress.time_left import Stage


class Reporter(Protocol):
    """Where a job tells how far it is, and learns that nobody wants it any more."""

    def plan(self, stages: Sequence[Stage]) -> None:
        """What the job consists of, in order, as far as is known by now: for one time left of the whole."""

    def progress(self, stage: str, step: int, steps: int, note: str = "") -> None:
        """`step` of `steps` within `stage` are done. Raises `motionbooth_protocol.errors.Canceled` to stop the job.

        Stages, in plain words: "loading the model", "finding masks", "generating places", "filming ordinary clips",
        "encoding pictures", "learning", "sampling", "decoding", "encoding", "measuring". Called at least once a
        training or sampling step.
        """
