"""Runs attempts on an existing Ray cluster: a named, detached actor for each worker, found again by the next server."""

from __future__ import annotations

import logging
import queue
import re
import signal
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from motionbooth_protocol.errors import InvalidInput, Unreachable

from motionbooth.server import worker_pipe
from motionbooth.server.local_executor import Attempt, Place, Report
from motionbooth.server.ray_worker import RayWorker, mark
from motionbooth.server.store import Work

log = logging.getLogger("motionbooth.ray")
_SECONDS_FOR_REPORTS = 2.0
_SECONDS_TO_ADOPT = 10.0
_SECONDS_TO_KNOCK = 5.0
_SECONDS_BEFORE_ANOTHER = 2.0  # try for a place whose actor was lost
_SECONDS_TO_MEND = 30.0  # a box that cannot work
_READY, _UNFIT, _LOST, _REPORT = b"ready", b"unfit", b"lost", b"report"
_WAITING = "on the cluster, waiting for room"


@dataclass(frozen=True)
class Cluster:
    """`address` as for ray.init ("auto", "10.0.0.1:6379", "ray://..."); `workers` None: one for each of its GPUs.

    `namespace` keeps the actors of one backend apart from those of others.
    """

    address: str
    namespace: str
    workers: int | None = None
    gpus_each: float | None = None  # None: 1 where the cluster has GPUs, else 0


