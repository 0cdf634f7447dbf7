"""Requests and their replies over a connection that may break. Needs pyzmq; no bpy, no torch.

This module reconnects, not ZeroMQ: ZeroMQ gives up after a refusal, and would send into a session that the server does
not know. Requests are idempotent, so pending ones are sent again on the new connection.
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
from .errors import Busy, Canceled, Damaged, Malformed, NoSession, Unreachable
from .limits import PROTOCOL_VERSION
from .link import Link, WrongServer

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds between attempts to connect again

ReplyType = TypeVar("ReplyType", bound=messages.Reply)
Result = TypeVar("Result")
OnPush = Callable[[messages.AnyReply], None]  # receives what the server sends unasked


class Dialogue:
    """A session with one backend. Not thread-safe.

    `timeout`: seconds for one reply, and for the first connection. `patience`: seconds of silence after which a
    transfer, a submission or `follow` gives up. `stop`: once set, waiting raises Canceled. `on_push` receives the
    events, progress and previews of all attached jobs as they arrive. `ping_after`: seconds of silence after which the
    server is pinged.
    """

    def __init__(
        self,
        connection: Connection,
        timeout: float = 10.0,
        patience: float = 300.0,
        stop: threading.Event | None = None,
        name: str = "",
        on_push: OnPush | None = None,
        ping_after: float = 5.0,
    ) -> None:
        self.sessions = 0  # opened so far; a new one has no job attached
        self._connection = connection
        self._timeout = timeout
        self._patience = patience
        self._stop = stop or threading.Event()
        self._name = name
        self._on_push = on_push
        self._ping_after = ping_after
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
        """End the session. Jobs continue. The client cannot be used afterwards."""
        if self._link is not None:
            with contextlib.suppress(Unreachable):  # it is closed anyway
                self._send(messages.Bye(id=0))
            self._drop_link(linger_milliseconds=200)
        self._context.term()

    def connect(self) -> messages.Welcome:
        """Connect, unless connected already. Returns the server's greeting.

        Raises Unreachable, NotAuthorized or VersionMismatch.
        """
        if self._link is None or self._welcome is None:
            self._link = Link(self._context, self._connection, self._timeout, self._stop)
            hello = messages.Hello(id=0, version=PROTOCOL_VERSION, client=self._name)
            try:
                self._welcome = self._ask(hello, messages.Welcome)
            except BaseException:
                self._drop_link()
                raise
            self.sessions += 1
        return self._welcome

    def listen(self, seconds: float) -> None:
        """Receive reports of the attached jobs for `seconds`. Raises Unreachable or NoSession if the session ended."""
        self.connect()
        deadline = time.monotonic() + seconds
        try:
            while (left := deadline - time.monotonic()) > 0 and self._receive(left) is not None:
                pass
            if time.monotonic() - self._heard_at > self._ping_after:
                self._ask(messages.Ping(id=0), messages.Pong)
        except (Unreachable, NoSession):
            self._drop_link()
            raise

    # For the client's own methods

    def _persist(self, once: Callable[[], Result], patience: float) -> Result:
        """Call `once`; if the connection breaks, again on a new one, until the server is silent for `patience` s."""
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
            except Busy:  # the server is alive and will reply later
                pass
            if self._stop.wait(pause):
                raise Canceled("Stopped waiting for the backend.")
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _persist_damaged(self, once: Callable[[], None]) -> None:
        """Run a transfer. If the data kept from an earlier one proves to be corrupt, start again from the beginning."""
        try:
            self._persist(once, self._patience)
        except Damaged:
            self._persist(once, self._patience)

    def _request(self, request: messages.AnyRequest, kind: type[ReplyType], patience: float | None = None) -> ReplyType:
        """The reply to a request, over as many connections as it takes; `patience` is `timeout` by default."""
        return self._persist(lambda: self._ask(request, kind), self._timeout if patience is None else patience)

    def _ask(self, request: messages.AnyRequest, kind: type[ReplyType]) -> ReplyType:
        return self._reply((self._send(request),), kind)[0]

    def _send(self, request: messages.AnyRequest, payload: bytes | None = None) -> int:
        """Send the request under a new id, and return the id."""
        id = next(self._ids)
        self._connected().send(encode(msgspec.structs.replace(request, id=id), payload))
        return id

    def _reply(self, ids: Container[int], kind: type[ReplyType]) -> tuple[ReplyType, bytes | None]:
        """The next reply to one of these requests, and its payload. Raises the error that the server replies with."""
        deadline = time.monotonic() + self._timeout
        while (left := deadline - time.monotonic()) > 0:
            received = self._receive(left, ids)
            if received is None:
                break
            reply, payload = received
            if reply.re in ids:
                if not isinstance(reply, kind):
                    raise Malformed(
                        "The backend replied {found} instead of {expected}.",
                        found=type(reply).__name__,
                        expected=kind.__name__,
                    )
                return reply, payload
        raise self._silent()

    def _next(self) -> messages.AnyReply:
        """The next message of any kind. After `ping_after` seconds of silence, ping the server."""
        received = self._receive(self._ping_after)
        if received is None:
            received = self._receive(self._timeout, (self._send(messages.Ping(id=0)),))
        if received is None:
            raise self._silent()
        return received[0]

    def _receive(self, timeout: float, ids: Container[int] = ()) -> tuple[messages.AnyReply, bytes | None] | None:
        """The next message and its payload; None after `timeout` seconds.

        Raises an error that is about one of these requests or the whole session. Errors about abandoned requests are
        returned like any other message.
        """
        frames = self._connected().receive(timeout)
        if frames is None:
            return None
        reply, payload = decode_reply(frames)
        self._heard_at = time.monotonic()
        if isinstance(reply, messages.Draining):
            raise Unreachable(
                "The backend at {address} is stopping; jobs are kept. Start it again.", address=self._connection.address
            )
        if isinstance(reply, messages.Error) and (reply.re == 0 or reply.re in ids):
            raise reply.report.error()
        if isinstance(reply, messages.Models) and self._welcome is not None:
            self._welcome = msgspec.structs.replace(self._welcome, models=reply.models)
        if reply.re == 0 and self._on_push is not None:
            self._on_push(reply)
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
            "The backend at {address} is connected but did not reply for {seconds:.0f} s. It may be overloaded or "
            "hung: check its log, or restart it.",
            address=self._connection.address,
            seconds=self._timeout,
        )
