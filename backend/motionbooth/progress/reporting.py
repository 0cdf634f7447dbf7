"""How a running job reports its progress."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from motionbooth_protocol.text import Text

from motionbooth.progress.time_left import Stage

OnProgress = Callable[[int, int], None]
"""Called with (steps done, all steps) of one piece of work. An exception that it raises ends the work."""


def ignore_progress(done: int, steps: int) -> None:
    """An OnProgress for callers that do not report."""


class Reporter(Protocol):
    """Receives a job's progress, and stops the job when it is canceled."""

    def plan(self, stages: Sequence[Stage]) -> None:
        """The stages that the job consists of, in order, as far as known; the time left is computed from them."""

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        """`step` of `steps` of a stage are done. Raises `motionbooth_protocol.errors.Canceled` to stop the job.

        `stage` is text for people, one of the names in stages.py. Called at least once for each training or sampling
        step.
        """
