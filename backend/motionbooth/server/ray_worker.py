"""What lives on a box of a Ray cluster: an actor that keeps a worker process, and its reports until they are fetched.

It outlives the server that made it. Only bytes of our own messages (pipes.py) go in and out.
"""

from __future__ import annotations

import platform
import sys
import threading
from pathlib import Path

import zmq

from . import pipes
from .executor import Attempt, LocalExecutor, Place
from .store import Work

_HERE = "here"


class RayWorker:
    """One place of a LocalExecutor. `arguments` make this box's Python a worker; `log` is in the backend's folder.

    Of each kind of report the latest of the latest attempt is kept, under a number that counts up.
    """

    def __init__(self, arguments: list[str], log: str) -> None:
        self._log = Path(log)
        command = [sys.executable, *arguments]
        self._executor = LocalExecutor(zmq.Context.instance(), command, self._log, [Place(_HERE, "")])
        self._changed = threading.Condition()
        self._attempt: Attempt | None = None
        self._latest: dict[type[pipes.Report | pipes.Exited], tuple[int, bytes]] = {}
        self._count = 0
        threading.Thread(target=self._pump, name="reports", daemon=True).start()

    def attempt(self) -> tuple[str, Attempt | None]:
        """The name of this box, and the latest attempt."""
        return platform.node(), self._attempt

    def order(self, data: bytes, grace: float = 0.0) -> None:
        """Run, or Stop with the seconds after which the worker is killed."""
        command = pipes.commands.decode(data)
        number, attempt = command.number, command.attempt
        with self._changed:
            if isinstance(command, pipes.Stop):
                self._executor.cancel(number, attempt, grace)
                return
            self._attempt = (number, attempt)
            self._latest.clear()
            reason = self._start(Work(number, attempt, command.spec))
            if reason:
                self._keep(pipes.Exited(number=number, attempt=attempt, reason=reason))

    def reports(self, after: int, seconds: float) -> tuple[int, list[bytes]]:
        """The reports since number `after`, waiting so long for one; and the number of the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._count > after, seconds)
            return self._count, [data for count, data in sorted(self._latest.values()) if count > after]

    def _start(self, work: Work) -> str:
        """Why it could not be started, "" where it was."""
        if not self._log.parent.is_dir():
            return (
                f"The backend's folder {self._log.parents[1]} is not there on {platform.node()}: it must lie on a disk "
                "that all boxes of the cluster share, at the same path."
            )
        try:
            self._executor.start(_HERE, work)
        except OSError as error:
            return f"No worker process could be started on {platform.node()} ({error})."
        return ""

    def _pump(self) -> None:
        while True:
            self._executor.wake.poll(200)
            with self._changed:
                for report in self._executor.receive():
                    self._keep(report)
                self._executor.tick()

    def _keep(self, report: pipes.Report | pipes.Exited) -> None:
        self._count += 1
        self._latest[type(report)] = (self._count, pipes.encode(report))
        self._changed.notify_all()
