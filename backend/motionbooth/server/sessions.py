"""The sessions of connected clients: their requests and replies, and the publishing of events to attached clients.

A durable event is read from the store for each attached client and sent when its socket has room, so that a slow reader
costs neither memory nor other clients' time. Progress and previews are sent if there is room, and dropped otherwise.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import zmq
from motionbooth_protocol import messages
from motionbooth_protocol.codec import decode_request, encode
from motionbooth_protocol.errors import (
    Busy,
    Malformed,
    MotionBoothError,
    NoSession,
    NotAuthorized,
    NotFound,
    OverLimit,
    VersionMismatch,
)
from motionbooth_protocol.jobs import TERMINAL_STATES
from motionbooth_protocol.limits import PROTOCOL_VERSION
from motionbooth_protocol.reports import PreviewReport, ProgressReport

from motionbooth.server.attempts import JobNumber
from motionbooth.server.handlers import Reply, RequestHandlers
from motionbooth.server.job_queries import JobQueries
from motionbooth.server.keys import AuthorizedKeys, Key
from motionbooth.server.live_state import LiveState
from motionbooth.server.rate_limit import RateLimit
from motionbooth.server.settings import ServerSettings
from motionbooth.server.views import Views

log = logging.getLogger("motionbooth.sessions")
_MESSAGES_AT_ONCE = 64
_MAX_SESSIONS_OF_KEY = 1000
_SECONDS_BETWEEN_SWEEPS = 0.5


@dataclass
class Session:
    """A connection that has sent Hello. `attached`: the last event sent of each job that the client is attached to."""

    owner: str
    attached: dict[JobNumber, int] = field(default_factory=dict)
    heard_at: float = field(default_factory=time.monotonic)


class Sessions:
    """All sessions, by the routing id that ZeroMQ gave to the connection."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        settings: ServerSettings,
        authorized: AuthorizedKeys,
        queries: JobQueries,
        handlers: RequestHandlers,
        views: Views,
        live: LiveState,
    ) -> None:
        self._socket = socket
        self._authorized = authorized
        self._queries = queries
        self._handlers = handlers
        self._views = views
        self._live = live
        self._rate_limit = RateLimit(settings.limits.requests_per_second)
        self._idle_seconds = settings.idle_seconds
        self._sessions: dict[bytes, Session] = {}
        self._attached: defaultdict[JobNumber, set[bytes]] = defaultdict(set)  # the sessions of each job
        self._unsent: set[bytes] = set()  # sessions whose send queue was full
        self._swept_at = float("-inf")

    def receive(self) -> None:
        """Reply to waiting requests, but to no more than a batch, so that the rest of the server is not held up."""
        for _ in range(_MESSAGES_AT_ONCE):
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            self._reply_to(frames)

    def tick(self) -> None:
        """Publish what is new and what had no room; end the sessions of idle and unauthorized clients."""
        for job_number, report in self._live.take_updates():
            if report is None:
                self._publish_events(job_number)
            else:
                self._publish_report(job_number, report)
        unsent, self._unsent = self._unsent, set()
        for client in unsent & self._sessions.keys():
            for job_number in list(self._sessions[client].attached):
                self._send_events(client, job_number)
        if time.monotonic() - self._swept_at > _SECONDS_BETWEEN_SWEEPS:
            self._sweep()

    def drain(self) -> None:
        """Announce to all clients that the server is stopping."""
        for client in list(self._sessions):
            self._send(client, encode(messages.Draining()))

    def _sweep(self) -> None:
        now = self._swept_at = time.monotonic()
        for client, session in list(self._sessions.items()):
            if self._authorized.find(session.owner) is None:
                self._refuse(client)
            # An attached client may only listen for hours. If it is gone, the next message to it fails.
            elif not session.attached and now - session.heard_at > self._idle_seconds:
                self._end_session(client)

    # Publishing

    def _publish_events(self, job_number: JobNumber) -> None:
        for client in list(self._attached.get(job_number, ())):
            self._send_events(client, job_number)

    def _publish_report(self, job_number: JobNumber, report: ProgressReport | PreviewReport) -> None:
        clients = list(self._attached.get(job_number, ()))
        with suppress(NotFound):  # the owner has removed the job meanwhile
            frames = self._encoded(job_number, report) if clients else []
            for client in clients:
                self._send(client, frames)

    def _encoded(self, job_number: JobNumber, report: ProgressReport | PreviewReport) -> list[bytes]:
        job = self._queries.job_id(job_number)
        if isinstance(report, ProgressReport):
            return encode(messages.Progress(job=job, report=report))
        return encode(messages.Preview(job=job, report=report))

    def _send_events(self, client: bytes, job_number: JobNumber) -> None:
        session = self._sessions.get(client)
        if session is None:  # ended by a failed send just now
            return
        try:
            events = self._queries.events(job_number, session.attached[job_number])
        except NotFound:  # the owner has removed the job
            self._detach(client, session, job_number)
            return
        for event in events:
            if not self._send(client, encode(event)):
                self._unsent.add(client)
                return
            session.attached[job_number] = event.seq
            if event.state in TERMINAL_STATES:
                self._detach(client, session, job_number)
                session.heard_at = time.monotonic()  # it is idle from now on
                return

    # Requests

    def _reply_to(self, frames: list[zmq.Frame]) -> None:
        client = frames[0].bytes
        owner = frames[-1].get("User-Id")
        request_id = 0
        payload: bytes | None = None
        reply: messages.AnyReply
        try:
            key = self._authorized.find(owner) if isinstance(owner, str) else None
            if key is None:
                self._refuse(client)
                return
            request, data = decode_request([frame.bytes for frame in frames[1:4]])
            request_id = request.id
            reply, payload = self._handle(client, key, request, data)
        except MotionBoothError as error:
            if isinstance(error, Malformed):
                log.warning("from %s: %s", self._authorized.name(str(owner)), error)
            reply = _error(request_id, error)
        except Exception:
            log.exception("a request failed")
            reply = _error(
                request_id,
                MotionBoothError(
                    "The request failed because of a bug in the backend; its owner finds the details in server.log."
                ),
            )
        self._send(client, encode(reply, payload))
        if isinstance(reply, messages.Snapshot):
            self._send_missed(client, reply.job.id)

    def _handle(self, client: bytes, key: Key, request: messages.AnyRequest, payload: bytes | None) -> Reply:
        if isinstance(request, messages.Hello):
            return self._begin_session(client, key, request), None
        session = self._sessions.get(client)
        if session is None:
            raise NoSession("This connection has no session; it must begin with Hello.")
        session.heard_at = time.monotonic()
        if not isinstance(request, messages.PutChunk | messages.Fetch):
            self._check_rate(key)
        if isinstance(request, messages.Attach) and payload is None:
            return self._attach(client, session, key, request), None
        if isinstance(request, messages.Bye):
            self._end_session(client)
        return self._handlers.handle(key, request, payload)

    def _begin_session(self, client: bytes, key: Key, request: messages.Hello) -> messages.Welcome:
        if request.version != PROTOCOL_VERSION:
            newer, older = ("add-on", "backend") if request.version > PROTOCOL_VERSION else ("backend", "add-on")
            raise VersionMismatch(
                "The {newer} is newer than the {older} (protocol {version} there, {own} here): update the {older}.",
                newer=newer,
                older=older,
                version=request.version,
                own=PROTOCOL_VERSION,
            )
        self._end_session(client)
        if sum(session.owner == key.public for session in self._sessions.values()) >= _MAX_SESSIONS_OF_KEY:
            raise OverLimit(
                "This key has {most} open sessions, which is the limit.",
                most=_MAX_SESSIONS_OF_KEY,
            )
        self._sessions[client] = Session(key.public)
        self._live.connections = len(self._sessions)
        return self._views.welcome(key, request.id)

    def _attach(self, client: bytes, session: Session, key: Key, request: messages.Attach) -> messages.Snapshot:
        job_number = self._views.job_number(key, request.job)
        session.attached[job_number] = request.after_seq
        self._attached[job_number].add(client)
        return self._views.snapshot(job_number, request.id)

    def _send_missed(self, client: bytes, job_id: str) -> None:
        """The events that a newly attached client has missed, and the latest reports."""
        session = self._sessions.get(client)
        key = self._authorized.find(session.owner) if session is not None else None
        if session is None or key is None:  # gone while the reply was sent
            return
        job_number = self._views.job_number(key, job_id)
        if job_number in session.attached:
            self._send_events(client, job_number)
            for report in (self._live.progress.get(job_number), self._live.previews.get(job_number)):
                if report is not None:
                    self._send(client, self._encoded(job_number, report))

    def _check_rate(self, key: Key) -> None:
        if not self._rate_limit.allows(key.public):
            raise Busy(
                "This key sent more than {rate} requests a second; try this one again later.",
                rate=self._rate_limit.rate,
            )

    # The socket

    def _send(self, client: bytes, frames: Sequence[bytes]) -> bool:
        """False if the client has no room now, or is gone. The client requests a lost reply again."""
        try:
            self._socket.send_multipart([client, *frames], zmq.DONTWAIT)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._end_session(client)
            return False
        return True

    def _refuse(self, client: bytes) -> None:
        error = NotAuthorized("The backend's owner has revoked this key; ask for a new one.")
        self._send(client, encode(_error(0, error)))
        self._end_session(client)

    def _end_session(self, client: bytes) -> None:
        session = self._sessions.pop(client, None)
        if session is not None:
            for job_number in list(session.attached):
                self._detach(client, session, job_number)
        self._live.connections = len(self._sessions)
        self._unsent.discard(client)

    def _detach(self, client: bytes, session: Session, job_number: JobNumber) -> None:
        session.attached.pop(job_number, None)
        self._attached[job_number].discard(client)
        if not self._attached[job_number]:
            del self._attached[job_number]


def _error(request_id: int, error: MotionBoothError) -> messages.Error:
    return messages.Error(re=request_id, report=error.report, retryable=error.retryable)
