"""A worker slot on a Ray cluster, in the driver's process."""

from __future__ import annotations

import logging
import queue
import threading
from contextlib import suppress
from typing import Any

import zmq
from motionbooth_protocol.errors import MotionBoothError

from motionbooth.server import worker_pipe
from motionbooth.server.attempts import Attempt, AttemptId
from motionbooth.server.piped_process import outbox
from motionbooth.server.ray_cluster import head_answers
from motionbooth.server.worker_pipe import Report

log = logging.getLogger("motionbooth.ray")
_SECONDS_FOR_REPORTS = 2.0
_SECONDS_FOR_ANSWER = 60.0  # of an actor, after which it is lost
_SECONDS_TO_ADOPT = 10.0
_SECONDS_BEFORE_RETRY = 2.0  # after the loss of an actor
_READY, _UNFIT, _SUSPECT, _LOST, _REPORT = b"ready", b"unfit", b"suspect", b"lost", b"report"
_WAITING = "on the cluster, waiting for room"


class ClusterSlot:
    """A worker slot on the cluster: its actor, replaced when it is lost, and the thread that receives its reports."""

    def __init__(
        self,
        ray: Any,
        actor_type: Any,
        arguments: tuple[list[str], str, str, int],
        name: str,
        unfit_retry: float,
        head: str,
    ) -> None:
        self.name = name
        self.location = _WAITING
        self.attempt: AttemptId | None = None
        self.actor: Any = None  # None while it is not ready
        self._unfit_retry = unfit_retry
        self._head = head
        self._ray = ray
        self._actor_type = actor_type
        self._arguments = arguments
        self._pending: Any = None  # the actor that waits for room on the cluster
        self._ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._leaving = threading.Event()
        self._thread: threading.Thread | None = None

    def find(self) -> None:
        """Adopt the actor of an earlier driver. One that does not answer is killed: its attempt runs again."""
        actor = None
        try:
            actor = self._ray.get_actor(self.name)
            box, self.attempt, _ = self._ray.get(actor.state.remote(), timeout=_SECONDS_TO_ADOPT)
        except (ValueError, self._ray.exceptions.RayError):  # none, or lost, or hanging: a new one is created
            self._discard(actor)
        else:
            self.actor, self.location = actor, f"on {box}"

    def listen(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        """Send reports to `endpoint` from now on, and create an actor if there is none."""
        self._thread = threading.Thread(
            target=self._listen, args=(context, endpoint, self.actor), name=f"from-{self.name}", daemon=True
        )
        self._thread.start()

    def start(self, attempt: Attempt) -> None:
        """Only while there is an actor."""
        self.attempt = attempt.id
        self.actor.command.remote(worker_pipe.encode(attempt), 0.0)

    def cancel(self, id: AttemptId, grace: float) -> None:
        if self.actor is not None:
            self.actor.command.remote(worker_pipe.encode(worker_pipe.Stop(id)), grace)

    def receive(self, kind: bytes, data: bytes) -> list[Report]:
        """Handle a message of the slot's thread."""
        if kind == _READY:
            self.actor, self.location = self._ready.get(), f"on {data.decode()}"
            return []
        if kind == _UNFIT:
            self.location = data.decode()
            return []
        if kind == _SUSPECT:
            self.actor, self.location = None, _WAITING
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
        attempt, self.attempt = self.attempt, None
        if attempt is None:
            return []
        error = MotionBoothError(
            "The cluster lost the worker: its machine went down or ran out of memory. For lack of memory, try fewer "
            "frames.",
            code="worker_lost",
        )
        return [worker_pipe.Exited(attempt, error=error.report)]

    def _listen(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, actor: Any) -> None:
        """Listen to one actor after the other, until the server leaves."""
        with outbox(context, endpoint) as push:
            while not self._leaving.is_set():
                try:
                    if actor is None:
                        actor = self._new_actor(push)
                    else:
                        self._forward_reports(actor, push)
                except self._ray.exceptions.RayError as error:
                    push.send_multipart([self.name.encode(), _SUSPECT, b""])
                    self._discard(actor)
                    actor = None
                    self._leaving.wait(_SECONDS_BEFORE_RETRY)
                    # Without the head nothing is known of the attempt, and the driver is about to exit.
                    if not self._leaving.is_set() and head_answers(self._head):
                        log.warning("%s is lost: %s", self.name, str(error).partition("\n")[0])
                        push.send_multipart([self.name.encode(), _LOST, b""])

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
            last, reports = self._ray.get(
                actor.reports.remote(last, _SECONDS_FOR_REPORTS), timeout=_SECONDS_FOR_REPORTS + _SECONDS_FOR_ANSWER
            )
            for report in reports:
                push.send_multipart([self.name.encode(), _REPORT, report])

    def _discard(self, actor: Any) -> None:
        """Kill an actor that seems lost: it may only hang."""
        if actor is not None:
            with suppress(self._ray.exceptions.RayError, ValueError):
                self._ray.kill(actor)
