"""A real server that runs any number of endless jobs which report ten times a second, in place of workers.

`python -m motionbooth_lab.rig.pulse_server HOME ADDRESS PLACES`. The reports are made by a thread of the server's own
process and reach it the way that those of a worker's pipe do.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import zmq
from motionbooth.server import worker_pipe
from motionbooth.server.local_executor import Attempt, Place, Report
from motionbooth.server.serve import serve
from motionbooth.server.store import Work
from motionbooth_protocol.reports import ProgressReport

from motionbooth_lab.rig.server_process import SMALL_MODEL

_REPORTS_A_SECOND = 10
_STEPS = 1000


class PulseExecutor:
    """Every attempt reports its next step ten times a second, for ever."""

    lasting = False

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], places: int) -> None:
        self._context = context
        self._places = [Place(f"pulse {number}", "none") for number in range(places)]
        self._running: dict[str, Attempt] = {}
        self._stop = threading.Event()
        self.wake = context.socket(zmq.PULL)
        self.wake.setsockopt(zmq.RCVHWM, 0)
        self.wake.bind("inproc://pulse")
        self._thread = threading.Thread(target=self._report)
        self._thread.start()

    def places(self) -> list[Place]:
        return self._places

    def idle(self) -> list[str]:
        return [place.name for place in self._places if place.name not in self._running]

    def adopt(self) -> dict[str, Attempt]:
        return {}

    def start(self, place: str, work: Work) -> None:
        self._running[place] = (work.number, work.attempt)

    def cancel(self, number: int, attempt: int, grace: float) -> None:
        """They never end."""

    def receive(self) -> list[Report]:
        found: list[Report] = []
        while True:
            try:
                found.append(worker_pipe.reports.decode(self.wake.recv(zmq.DONTWAIT)))
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
                for number, attempt in attempts:
                    report = worker_pipe.Advanced(
                        number=number, attempt=attempt, report=ProgressReport("sampling", step % _STEPS, _STEPS, 1.0)
                    )
                    reports.send(worker_pipe.encode(report))
                    # Spread over the tenth of a second, as those of workers that know nothing of each other.
                    self._stop.wait(1 / _REPORTS_A_SECOND / len(attempts))
                if not attempts:
                    self._stop.wait(1 / _REPORTS_A_SECOND)


def main(home: Path, address: str, places: int) -> None:
    serve(home, address, [SMALL_MODEL], make_executor=lambda context, *_: PulseExecutor(context, places))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
