"""The actor on a box of a Ray cluster: it keeps one worker process, and its reports until the server fetches them.

It outlives the server that created it. Its arguments and results are only the bytes of worker_pipe's messages.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
from pathlib import Path

import zmq
from motionbooth_protocol.errors import MotionBoothError

from motionbooth.server import worker_pipe
from motionbooth.server.attempts import Attempt, AttemptId
from motionbooth.server.executor import Device
from motionbooth.server.local_executor import LocalExecutor

_SLOT = "worker"


def cluster_file(log: Path) -> Path:
    """The file beside the workers' log by which a box recognizes the backend's folder."""
    return log.with_name("cluster.txt")


class RayWorker:
    """A LocalExecutor with one slot. `arguments` make this box's Python a worker; `log` is in the backend's folder,
    beside a file that contains `namespace`; `workers_here` actors share this box's cores.

    Of each kind of report of the latest attempt the latest is kept, numbered in order.
    """

    def __init__(self, arguments: list[str], log: str, namespace: str, workers_here: int) -> None:
        self._log = Path(log)
        self._namespace = namespace
        command = [sys.executable, *arguments]
        # Ray sets it to one core.
        threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // workers_here))}
        self._executor = LocalExecutor(zmq.Context.instance(), command, self._log, [Device(_SLOT, "", threads)])
        self._changed = threading.Condition()
        self._attempt: AttemptId | None = None
        self._latest: dict[type[worker_pipe.Report], tuple[int, bytes]] = {}
        self._count = 0
        threading.Thread(target=self._pump, name="reports", daemon=True).start()

    def state(self) -> tuple[str, AttemptId | None, str]:
        """The name of this box, the latest attempt, and why this box cannot run any ("" if it can)."""
        unfit = self._unfit()
        return platform.node(), self._attempt, str(unfit) if unfit else ""

    def command(self, data: bytes, grace: float = 0.0) -> None:
        """An Attempt to start, or Stop; then the worker is killed after `grace` seconds."""
        command = worker_pipe.command_decoder.decode(data)
        with self._changed:
            if isinstance(command, worker_pipe.Stop):
                self._executor.cancel(command.id, grace)
                return
            self._attempt = command.id
            self._latest.clear()
            if (error := self._start(command)) is not None:
                self._keep(worker_pipe.Exited(command.id, error=error.report))

    def reports(self, after: int, seconds: float) -> tuple[int, list[bytes]]:
        """The number of the last report, and the reports after number `after`; waits up to `seconds` for one."""
        with self._changed:
            self._changed.wait_for(lambda: self._count > after, seconds)
            return self._count, [data for count, data in sorted(self._latest.values()) if count > after]

    def _unfit(self) -> MotionBoothError | None:
        """A folder at the same path may be a different one, on this box only."""
        try:
            if cluster_file(self._log).read_text() == self._namespace:
                return None
        except OSError:
            pass
        return MotionBoothError(
            "The backend's folder {folder} does not exist on {machine}, or is another one: it must be on a disk that "
            "all boxes of the cluster share, at the same path.",
            folder=self._log.parents[1],
            machine=platform.node(),
        )

    def _start(self, attempt: Attempt) -> MotionBoothError | None:
        """Returns why it could not be started, None if it was."""
        if (unfit := self._unfit()) is not None:
            return unfit
        try:
            self._executor.start(_SLOT, attempt)
        except OSError as error:
            return MotionBoothError(
                "No worker process could be started on {machine} ({reason}).", machine=platform.node(), reason=error
            )
        return None

    def _pump(self) -> None:
        while True:
            self._executor.wake.poll(200)
            with self._changed:
                for report in self._executor.receive():
                    self._keep(report)
                self._executor.tick()

    def _keep(self, report: worker_pipe.Report) -> None:
        self._count += 1
        self._latest[type(report)] = (self._count, worker_pipe.encode(report))
        self._changed.notify_all()