class RayExecutor:
    """See Executor. Raises InvalidInput where Ray is not installed or has no GPU, Unreachable where no cluster answers.

    `command` is Python and its arguments; these and the log's folder must be good on every box.
    """

    lasting = True

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], command: list[str], log_file: Path, cluster: Cluster
    ) -> None:
        self._ray = _joined(cluster)
        boxes = sum(node["Alive"] for node in self._ray.nodes())
        workers, gpus_each = _division(cluster, self._ray.cluster_resources(), boxes)
        actor_type = self._ray.remote(
            namespace=cluster.namespace,
            lifetime="detached",
            num_cpus=0 if gpus_each else 1,
            num_gpus=gpus_each,
            # Where it takes the cores of its box, not two workers on one and none on the other.
            scheduling_strategy="DEFAULT" if gpus_each else "SPREAD",
            max_concurrency=4,  # waiting for reports must not keep orders out
            max_restarts=0,  # we start the next one, and know then that the attempt is lost
        )(RayWorker)
        mark(log_file).write_text(cluster.namespace)
        share = 1 if gpus_each else -(-workers // boxes)
        arguments = (command[1:], str(log_file), cluster.namespace, share)  # each box has its own Python
        self._seats = {
            name: _Seat(self._ray, actor_type.options(name=name, get_if_exists=True), arguments, name)
            for name in (f"ray-{number}" for number in range(1, workers + 1))
        }
        self._context = context
        self._endpoint = f"inproc://ray-reports-{id(self)}"
        self.wake = context.socket(zmq.PULL)
        self.wake.setsockopt(zmq.RCVHWM, 0)
        self.wake.bind(self._endpoint)

    def places(self) -> list[Place]:
        return [Place(seat.name, seat.device) for seat in self._seats.values()]

    def idle(self) -> list[str]:
        return [name for name, seat in self._seats.items() if seat.actor is not None and seat.attempt is None]

    def adopt(self) -> dict[str, Attempt]:
        """Also begins to listen to all places."""
        for seat in self._seats.values():
            seat.find()
        found = {name: seat.attempt for name, seat in self._seats.items() if seat.attempt is not None}
        for seat in self._seats.values():
            seat.listen(self._context, self._endpoint)
        return found

    def start(self, place: str, work: Work) -> None:
        seat = self._seats[place]
        seat.attempt = (work.number, work.attempt)
        seat.order(worker_pipe.Run(number=work.number, attempt=work.attempt, spec=work.spec))

    def cancel(self, number: int, attempt: int, grace: float) -> None:
        for seat in self._seats.values():
            if seat.attempt == (number, attempt):
                seat.order(worker_pipe.Stop(number=number, attempt=attempt), grace)

    def receive(self) -> list[Report]:
        found: list[Report] = []
        while True:
            try:
                name, kind, data = self.wake.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return found
            found += self._seats[name.decode()].heard(kind, data)

    def tick(self) -> None:
        """Nothing: the actors keep the time by themselves."""

    def close(self) -> None:
        """Idle workers end and give their GPUs back; what runs goes on, for the next server to adopt."""
        for seat in self._seats.values():
            seat.leave()
        for seat in self._seats.values():
            seat.join()
        self.wake.close(linger=0)
        self._ray.shutdown()


class _Seat:
    """A place on the cluster: its actor, made anew when it is lost, and the thread that waits for its reports."""

    def __init__(self, ray: Any, actor_type: Any, arguments: tuple[list[str], str, str, int], name: str) -> None:
        self.name = name
        self.device = _WAITING
        self.attempt: Attempt | None = None
        self.actor: Any = None  # None while it is not ready
        self._ray = ray
        self._actor_type = actor_type
        self._arguments = arguments
        self._making: Any = None  # the actor that waits for room on the cluster
        self._ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._leaving = threading.Event()
        self._thread: threading.Thread | None = None

    def find(self) -> None:
        """Take up the actor of an earlier server, if it is there and answers."""
        try:
            actor = self._ray.get_actor(self.name)
            box, self.attempt, _ = self._ray.get(actor.attempt.remote(), timeout=_SECONDS_TO_ADOPT)
        except (ValueError, self._ray.exceptions.RayError):  # no such actor, or it is lost or deaf: a new one is made
            return
        self.actor, self.device = actor, f"on {box}"

    def listen(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        """Have reports sent to `endpoint`, and an actor made where there is none."""
        self._thread = threading.Thread(
            target=self._listen, args=(context, endpoint, self.actor), name=f"from-{self.name}", daemon=True
        )
        self._thread.start()

    def order(self, command: worker_pipe.Command, grace: float = 0.0) -> None:
        if self.actor is not None:
            self.actor.order.remote(worker_pipe.encode(command), grace)

    def heard(self, kind: bytes, data: bytes) -> list[Report]:
        """What the thread sent."""
        if kind == _READY:
            self.actor, self.device = self._ready.get(), f"on {data.decode()}"
            return []
        if kind == _UNFIT:
            self.device = data.decode()
            return []
        if kind == _LOST:
            return self._lost()
        report = worker_pipe.all_reports.decode(data)
        if (report.number, report.attempt) != self.attempt:
            return []
        if not isinstance(report, worker_pipe.Advanced | worker_pipe.Pictured):
            self.attempt = None
        return [report]

    def leave(self) -> None:
        """End what is idle or not there yet."""
        self._leaving.set()
        for actor in (self._making, self.actor if self.attempt is None else None):
            if actor is not None:
                self._ray.kill(actor)

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(_SECONDS_FOR_REPORTS + 1)

    def _lost(self) -> list[Report]:
        attempt, self.actor, self.device, self.attempt = self.attempt, None, _WAITING, None
        if attempt is None:
            return []
        reason = "The cluster lost the worker: its box went down, or ran out of memory. Try fewer frames if so."
        return [worker_pipe.Exited(number=attempt[0], attempt=attempt[1], reason=reason)]

    def _listen(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, actor: Any) -> None:
        """To one actor after the other, until the server leaves."""
        with context.socket(zmq.PUSH) as push:
            push.setsockopt(zmq.SNDHWM, 0)
            push.connect(endpoint)
            while not self._leaving.is_set():
                try:
                    if actor is None:
                        actor = self._settled(push)
                    else:
                        self._pass_on(actor, push)
                except self._ray.exceptions.RayError as error:
                    actor = None
                    if not self._leaving.is_set():
                        log.warning("%s is lost: %s", self.name, str(error).splitlines()[0])
                        push.send_multipart([self.name.encode(), _LOST, b""])
                        self._leaving.wait(_SECONDS_BEFORE_ANOTHER)

    def _settled(self, push: zmq.Socket[bytes]) -> Any:
        """A new actor, on a box that can work; None after a while where it cannot."""
        actor, box, lack = self._make()
        if not lack:
            self._ready.put(actor)
            push.send_multipart([self.name.encode(), _READY, box.encode()])
            return actor
        log.warning("%s cannot work: %s", self.name, lack)
        push.send_multipart([self.name.encode(), _UNFIT, lack.encode()])
        self._ray.kill(actor)
        self._leaving.wait(_SECONDS_TO_MEND)
        return None

    def _make(self) -> tuple[Any, str, str]:
        """A new actor, the name of its box, and what that lacks; as soon as the cluster has room for it."""
        self._making = self._actor_type.remote(*self._arguments)
        if self._leaving.is_set():  # just now: leave() may have missed it
            self._ray.kill(self._making)
        box, attempt, lack = self._ray.get(self._making.attempt.remote())
        if attempt is not None:  # it was there and did not answer in time: what it does is done elsewhere by now
            self._ray.kill(self._making)
            return self._make()
        actor, self._making = self._making, None
        return actor, box, lack

    def _pass_on(self, actor: Any, push: zmq.Socket[bytes]) -> None:
        last = 0
        while not self._leaving.is_set():
            last, reports = self._ray.get(actor.reports.remote(last, _SECONDS_FOR_REPORTS))
            for report in reports:
                push.send_multipart([self.name.encode(), _REPORT, report])


def _joined(cluster: Cluster) -> Any:
    """The module ray, connected to the cluster."""
    try:
        import ray
    except ImportError:
        raise InvalidInput('The Ray executor needs Ray: pip install "motionbooth[ray]", on every box.') from None
    before = signal.getsignal(signal.SIGTERM)
    try:
        _knock(cluster.address)
        ray.init(address=cluster.address, namespace=cluster.namespace, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise Unreachable(
            f"No Ray cluster answers at {cluster.address} ({str(error).splitlines()[0]}). Start one with `ray start "
            "--head`, or give the address of one that runs with --ray-address."
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray puts its own there; to stop in good order is our own affair
    return ray


def _knock(address: str) -> None:
    """Raises OSError where nobody listens at HOST:PORT, which Ray itself would take minutes to find out."""
    place = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address)
    if place is not None:
        socket.create_connection((place[1], int(place[2])), _SECONDS_TO_KNOCK).close()


def _division(cluster: Cluster, resources: dict[str, float], boxes: int) -> tuple[int, float]:
    """How many workers, and how many GPUs for each."""
    gpus = resources.get("GPU", 0.0)
    each = cluster.gpus_each if cluster.gpus_each is not None else float(gpus > 0)
    if each > gpus:
        raise InvalidInput(
            f"Each worker was to have {each:g} GPUs, and the cluster at {cluster.address} has {gpus:g} in all. Use "
            "--gpus-each 0 to work on CPUs, or add boxes with GPUs."
        )
    return cluster.workers or (int(gpus / each) if each else boxes), each
