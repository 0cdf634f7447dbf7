"""Progress of a job: bars in a terminal, lines with a timestamp if the output is redirected."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import typer

from motionbooth.cli.tables import duration
from motionbooth.progress.time_left import Stage, TimeLeft

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from motionbooth.progress.reporting import Reporter

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def reporter() -> Iterator[Reporter]:
    """Bars in a terminal, otherwise lines for a log."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    console = Console()
    if not console.is_terminal:
        yield LineReporter()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=console, transient=True) as bars:
        yield BarReporter(bars)


class BarReporter:
    """One bar per stage; the current one shows the time left for the whole job. Notes are printed above the bars."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}
        self._time_left = TimeLeft()

    def plan(self, stages: Sequence[Stage]) -> None:
        self._time_left.plan(stages)

    def progress(self, stage: str, step: int, steps: int, note: str = "") -> None:
        if stage not in self._tasks:
            for task in self._tasks.values():
                self._bars.update(task, left="")
            self._tasks[stage] = self._bars.add_task(stage, left="")
        if note and step == 0:
            self._bars.console.print(f"Note: {note}.")
        left = _in_words(self._time_left.step(stage, step, steps))
        description = f"{stage}  {note * (step > 0)}"
        self._bars.update(self._tasks[stage], completed=step, total=steps, description=description, left=left)


class LineReporter:
    """Writes a line to stderr at the start and end of each stage, and every ten seconds in between."""

    def __init__(self) -> None:
        self._time_left = TimeLeft()
        self._stage = ""
        self._written_at = float("-inf")

    def plan(self, stages: Sequence[Stage]) -> None:
        self._time_left.plan(stages)

    def progress(self, stage: str, step: int, steps: int, note: str = "") -> None:
        left = self._time_left.step(stage, step, steps)
        now = time.monotonic()
        if stage == self._stage and step < steps and now - self._written_at < _SECONDS_BETWEEN_LINES:
            return
        self._stage, self._written_at = stage, now
        share = f"{step / steps:.0%} ({step} of {steps})" if steps else ""
        words = [f"{stage} {share}".strip(), note, _in_words(left)]
        typer.echo(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {', '.join(filter(None, words))}", err=True)


def _in_words(seconds: float | None) -> str:
    return "" if seconds is None else f"about {duration(seconds)} left"
