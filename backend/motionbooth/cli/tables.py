"""Tables of a backend's state and jobs for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from motionbooth_protocol.jobs import TERMINAL_STATES, Job, JobState
from motionbooth_protocol.messages import Status, WorkerInfo
from motionbooth_protocol.reports import ProgressReport
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from motionbooth.progress.display import duration

_COLORS: dict[str, str] = {
    JobState.QUEUED: "yellow",
    JobState.RUNNING: "cyan",
    JobState.DONE: "green",
    JobState.FAILED: "red",
    JobState.CANCELED: "dim",
}


def status_view(status: Status) -> RenderableType:
    """Job counts, disk space, problems and workers."""
    counts = Text("  ").join(Text(f"{getattr(status, state)} {state}", style=color) for state, color in _COLORS.items())
    server = Text(f"{status.server}, up for {duration(status.uptime)}, {status.sessions} connected", style="bold")
    space = Text(f"job files: {decimal(status.store_bytes)}; free disk space: {decimal(status.disk_free)}")
    problems = [Text(str(problem), style="bold red") for problem in status.problems.values()]
    return Group(server, counts, space, *problems, workers_table(status.workers))


def workers_table(workers: Sequence[WorkerInfo]) -> Table:
    """One row per worker, with its progress."""
    table = Table("worker", "device", "state", "model", "job", "user", "", "time left", box=None, header_style="dim")
    for worker in workers:
        table.add_row(
            Text(worker.name),
            Text(worker.device),
            Text(worker.state, style=_COLORS.get(worker.state, "")),
            Text(worker.model),
            Text(worker.kind + (f" {worker.job[:8]}" if worker.job else "")),
            Text(worker.owner),
            _progress(worker.progress),
            _time_left(worker.progress),
        )
    return table


def jobs_table(jobs: Sequence[Job], now: float, with_owners: bool = False) -> Table:
    """One row per job, in the given order. `now`: Unix time in seconds."""
    table = Table("job", "name", "kind", "model", "state", "submitted", "duration", box=None, header_style="dim")
    if with_owners:
        table.add_column("user")
    table.add_column("", overflow="fold")
    for job in jobs:
        ended = job.updated if job.state in TERMINAL_STATES else now
        cells: list[RenderableType] = [
            Text(job.id[:8]),
            Text(job.name),
            Text(job.kind),
            Text(job.model),
            Text(job.state, style=_COLORS.get(job.state, "")),
            datetime.fromtimestamp(job.created).strftime("%m-%d %H:%M"),
            duration(max(0.0, ended - job.created)),
        ]
        table.add_row(*cells, *([Text(job.owner)] if with_owners else []), Text(str(job.error or "")))
    return table


def _time_left(progress: ProgressReport | None) -> str:
    return "" if progress is None or progress.seconds_left is None else duration(progress.seconds_left)


def _progress(progress: ProgressReport | None) -> RenderableType:
    if progress is None or not progress.steps:
        return Text("" if progress is None else progress.stage)
    line = Table.grid(padding=(0, 1))
    line.add_row(
        ProgressBar(total=progress.steps, completed=progress.step, width=16),
        Text(f"{progress.stage} {progress.step}/{progress.steps}"),
    )
    return line
