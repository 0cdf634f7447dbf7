"""Runs attempts on this machine: a worker process for each slot, kept warm between jobs and replaced when it dies."""

from __future__ import annotations

import itertools
import logging
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq
from motionbooth_protocol.errors import MotionBoothError

from motionbooth.server import worker_pipe
from motionbooth.server.attempt_watch import AttemptWatch
from motionbooth.server.attempts import Attempt, AttemptId
from motionbooth.server.devices import local_devices
from motionbooth.server.executor import Device, Executor, MakeExecutor
from motionbooth.server.logs import worker_log
from motionbooth.server.piped_process import PipedProcess, inbox
from motionbooth.server.worker_pipe import Report

log = logging.getLogger("motionbooth.executor")
_SECONDS_DEAF = 10.0  # between two ticks


def on_this_machine(workers: int | None = None) -> MakeExecutor:
    """A worker for each GPU of this machine, or `workers` on its CPU; see local_devices."""

    def make(context: zmq.Context[zmq.Socket[bytes]], home: Path, command: list[str]) -> Executor:
        return LocalExecutor(context, command, worker_log(home), local_devices(workers))

    return make


@dataclass
class WorkerSlot:
    """A device, the process that works on it, and its attempt."""

    device: Device
    process: PipedProcess | None = None
    attempt: AttemptId | None = None
    watch: AttemptWatch | None = None  # of the attempt
    kill_at: float | None = None
    end: Report | None = None  # what to report when the worker, which was killed for it, has ended
    killed: bool = False  # whatever the process still says is too late

    def kill(self) -> None:
        assert self.process is not None
        self.killed = True
        self.process.kill()


class LocalExecutor:
    """`command` starts a worker (see worker.main); the standard error of all workers goes to the file `log`."""

    outlives_server = False
    problem = None

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], command: list[str], log: Path, devices: Sequence[Device]
    ) -> None:
        self._context = context
        self._command = command
        self._log = log
        self._endpoint = f"inproc://worker-reports-{id(self)}"
        self.wake = inbox(context, self._endpoint)
        self._generations = itertools.count(1)
        self._slots = {device.name: WorkerSlot(device) for device in devices}
        self._alive: dict[int, WorkerSlot] = {}  # by the generation of the slot's process
        self._is_new = True
        self._ticked_at = time.monotonic()

    def devices(self) -> list[Device]:
        return [slot.device for slot in self._slots.values()]

    def idle(self) -> list[str]:
        return [name for name, slot in self._slots.items() if slot.attempt is None]

    def adopt(self) -> dict[str, AttemptId] | None:
        """No attempts: a worker process ends with its server."""
        self._is_new, is_new = False, self._is_new
        return {} if is_new else None

    def start(self, slot: str, attempt: Attempt) -> None:
        its = self._slots[slot]
        if its.process is None:
            its.process = PipedProcess(
                self._context,
                self._endpoint,
                next(self._generations),
                self._command,
                self._log,
                its.device.environment,
            )
            self._alive[its.process.generation] = its
        its.attempt, its.watch = attempt.id, AttemptWatch(attempt.limits, time.monotonic())
        its.process.send(attempt)

    def cancel(self, id: AttemptId, grace: float) -> None:
        for slot in self._slots.values():
            if slot.process is not None and slot.attempt == id:
                slot.process.send(worker_pipe.Stop(id))
                slot.kill_at = slot.kill_at or time.monotonic() + grace

    def receive(self) -> list[Report]:
        found: list[Report] = []
        while True:
            try:
                generation, data = self.wake.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return found
            slot = self._alive.get(int(generation))
            if slot is not None:
                found += self._reports_in(slot, data)

    def tick(self) -> None:
        """Kill the workers that were asked to stop and have not, that hang, or whose time is over."""
        now = time.monotonic()
        deaf, self._ticked_at = now - self._ticked_at, now
        for slot in self._slots.values():
            if slot.process is None or slot.attempt is None or slot.watch is None:
                continue
            if deaf > _SECONDS_DEAF:  # this process was suspended, or its machine
                slot.watch.forgive(deaf)
            if (error := slot.watch.overtime(now)) is not None:
                slot.end = worker_pipe.Failed(slot.attempt, error=error.report)
            elif (error := slot.watch.stuck(now)) is not None:
                slot.end = worker_pipe.Exited(slot.attempt, error=error.report)
            if slot.end is not None or (slot.kill_at is not None and now > slot.kill_at):
                slot.kill()

    def close(self) -> None:
        """End the workers, busy or not, and wait until they are gone."""
        processes = [slot.process for slot in self._alive.values() if slot.process is not None]
        for process in processes:
            process.dismiss()
        for process in processes:
            process.close()
        self._alive.clear()
        self.wake.close(linger=0)

    def _reports_in(self, slot: WorkerSlot, data: bytes) -> list[Report]:
        if not data:
            return self._worker_ended(slot)
        try:
            report = worker_pipe.decode_worker_message(data)
        except Exception:  # not only msgspec's own, see codec.py; reports of other workers must not be lost
            log.exception("the worker on %s sent bytes that are not a report; it is killed", slot.device.name)
            if slot.attempt is not None:
                error = MotionBoothError(
                    "The worker sent something that is not a report, and was ended; see server.log on the backend."
                )
                slot.end = worker_pipe.Exited(slot.attempt, error=error.report)
            slot.kill()
            return []
        if slot.killed:
            return []
        if report.id != slot.attempt or slot.watch is None:
            return []
        slot.watch.heard(time.monotonic())
        if isinstance(report, worker_pipe.Alive):
            return []
        if isinstance(report, worker_pipe.Progressed):
            slot.watch.progressed(report.report, time.monotonic())
        if isinstance(report, worker_pipe.Finished | worker_pipe.Failed):
            slot.attempt = slot.watch = slot.kill_at = None
        return [report]

    def _worker_ended(self, slot: WorkerSlot) -> list[Report]:
        assert slot.process is not None
        slot.process.close()
        status, attempt, end = slot.process.status, slot.attempt, slot.end
        del self._alive[slot.process.generation]
        slot.process = slot.attempt = slot.watch = slot.kill_at = slot.end = None
        slot.killed = False
        return [] if attempt is None else [end or worker_pipe.Exited(attempt, error=exit_error(status).report)]


def exit_error(status: int) -> MotionBoothError:
    """How a worker process ended. `status` as in subprocess (-9: SIGKILL), or as from a sandbox (137)."""
    status = 128 - status if status > 128 else status
    if status >= 0:
        return MotionBoothError(
            "The worker process exited unexpectedly (status {status}); see worker.log on the backend.", status=status
        )
    name = signal.Signals(-status).name if -status in list(signal.Signals) else str(-status)
    if name == "SIGKILL":
        return MotionBoothError(
            "The worker process was killed ({signal}). The machine most likely ran out of memory: try fewer frames, or "
            "a smaller model.",
            signal=name,
        )
    return MotionBoothError("The worker process was killed ({signal}).", signal=name)
