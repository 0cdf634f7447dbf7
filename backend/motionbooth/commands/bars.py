"""Progress of a job in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class BarReporter:
    """Shows a job's progress as one bar for each stage, and prints what it has to say before the first step."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def progress(self, stage: str, step: int, steps: int, note: str = "") -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage)
        if note and step == 0:
            self._bars.console.print(f"Note: {note}.")
        self._bars.update(self._tasks[stage], completed=step, total=steps, description=f"{stage}  {note * (step > 0)}")
