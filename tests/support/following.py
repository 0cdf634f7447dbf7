"""A client that follows a job while the test injects faults."""

from __future__ import annotations

import threading
from typing import Any

from motionbooth_protocol.client import new_job_id
from motionbooth_protocol.jobs import Job
from motionbooth_protocol.messages import Event
from motionbooth_protocol.reports import ProgressReport
from msgspec.structs import replace
from running_backend import RunningBackend, small_job


class Following(threading.Thread):
    """A thread whose client submits a job and follows it."""

    def __init__(
        self, backend: RunningBackend, prompt: str, address: str = "", timeout: float = 15.0, **options: Any
    ) -> None:
        super().__init__(daemon=True)
        self._timeout = timeout
        self._options = options  # of the client
        self._backend = backend
        self._connection = replace(backend.connection, address=address or backend.connection.address)
        self.job = new_job_id()
        self._spec = small_job(prompt)
        self.events: list[Event] = []
        self.progress: list[ProgressReport] = []
        self.result: Job | None = None
        self.start()

    def run(self) -> None:
        with self._backend.client(self._timeout, connection=self._connection, **self._options) as client:
            client.submit(self.job, self._spec)
            self.result = client.follow(self.job, self.progress.append, self.events.append)

    def done(self, seconds: float = 60) -> Job:
        self.join(seconds)
        assert self.result is not None
        assert [event.seq for event in self.events] == list(range(1, len(self.events) + 1)), (
            "there are gaps in the events"
        )
        return self.result
