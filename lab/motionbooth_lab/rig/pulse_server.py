"""A real server whose simulated workers run endless jobs that report ten times a second.

`python -m motionbooth_lab.rig.pulse_server HOME ADDRESS SLOTS`. A thread of the server process sends
the reports over the same kind of socket as a worker.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import zmq
from motionbooth.server import worker_pipe
from motionbooth.server.attempts import Attempt, AttemptId
from motionbooth.server.executor import Device
from motionbooth.server.serve import serve
from motionbooth.server.settings import ServerSettings
from motionbooth.server.worker_pipe import Report
from motionbooth_protocol.reports import ProgressReport

from motionbooth_lab.rig.server_process import SMALL_MODEL

_REPORTS_A_SECOND = 10
_STEPS = 1000


class PulseExecutor:
    """Every attempt reports its next step ten times a second, forever."""

    outlives_server = False
    problem = None

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], slots: int) -> None:
        self._context = context
        self._devices = [Device(f"pulse {index}", "none") for index in range(slots)]
        self._running: dict[str, AttemptId] = {}
        self._stop = threading.Event()
        self.wake = context.socket(zmq.PULL)
        self.wake.setsockopt(zmq.RCVHWM, 0)
        self.wake.bind("inproc://pulse")
        self._thread = threading.Thread(target=self._report)
        self._thread.start()

    def devices(self) -> list[Device]:
        return self._devices

    def idle(self) -> list[str]:
        return [device.name for device in self._devices if device.name not in self._running]

    def adopt(self) -> dict[str, AttemptId] | None:
        return None

    def start(self, slot: str, attempt: Attempt) -> None:
        self._running[slot] = attempt.id

    def cancel(self, id: AttemptId, grace: float) -> None:
        """They never end."""

    def receive(self) -> list[Report]:
        found: list[Report] = []
        while True:
            try:
                found.append(worker_pipe.report_decoder.decode(self.wake.recv(zmq.DONTWAIT)))
            except zmq.Again:
                return found

    def tick(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.wake.close(linger=0)

    def _report(self) -> None:
        step = 0
        with self._context.socket(zmq.PUSH) as reports:
            reports.setsockopt(zmq.LINGER, 0)
            reports.connect("inproc://pulse")
            while not self._stop.is_set():
                step += 1
                attempts = list(self._running.values())
                for id in attempts:
                    report = worker_pipe.Progressed(id, ProgressReport("sampling", step % _STEPS, _STEPS, 1.0))
                    reports.send(worker_pipe.encode(report))
                    # Spread over the tenth of a second, as the reports of independent workers are.
                    self._stop.wait(1 / _REPORTS_A_SECOND / len(attempts))
                if not attempts:
                    self._stop.wait(1 / _REPORTS_A_SECOND)


def main(home: Path, address: str, slots: int) -> None:
    make = lambda context, *_: PulseExecutor(context, slots)  # noqa: E731
    serve(ServerSettings(home, address, [SMALL_MODEL], make_executor=make))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
