"""Runs attempts on an existing Ray cluster, by way of a driver process: Ray ends the process of a driver that has lost
its cluster, and the server must go on without one.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import msgspec
import zmq
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.text import Text

from motionbooth.server import ray_pipe, worker_pipe
from motionbooth.server.attempts import Attempt, AttemptId
from motionbooth.server.executor import Device, Executor, MakeExecutor
from motionbooth.server.keys import server_keys
from motionbooth.server.logs import ray_log, worker_log
from motionbooth.server.piped_process import PipedProcess, inbox
from motionbooth.server.ray_cluster import Cluster
from motionbooth.server.ray_worker import cluster_file
from motionbooth.server.worker_pipe import Report

log = logging.getLogger("motionbooth.ray")
_SECONDS_TO_LEAVE = 6.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0  # seconds before the next driver starts


def on_cluster(
    address: str, workers: int | None = None, gpus_each: float | None = None, sandbox: bool = False
) -> MakeExecutor:
    """Workers on the boxes of the cluster at `address`; see Cluster. `sandbox`: in one, on each box where it works."""

    def make(context: zmq.Context[zmq.Socket[bytes]], home: Path, command: list[str]) -> Executor:
        backend = hashlib.sha256(server_keys(home).public.encode()).hexdigest()[:12]
        cluster = Cluster(address, f"motionbooth-{backend}", workers, gpus_each)
        if sandbox and sys.platform == "linux":
            python, *arguments = command
            command = [python, "-m", "motionbooth.server.ray_sandbox", str(home.resolve()), *arguments]
        return RayExecutor(context, command, worker_log(home), cluster)

    return make


@dataclass
class _Slot:
    location: str = ""
    is_ready: bool = False
    attempt: AttemptId | None = None


class RayExecutor:
    """See Executor. Raises InvalidInput if Ray is not installed. `command` and `log_file` as in DriverSetup."""

    outlives_server = True

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], command: list[str], log_file: Path, cluster: Cluster
    ) -> None:
        if find_spec("ray") is None:
            raise InvalidInput('The Ray executor needs Ray: pip install "motionbooth[ray]", on every box.')
        cluster_file(log_file).write_text(cluster.namespace)
        self._context = context
        setup = msgspec.json.encode(ray_pipe.DriverSetup(command, str(log_file), cluster)).decode()
        self._driver_command = [sys.executable, "-m", "motionbooth.server.ray_driver", setup]
        self._driver_log = ray_log(log_file.parents[1])
        self._address = cluster.address
        self._endpoint = f"inproc://ray-driver-{id(self)}"
        self.wake = inbox(context, self._endpoint)
        self.problem: Text | None = Text.of(
            "The backend is connecting to the Ray cluster at {address}; jobs wait until then.", address=self._address
        )
        self._slots: dict[str, _Slot] = {}
        self._found: dict[str, AttemptId] | None = None
        self._generation = 0
        self._driver: PipedProcess | None = None
        self._start_at = float("-inf")
        self._pause = _FIRST_PAUSE
        self.tick()

    def devices(self) -> list[Device]:
        return [Device(name, slot.location) for name, slot in self._slots.items()]

    def idle(self) -> list[str]:
        return [name for name, slot in self._slots.items() if slot.is_ready and slot.attempt is None]

    def adopt(self) -> dict[str, AttemptId] | None:
        found, self._found = self._found, None
        return found

    def start(self, slot: str, attempt: Attempt) -> None:
        self._slots[slot].attempt = attempt.id
        self._send(ray_pipe.StartIn(slot, attempt))

    def cancel(self, id: AttemptId, grace: float) -> None:
        self._send(ray_pipe.Cancel(id, grace))

    def receive(self) -> list[Report]:
        found: list[Report] = []
        while True:
            try:
                generation, data = self.wake.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return found
            if int(generation) == self._generation:
                found += self._received(data)

    def tick(self) -> None:
        """Start a driver if there is none."""
        if self._driver is None and time.monotonic() >= self._start_at:
            self._generation += 1
            self._driver = PipedProcess(
                self._context, self._endpoint, self._generation, self._driver_command, self._driver_log, {}
            )

    def close(self) -> None:
        """End the idle workers, which frees their GPUs. Running attempts continue, for the next server to adopt."""
        self._send(ray_pipe.Leave())
        if self._driver is not None:
            self._driver.close(_SECONDS_TO_LEAVE)
        self.wake.close(linger=0)

    def _send(self, message: ray_pipe.ToDriver) -> None:
        if self._driver is not None:
            self._driver.send(message)

    def _received(self, data: bytes) -> list[Report]:
        if not data:
            self._driver_ended()
            return []
        match message := ray_pipe.from_driver_decoder.decode(data):
            case ray_pipe.Connected(attempts):
                log.info("connected to the Ray cluster at %s", self._address)
                self.problem, self._pause = None, _FIRST_PAUSE
                self._found = attempts
                self._slots = {name: _Slot(attempt=attempt) for name, attempt in attempts.items()}
            case ray_pipe.Slots(slots):
                self._update(slots)
            case ray_pipe.Refused(error):
                self.problem = Text.of(
                    "No worker can be reached: {reason} Jobs wait, and the backend keeps trying.", reason=error
                )
            case _:
                return self._reported(message)
        return []

    def _update(self, states: list[ray_pipe.SlotState]) -> None:
        known = self._slots
        self._slots = {
            state.name: _Slot(state.location, state.is_ready, known.get(state.name, _Slot()).attempt)
            for state in states
        }
        for name, slot in known.items():
            # Given up before the attempt reached it, which the driver is about to report.
            if name not in self._slots and slot.attempt is not None:
                self._slots[name] = _Slot(slot.location, False, slot.attempt)

    def _reported(self, report: Report) -> list[Report]:
        slot = next((slot for slot in self._slots.values() if slot.attempt == report.id), None)
        if slot is None:
            return []
        if not isinstance(report, worker_pipe.Progressed | worker_pipe.Previewed):
            slot.attempt = None
        return [report]

    def _driver_ended(self) -> None:
        """Its attempts may still run: the next driver finds them, or not."""
        assert self._driver is not None
        self._driver.close()
        self._driver = None
        self._slots.clear()
        self._found = None
        if self.problem is None:
            self.problem = Text.of(
                "No worker can be reached: the connection to the Ray cluster at {address} was lost. Jobs wait, and the "
                "backend keeps trying.",
                address=self._address,
            )
        log.warning("%s", self.problem)
        self._start_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
