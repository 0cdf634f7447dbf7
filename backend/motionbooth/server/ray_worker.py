"""What lives on a box of a Ray cluster: an actor that keeps a worker process, and its reports until they are fetched.

It outlives the server that made it. Only bytes of our own messages (pipes.py) go in and out.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
from pathlib import Path

import zmq

from motionbooth.server import worker_pipe
from motionbooth.server.local_executor import Attempt, LocalExecutor, Place
from motionbooth.server.store import Work

_HERE = "here"


def mark(log: Path) -> Path:
    """The file beside the workers' log by which a box knows the backend's folder."""
    return log.with_name("cluster.txt")


class RayWorker:
    """One place of a LocalExecutor. `arguments` make this box's Python a worker; `log` is in the backend's folder,
    beside a file that says `namespace`; `share` workers have this box's cores to themselves.

    Of each kind of report the latest of the latest attempt is kept, under a number that counts up.
    """

    def __init__(self, arguments: list[str], log: str, namespace: str, share: int) -> None:
        self._log = Path(log)
        self._namespace = namespace
        command = [sys.executable, *arguments]
        # Ray would leave it one core.
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // share))}
        self._executor = LocalExecutor(zmq.Context.instance(), command, self._log, [Place(_HERE, "", threads)])
        self._changed = threading.Condition()
        self._attempt: Attempt | None = None
        self._latest: dict[type[worker_pipe.Report | worker_pipe.Exited], tuple[int, bytes]] = {}
        self._count = 0
        threading.Thread(target=self._pump, name="reports", daemon=True).start()

    def attempt(self) -> tuple[str, Attempt | None, str]:
        """The name of this box, the latest attempt, and why none can run here, "" where one can."""
        return platform.node(), self._attempt, self._lack()

    def order(self, data: bytes, grace: float = 0.0) -> None:
        """Run, or Stop with the seconds after which the worker is killed."""
        command = worker_pipe.commands.decode(data)
        number, attempt = command.number, command.attempt
        with self._changed:
            if isinstance(command, worker_pipe.Stop):
                self._executor.cancel(number, attempt, grace)
                return
            self._attempt = (number, attempt)
            self._latest.clear()
            reason = self._start(Work(number, attempt, command.spec))
            if reason:
                self._keep(worker_pipe.Exited(number=number, attempt=attempt, reason=reason))

    def reports(self, after: int, seconds: float) -> tuple[int, list[bytes]]:
        """The reports since number `after`, waiting so long for one; and the number of the last."""
        with self._changed:
            self._changed.wait_for(lambda: self._count > after, seconds)
            return self._count, [data for count, data in sorted(self._latest.values()) if count > after]

    def _lack(self) -> str:
        """A folder at the same path may be another one, of this box alone."""
        try:
            if mark(self._log).read_text() == self._namespace:
                return ""
        except OSError:
            pass
        return (
            f"The backend's folder {self._log.parents[1]} is not there on {platform.node()}, or is another one: it "
            "must lie on a disk that all boxes of the cluster share, at the same path."
        )

    def _start(self, work: Work) -> str:
        """Why it could not be started, "" where it was."""
        lack = self._lack()
        if lack:
            return lack
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

    def _keep(self, report: worker_pipe.Report | worker_pipe.Exited) -> None:
        self._count += 1
        self._latest[type(report)] = (self._count, worker_pipe.encode(report))
        self._changed.notify_all()
