"""A job's progress in a terminal: bars, or lines with a timestamp if the output is redirected."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from motionbooth_protocol.reports import ProgressReport
from motionbooth_protocol.text import Text
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from motionbooth.progress.time_left import Stage, TimeLeft

ShowReport = Callable[[ProgressReport], None]
_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress_display(console: Console) -> Iterator[ShowReport]:
    """Bars in a terminal, otherwise lines for a log."""
    if not console.is_terminal:
        yield LogLines().show
        return
    stage, left = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[left]}"))
    columns = (stage, BarColumn(), TaskProgressColumn(), left)
    with Progress(*columns, console=console, transient=True) as bars:
        yield StageBars(bars).show


class StageBars:
    """One bar per stage; the current one shows the time left for the whole job. First notes are printed above them."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def show(self, report: ProgressReport) -> None:
        stage, note = report.stage, str(report.note or "")
        if stage not in self._tasks:
            for task in self._tasks.values():
                self._bars.update(task, left="")
            self._tasks[stage] = self._bars.add_task(stage, left="")
        if note and report.step == 0:
            self._bars.console.print(f"Note: {note}.", markup=False)
        description = f"{stage}  {note * (report.step > 0)}"
        total, left = report.steps or None, _time_left(report)
        self._bars.update(self._tasks[stage], completed=report.step, total=total, description=description, left=left)


class LogLines:
    """Writes a line to stderr at the start and end of each stage, and every ten seconds in between."""

    def __init__(self) -> None:
        self._stage = ""
        self._written_at = float("-inf")

    def show(self, report: ProgressReport) -> None:
        stage, step, steps = report.stage, report.step, report.steps
        now = time.monotonic()
        if stage == self._stage and (step < steps or not steps) and now - self._written_at < _SECONDS_BETWEEN_LINES:
            return
        self._stage, self._written_at = stage, now
        share = f"{step / steps:.0%} ({step} of {steps})" if steps else ""
        words = [f"{stage} {share}".strip(), str(report.note or ""), _time_left(report)]
        print(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {', '.join(filter(None, words))}", file=sys.stderr, flush=True)


class DisplayReporter:
    """A Reporter that shows the progress of a job in this process."""

    def __init__(self, show: ShowReport) -> None:
        self._show = show
        self._time_left = TimeLeft()

    def plan(self, stages: Sequence[Stage]) -> None:
        self._time_left.plan(stages)

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        self._show(ProgressReport(stage, step, steps, self._time_left.step(stage, step, steps), note))


def duration(seconds: float) -> str:
    """A duration as text: "42 s", "3 min 05 s", "2 h 10 min" or "5 d 3 h"."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def _time_left(report: ProgressReport) -> str:
    return "" if report.seconds_left is None else f"about {duration(report.seconds_left)} left"
