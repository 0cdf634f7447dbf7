"""The Ray driver, a separate process: it keeps a named, detached actor for each worker of a Ray cluster, which the
next driver adopts. It exits as soon as the server's end of the pipe is closed, or the cluster's head is gone.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import IO, Any

import msgspec
import zmq
from motionbooth_protocol.errors import MotionBoothError

from motionbooth.server import ray_pipe, worker_pipe
from motionbooth.server.logs import formatter
from motionbooth.server.piped_process import inbox, outbox
from motionbooth.server.ray_cluster import Room, connected, head_address, head_answers, room_of
from motionbooth.server.ray_slots import ClusterSlot
from motionbooth.server.ray_worker import RayWorker

log = logging.getLogger("motionbooth.ray")
_PREFIX = "ray-"
_COMMAND, _ROOM, _GONE = b"command", b"room", b"gone"
_ENDPOINT = "inproc://driver"
_CHECKS_OF_HEAD = 2  # that must fail in a row


class RayDriver:
    """Keeps as many slots as the cluster has room for. `send` sends a message to the server."""

    def __init__(self, ray: Any, setup: ray_pipe.DriverSetup, send: Callable[[ray_pipe.FromDriver], None]) -> None:
        self._ray = ray
        self._setup = setup
        self._send = send
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._inbox = inbox(self._context, _ENDPOINT)
        self._head = head_address(ray, setup.cluster)
        self._room = room_of(setup.cluster, ray)
        self._slots: dict[str, ClusterSlot] = {}
        self._sent: ray_pipe.Slots | None = None

    def serve(self) -> None:
        """Adopt what runs on the cluster, then work until the server leaves or the head is gone."""
        self._adopt()
        threading.Thread(target=self._watch_cluster, name="cluster", daemon=True).start()
        while self._handle(*self._inbox.recv_multipart()):
            pass

    def _adopt(self) -> None:
        """Actors of earlier drivers are kept, even if there are more than the cluster is to have now."""
        names = [
            actor["name"]
            for actor in self._ray.util.list_named_actors(all_namespaces=True)
            if actor["namespace"] == self._setup.cluster.namespace
        ]
        slots = [self._new_slot(name) for name in sorted(names, key=_index)]
        with ThreadPoolExecutor(max(1, len(slots)), "adopt") as pool:  # one that hangs must not delay the others
            list(pool.map(ClusterSlot.find, slots))
        self._slots = {slot.name: slot for slot in slots}
        self._send(ray_pipe.Connected({slot.name: slot.attempt for slot in slots if slot.attempt is not None}))
        for slot in slots:
            slot.listen(self._context, _ENDPOINT)
        self._fit()
        self._send_slots()

    def _handle(self, name: bytes, kind: bytes, data: bytes) -> bool:
        """Handle a message of a thread. False: it is time to exit."""
        reports: list[worker_pipe.Report] = []
        if kind == _COMMAND:
            command = ray_pipe.to_driver_decoder.decode(data)
            if isinstance(command, ray_pipe.Leave):
                self._leave()
                return False
            reports = self._carry_out(command)
        elif kind == _ROOM:
            self._room = msgspec.msgpack.decode(data, type=Room)
            self._fit()
        elif kind == _GONE:
            log.warning("the head of the cluster at %s does not answer", self._head)
            return False
        elif (slot := self._slots.get(name.decode())) is not None:
            reports = slot.receive(kind, data)
        self._send_slots()
        for report in reports:
            self._send(report)
        return True

    def _carry_out(self, command: ray_pipe.StartIn | ray_pipe.Cancel) -> list[worker_pipe.Report]:
        if isinstance(command, ray_pipe.StartIn):
            slot = self._slots.get(command.slot)
            if slot is None or slot.actor is None:  # lost in the meantime
                lost = MotionBoothError("The cluster lost the worker before the job started there.", code="worker_lost")
                return [worker_pipe.Lost(command.attempt.id, error=lost.report)]
            slot.start(command.attempt)
        else:
            for slot in self._slots.values():
                if slot.attempt == command.id:
                    slot.cancel(command.id, command.grace)
        return []

    def _fit(self) -> None:
        """Have as many slots as there is room for. Only a slot that has no actor is given up."""
        spare = [slot for slot in self._slots.values() if slot.actor is None and slot.attempt is None]
        while len(self._slots) > self._room.workers and spare:
            slot = spare.pop()
            slot.leave()
            del self._slots[slot.name]
        free = (name for index in count(1) if (name := f"{_PREFIX}{index}") not in self._slots)
        while len(self._slots) < self._room.workers:
            slot = self._new_slot(next(free))
            self._slots[slot.name] = slot
            slot.listen(self._context, _ENDPOINT)

    def _new_slot(self, name: str) -> ClusterSlot:
        cluster, gpus_each = self._setup.cluster, self._room.gpus_each
        actor_type = self._ray.remote(
            namespace=cluster.namespace,
            lifetime="detached",
            num_cpus=0 if gpus_each else 1,
            num_gpus=gpus_each,
            # On CPUs, spread the workers over the boxes.
            scheduling_strategy="DEFAULT" if gpus_each else "SPREAD",
            max_concurrency=4,  # a command must not wait for a call that waits for reports
            max_restarts=0,  # we create the next actor, and so know that the attempt is lost
        )(RayWorker)
        # Each box has its own Python.
        arguments = (self._setup.command[1:], self._setup.log, cluster.namespace, self._room.workers_on_box)
        options = actor_type.options(name=name, get_if_exists=True)
        return ClusterSlot(self._ray, options, arguments, name, cluster.seconds_before_unfit_retry, self._head)

    def _send_slots(self) -> None:
        """If they have changed."""
        slots = ray_pipe.Slots(
            [ray_pipe.SlotState(name, slot.location, slot.actor is not None) for name, slot in self._slots.items()]
        )
        if slots != self._sent:
            self._sent = slots
            self._send(slots)

    def _watch_cluster(self) -> None:
        """In a thread, since a head that is gone lets Ray's calls hang."""
        failures, pause = 0, threading.Event()
        with outbox(self._context, _ENDPOINT) as push:
            while failures < _CHECKS_OF_HEAD:
                pause.wait(self._setup.cluster.seconds_between_counts if not failures else 1.0)
                if not head_answers(self._head):
                    failures += 1
                    continue
                failures = 0
                with suppress(MotionBoothError, self._ray.exceptions.RayError):  # for now
                    push.send_multipart([b"", _ROOM, msgspec.msgpack.encode(room_of(self._setup.cluster, self._ray))])
            push.send_multipart([b"", _GONE, b""])

    def _leave(self) -> None:
        for slot in self._slots.values():
            slot.leave()
        for slot in self._slots.values():
            slot.join()
        self._ray.shutdown()


