"""Runs attempts on an existing Ray cluster: a named, detached actor for each worker, which the next server adopts."""

from __future__ import annotations

import hashlib
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
from motionbooth_protocol.errors import InvalidInput, MotionBoothError, Unreachable

from motionbooth.server import worker_pipe
from motionbooth.server.attempts import Attempt, AttemptId
from motionbooth.server.executor import Device, Executor, MakeExecutor
from motionbooth.server.keys import server_keys
from motionbooth.server.logs import worker_log
from motionbooth.server.ray_worker import RayWorker, cluster_file
from motionbooth.server.worker_pipe import Report

log = logging.getLogger("motionbooth.ray")
_SECONDS_FOR_REPORTS = 2.0
_SECONDS_TO_ADOPT = 10.0
_SECONDS_TO_CONNECT = 5.0
_SECONDS_BEFORE_RETRY = 2.0  # after the loss of an actor
_READY, _UNFIT, _LOST, _REPORT = b"ready", b"unfit", b"lost", b"report"
_WAITING = "on the cluster, waiting for room"


@dataclass(frozen=True)
class Cluster:
    """`address` as in ray.init ("auto", "10.0.0.1:6379", "ray://..."); `workers` None: one for each GPU.

    `namespace` keeps the actors of one backend apart from those of others.
    """

    address: str
    namespace: str
    workers: int | None = None
    gpus_each: float | None = None  # None: 1 if the cluster has GPUs, otherwise 0
    seconds_before_unfit_retry: float = 30.0  # on a box that cannot work


def on_cluster(address: str, workers: int | None = None, gpus_each: float | None = None) -> MakeExecutor:
    """Workers on the boxes of the cluster at `address`; see Cluster."""

    def make(context: zmq.Context[zmq.Socket[bytes]], home: Path, command: list[str]) -> Executor:
        backend = hashlib.sha256(server_keys(home).public.encode()).hexdigest()[:12]
        cluster = Cluster(address, f"motionbooth-{backend}", workers, gpus_each)
        return RayExecutor(context, command, worker_log(home), cluster)

    return make


