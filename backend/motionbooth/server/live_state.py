"""What a running server knows and does not keep on disk: progress, previews, connections, and updates to publish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, field
from typing import NamedTuple

from motionbooth_protocol.messages import ModelInfo
from motionbooth_protocol.reports import PreviewReport, ProgressReport
from motionbooth_protocol.text import Text

from motionbooth.server.attempts import JobNumber


class Update(NamedTuple):
    """A report of a running job; without one, the job has a new durable event."""

    job_number: JobNumber
    report: ProgressReport | PreviewReport | None = None


@dataclass
class Counters:
    """Of this server since its start: replies by their type, errors by their kind."""

    replies: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    ended_connections: int = 0  # of clients that send without reading
    received_bytes: int = 0
    sent_bytes: int = 0


@dataclass
class LiveState:
    """The scheduler writes it; sessions, request handlers and the monitor read it. All run in the server's loop."""

    progress: dict[JobNumber, ProgressReport] = field(default_factory=dict)  # the latest of each running job
    previews: dict[JobNumber, PreviewReport] = field(default_factory=dict)
    connections: int = 0
    counters: Counters = field(default_factory=Counters)
    models: list[ModelInfo] = field(default_factory=list)  # that can be used; replaced when they change
    problems: dict[str, Text] = field(default_factory=dict)  # by a name for programs; empty while all is well
    _updates: dict[tuple[JobNumber, type], Update] = field(default_factory=dict)

    def add(self, update: Update) -> None:
        """Record an update, after its commit, and have it published."""
        job_number, report = update
        if isinstance(report, ProgressReport):
            self.progress[job_number] = report
        elif isinstance(report, PreviewReport):
            self.previews[job_number] = report
        else:
            self.progress.pop(job_number, None)
            self.previews.pop(job_number, None)
        self._updates.pop((job_number, type(report)), None)  # the latest replaces it, at the end of the queue
        self._updates[job_number, type(report)] = update

    def keep_only(self, running: Container[JobNumber]) -> None:
        """Drop the reports of all other jobs."""
        for reports in (self.progress, self.previews):
            for job_number in [number for number in reports if number not in running]:
                del reports[job_number]

    def take_updates(self) -> list[Update]:
        """The updates since the last call, in order; of each job and kind only the latest."""
        updates, self._updates = list(self._updates.values()), {}
        return updates