def _index(name: str) -> int:
    digits = name.removeprefix(_PREFIX)
    return int(digits) if digits.isdecimal() else 0


class _Commands:
    """Passes the server's messages on from a thread, and ends the process with its server."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self.is_connected = False
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def _read(self) -> None:
        leaving = False
        push = outbox(zmq.Context.instance(), _ENDPOINT)
        while data := worker_pipe.read(self._pipe):
            leaving = isinstance(ray_pipe.to_driver_decoder.decode(data), ray_pipe.Leave)
            push.send_multipart([b"", _COMMAND, data])
        if not (leaving and self.is_connected):
            os._exit(0)


def main(setup: ray_pipe.DriverSetup) -> None:
    pipe, reports = worker_pipe.of_this_process()
    handler = logging.StreamHandler()
    handler.setFormatter(formatter("text"))
    logging.getLogger("motionbooth").addHandler(handler)
    commands = _Commands(pipe)

    def send(message: ray_pipe.FromDriver) -> None:
        worker_pipe.write(reports, message)

    try:
        driver = RayDriver(connected(setup.cluster), setup, send)
        commands.is_connected = True
        driver.serve()
    except MotionBoothError as error:
        send(ray_pipe.Refused(error.report))
    except Exception:
        log.exception("the driver failed")
    os._exit(0)  # threads may hang in calls of Ray


if __name__ == "__main__":
    main(ray_pipe.setup_decoder.decode(sys.argv[1].encode()))