class RayExecutor:
    """See Executor. Raises InvalidInput if Ray is not installed or lacks the GPUs, Unreachable if no cluster answers.

    `command` is Python and its arguments, which must be valid on every box, as must the folder of the log.
    """

    outlives_server = True

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], command: list[str], log_file: Path, cluster: Cluster
    ) -> None:
        self._ray = _connected(cluster)
        boxes = sum(node["Alive"] for node in self._ray.nodes())
        workers, gpus_each = _worker_count(cluster, self._ray.cluster_resources(), boxes)
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
        cluster_file(log_file).write_text(cluster.namespace)
        workers_on_box = 1 if gpus_each else -(-workers // boxes)
        arguments = (command[1:], str(log_file), cluster.namespace, workers_on_box)  # each box has its own Python
        retry = cluster.seconds_before_unfit_retry
        self._slots = {
            name: _ClusterSlot(self._ray, actor_type.options(name=name, get_if_exists=True), arguments, name, retry)
            for name in (f"ray-{index}" for index in range(1, workers + 1))
        }
        self._context = context
        self._endpoint = f"inproc://ray-reports-{id(self)}"
        self.wake = context.socket(zmq.PULL)
        self.wake.setsockopt(zmq.RCVHWM, 0)
        self.wake.bind(self._endpoint)

    def devices(self) -> list[Device]:
        return [Device(slot.name, slot.location) for slot in self._slots.values()]

    def idle(self) -> list[str]:
        return [name for name, slot in self._slots.items() if slot.actor is not None and slot.attempt is None]

    def adopt(self) -> dict[str, AttemptId]:
        """Also starts to listen to all actors."""
        for slot in self._slots.values():
            slot.find()
        found = {name: slot.attempt for name, slot in self._slots.items() if slot.attempt is not None}
        for slot in self._slots.values():
            slot.listen(self._context, self._endpoint)
        return found

    def start(self, slot: str, attempt: Attempt) -> None:
        self._slots[slot].attempt = attempt.id
        self._slots[slot].send(attempt)

    def cancel(self, id: AttemptId, grace: float) -> None:
        for slot in self._slots.values():
            if slot.attempt == id:
                slot.send(worker_pipe.Stop(id), grace)

    def receive(self) -> list[Report]:
        found: list[Report] = []
        while True:
            try:
                name, kind, data = self.wake.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return found
            found += self._slots[name.decode()].receive(kind, data)

    def tick(self) -> None:
        """Nothing to do: the actors kill their workers themselves."""

    def close(self) -> None:
        """End the idle workers, which frees their GPUs. Running attempts continue, for the next server to adopt."""
        for slot in self._slots.values():
            slot.leave()
        for slot in self._slots.values():
            slot.join()
        self.wake.close(linger=0)
        self._ray.shutdown()


class _ClusterSlot:
    """A worker slot on the cluster: its actor, replaced when it is lost, and the thread that receives its reports."""

    def __init__(
        self, ray: Any, actor_type: Any, arguments: tuple[list[str], str, str, int], name: str, unfit_retry: float
    ) -> None:
        self.name = name
        self.location = _WAITING
        self.attempt: AttemptId | None = None
        self.actor: Any = None  # None while it is not ready
        self._unfit_retry = unfit_retry
        self._ray = ray
        self._actor_type = actor_type
        self._arguments = arguments
        self._pending: Any = None  # the actor that waits for room on the cluster
        self._ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._leaving = threading.Event()
        self._thread: threading.Thread | None = None

    def find(self) -> None:
        """Adopt the actor of an earlier server, if there is one and it answers."""
        try:
            actor = self._ray.get_actor(self.name)
            box, self.attempt, _ = self._ray.get(actor.state.remote(), timeout=_SECONDS_TO_ADOPT)
        except (ValueError, self._ray.exceptions.RayError):  # none, or lost, or hanging: a new one is created
            return
        self.actor, self.location = actor, f"on {box}"

    def listen(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        """Send reports to `endpoint` from now on, and create an actor if there is none."""
        self._thread = threading.Thread(
            target=self._listen, args=(context, endpoint, self.actor), name=f"from-{self.name}", daemon=True
        )
        self._thread.start()

    def send(self, command: worker_pipe.Command, grace: float = 0.0) -> None:
        if self.actor is not None:
            self.actor.command.remote(worker_pipe.encode(command), grace)

    def receive(self, kind: bytes, data: bytes) -> list[Report]:
        """Handle a message of the slot's thread."""
        if kind == _READY:
            self.actor, self.location = self._ready.get(), f"on {data.decode()}"
            return []
        if kind == _UNFIT:
            self.location = data.decode()
            return []
        if kind == _LOST:
            return self._lost()
        report = worker_pipe.report_decoder.decode(data)
        if report.id != self.attempt:
            return []
        if not isinstance(report, worker_pipe.Progressed | worker_pipe.Previewed):
            self.attempt = None
        return [report]

    def leave(self) -> None:
        """End the actor if it is idle or still pending."""
        self._leaving.set()
        for actor in (self._pending, self.actor if self.attempt is None else None):
            if actor is not None:
                self._ray.kill(actor)

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(_SECONDS_FOR_REPORTS + 1)

    def _lost(self) -> list[Report]:
        attempt, self.actor, self.location, self.attempt = self.attempt, None, _WAITING, None
        if attempt is None:
            return []
        error = MotionBoothError(
            "The cluster lost the worker: its machine went down or ran out of memory. For lack of memory, try fewer "
            "frames."
        )
        return [worker_pipe.Exited(attempt, error=error.report)]

    def _listen(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, actor: Any) -> None:
        """Listen to one actor after the other, until the server leaves."""
        with context.socket(zmq.PUSH) as push:
            push.setsockopt(zmq.SNDHWM, 0)
            push.connect(endpoint)
            while not self._leaving.is_set():
                try:
                    if actor is None:
                        actor = self._new_actor(push)
                    else:
                        self._forward_reports(actor, push)
                except self._ray.exceptions.RayError as error:
                    actor = None
                    if not self._leaving.is_set():
                        log.warning("%s is lost: %s", self.name, str(error).splitlines()[0])
                        push.send_multipart([self.name.encode(), _LOST, b""])
                        self._leaving.wait(_SECONDS_BEFORE_RETRY)

    def _new_actor(self, push: zmq.Socket[bytes]) -> Any:
        """A new actor on a box that can work. If the box cannot, waits a while and returns None."""
        actor, box, unfit_reason = self._create()
        if not unfit_reason:
            self._ready.put(actor)
            push.send_multipart([self.name.encode(), _READY, box.encode()])
            return actor
        log.warning("%s cannot work: %s", self.name, unfit_reason)
        push.send_multipart([self.name.encode(), _UNFIT, unfit_reason.encode()])
        self._ray.kill(actor)
        self._leaving.wait(self._unfit_retry)
        return None

    def _create(self) -> tuple[Any, str, str]:
        """A new actor, the name of its box, and why that is unfit; waits until the cluster has room for it."""
        self._pending = self._actor_type.remote(*self._arguments)
        if self._leaving.is_set():  # leave() may have missed this actor
            self._ray.kill(self._pending)
        box, attempt, unfit_reason = self._ray.get(self._pending.state.remote())
        if attempt is not None:  # an old actor that did not answer in time: its job was started elsewhere
            self._ray.kill(self._pending)
            return self._create()
        actor, self._pending = self._pending, None
        return actor, box, unfit_reason

    def _forward_reports(self, actor: Any, push: zmq.Socket[bytes]) -> None:
        last = 0
        while not self._leaving.is_set():
            last, reports = self._ray.get(actor.reports.remote(last, _SECONDS_FOR_REPORTS))
            for report in reports:
                push.send_multipart([self.name.encode(), _REPORT, report])


def _connected(cluster: Cluster) -> Any:
    """The module `ray`, connected to the cluster."""
    try:
        import ray
    except ImportError:
        raise InvalidInput('The Ray executor needs Ray: pip install "motionbooth[ray]", on every box.') from None
    before = signal.getsignal(signal.SIGTERM)
    try:
        _check_address(cluster.address)
        ray.init(address=cluster.address, namespace=cluster.namespace, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise Unreachable(
            "No Ray cluster answers at {address} ({reason}). Start one with `ray start --head`, or give the address "
            "of a running one with --ray-address.",
            address=cluster.address,
            reason=str(error).splitlines()[0],
        ) from error
    finally:
        signal.signal(signal.SIGTERM, before)  # Ray installs its own handler; the server has one
    return ray


def _check_address(address: str) -> None:
    """Raises OSError if nothing listens at HOST:PORT; Ray itself would take minutes to notice."""
    found = re.fullmatch(r"(?:ray://)?([^:/]+):(\d+)", address)
    if found is not None:
        socket.create_connection((found[1], int(found[2])), _SECONDS_TO_CONNECT).close()


def _worker_count(cluster: Cluster, resources: dict[str, float], boxes: int) -> tuple[int, float]:
    """The number of workers, and of GPUs for each."""
    gpus = resources.get("GPU", 0.0)
    each = cluster.gpus_each if cluster.gpus_each is not None else float(gpus > 0)
    if each > gpus:
        raise InvalidInput(
            "Each worker needs {each:g} GPUs, but the cluster at {address} has {gpus:g} in all. Use --gpus-each 0 "
            "to run on CPUs, or add machines with GPUs.",
            each=each,
            address=cluster.address,
            gpus=gpus,
        )
    return cluster.workers or (int(gpus / each) if each else boxes), each
