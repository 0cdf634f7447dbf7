"""Requests and their replies over a connection that may break. Needs pyzmq; no bpy, no torch.

A connection that breaks is made again here and not by ZeroMQ, which would never try again after a refusal, and would
send into a session that the server does not know. Every request may be sent twice without harm, so whatever was under
way is asked again on the new connection.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Container
from types import TracebackType
from typing import Self, TypeVar

import msgspec
import zmq

from . import messages
from .codec import decode_reply, encode
from .connection import Connection
from .errors import Busy, Canceled, Damaged, Malformed, NoSession, Unreachable, VersionMismatch, by_code
from .limits import PROTOCOL_MAJOR, PROTOCOL_MINOR
from .link import Link, WrongServer

_QUIET_SECONDS = 5.0  # of a followed job, before the client asks whether the server is still there
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds between attempts to connect again

ReplyType = TypeVar("ReplyType", bound=messages.Reply)
Result = TypeVar("Result")
OnPush = Callable[[messages.AnyReply, bytes | None], None]  # what the server sends of its own accord, and its payload


class Dialogue:
    """A session with one backend, to be used by one thread at a time.

    `timeout`: seconds for one answer, and for the first connection. `patience`: seconds for which a transfer, a
    submission or the following of a job goes on trying after the backend was last heard. `stop`: once set, waiting
    raises Canceled. `on_push` hears events, progress and previews of all jobs that are attached, as they arrive.
    """

    def __init__(
        self,
        connection: Connection,
        timeout: float = 10.0,
        patience: float = 300.0,
        stop: threading.Event | None = None,
        name: str = "",
        on_push: OnPush | None = None,
    ) -> None:
        self.sessions = 0  # begun so far; in a new one nothing is attached
        self._connection = connection
        self._timeout = timeout
        self._patience = patience
        self._stop = stop or threading.Event()
        self._name = name
        self._on_push = on_push
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._ids = itertools.count(1)
        self._link: Link | None = None
        self._welcome: messages.Welcome | None = None
        self._heard_at = float("-inf")

    def __enter__(self) -> Self:
        try:
            self.connect()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session; jobs go on. The client cannot be used after that."""
        if self._link is not None:
            with contextlib.suppress(Unreachable):  # the end is what was wanted
                self._send(messages.Bye(id=0))
            self._drop_link(linger_milliseconds=200)
        self._context.term()

    def connect(self) -> messages.Welcome:
        """Connect if that is still to be done; the server's greeting.

        Raises Unreachable, NotAuthorized or VersionMismatch, each with what to do about it.
        """
        if self._link is None or self._welcome is None:
            self._link = Link(self._context, self._connection, self._timeout, self._stop)
            hello = messages.Hello(id=0, major=PROTOCOL_MAJOR, minor=PROTOCOL_MINOR, client=self._name)
            try:
                self._welcome = self._ask(hello, messages.Welcome)
            except BaseException:
                self._drop_link()
                raise
            self.sessions += 1
        return self._welcome

    def listen(self, seconds: float) -> None:
        """Let what is attached arrive for so long. Raises Unreachable or NoSession where the session ended."""
        self.connect()
        deadline = time.monotonic() + seconds
        try:
            while (left := deadline - time.monotonic()) > 0 and self._receive(left) is not None:
                pass
            if time.monotonic() - self._heard_at > _QUIET_SECONDS:
                self._ask(messages.Ping(id=0), messages.Pong)
        except (Unreachable, NoSession):
            self._drop_link()
            raise

    # For the client's own methods

    def _persist(self, once: Callable[[], Result], patience: float) -> Result:
        """Do it; where the connection breaks, again on a new one, until the server was not heard for `patience` s."""
        began, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            try:
                self.connect()
                return once()
            except (Unreachable, NoSession, WrongServer):
                self._drop_link()
                never_there = self._welcome is None
                if never_there or time.monotonic() - max(began, self._heard_at) > patience:
                    raise
            except Busy:  # it is there, and will answer in a while
                pass
            if self._stop.wait(pause):
                raise Canceled("Stopped waiting for the backend.")
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _persist_damaged(self, once: Callable[[], None]) -> None:
        """A transfer; from its beginning a second time where what was kept of an earlier one proves to be spoilt."""
        try:
            self._persist(once, self._patience)
        except Damaged:
            self._persist(once, self._patience)

    def _ask_since(self, minor: int, request: messages.AnyRequest, kind: type[ReplyType]) -> ReplyType:
        """Ask, with patience for one answer, what a backend answers from this minor version on."""

        def once() -> ReplyType:
            spoken = self.connect().minor
            if spoken < minor:
                raise VersionMismatch(
                    f"The backend speaks protocol {PROTOCOL_MAJOR}.{spoken}, which does not know "
                    f"{type(request).__name__} ({PROTOCOL_MAJOR}.{minor}): update the backend."
                )
            return self._ask(request, kind)

        return self._persist(once, self._timeout)

    def _ask(self, request: messages.AnyRequest, kind: type[ReplyType]) -> ReplyType:
        number = self._send(request)
        return self._reply((number,), kind)[0]

    def _send(self, request: messages.AnyRequest, payload: bytes | None = None) -> int:
        """Send under a new id, which is returned."""
        number = next(self._ids)
        self._connected().send(encode(msgspec.structs.replace(request, id=number), payload))
        return number

    def _reply(self, numbers: Container[int], kind: type[ReplyType]) -> tuple[ReplyType, bytes | None]:
        """The next answer to one of these requests. Raises the error that the server answers instead."""
        deadline = time.monotonic() + self._timeout
        while (left := deadline - time.monotonic()) > 0:
            received = self._receive(left, numbers)
            if received is None:
                break
            reply, payload = received
            if reply.re in numbers:
                if not isinstance(reply, kind):
                    raise Malformed(f"The backend answered {type(reply).__name__} where {kind.__name__} was due.")
                return reply, payload
        raise self._silent()

    def _next(self) -> tuple[messages.AnyReply, bytes | None]:
        """The next message of any kind, and its payload; after a while of silence the server is asked for one."""
        received = self._receive(_QUIET_SECONDS)
        if received is None:
            number = self._send(messages.Ping(id=0))
            received = self._receive(self._timeout, (number,))
        if received is None:
            raise self._silent()
        return received

    def _receive(self, timeout: float, numbers: Container[int] = ()) -> tuple[messages.AnyReply, bytes | None] | None:
        """The next message; None after `timeout` seconds. Raises an error that is meant for one of these requests, or
        for the whole session; late refusals of what was given up before are passed over.
        """
        frames = self._connected().receive(timeout)
        if frames is None:
            return None
        reply, payload = decode_reply(frames)
        self._heard_at = time.monotonic()
        if isinstance(reply, messages.Draining):
            raise Unreachable(f"The backend at {self._connection.address} is stopping; jobs are kept. Start it again.")
        if isinstance(reply, messages.Error) and (reply.re == 0 or reply.re in numbers):
            raise by_code(reply.code)(reply.message)
        if reply.re == 0 and self._on_push is not None:
            self._on_push(reply, payload)
        return reply, payload

    def _connected(self) -> Link:
        if self._link is None:
            raise Unreachable("There is no connection to the backend.")
        return self._link

    def _drop_link(self, linger_milliseconds: int = 0) -> None:
        if self._link is not None:
            self._link.close(linger_milliseconds)
        self._link = None

    def _silent(self) -> Unreachable:
        return Unreachable(
            f"The backend at {self._connection.address} is there but did not answer for {self._timeout:.0f} s. It may "
            "be overloaded or hang: look at its log, or start it again."
        )
