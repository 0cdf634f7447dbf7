"""The server's socket: who is connected, what they ask, and what they are told.

A durable event is read from the store for each follower and sent when its socket has room, so that a slow reader costs
neither memory nor anybody else's time. Progress is sent if there is room and forgotten if not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import zmq
from motionbooth_protocol import messages
from motionbooth_protocol.codec import decode_request, encode
from motionbooth_protocol.errors import (
    Malformed,
    MotionBoothError,
    NoSession,
    NotAuthorized,
    VersionMismatch,
)
from motionbooth_protocol.jobs import TERMINAL_STATES
from motionbooth_protocol.limits import CHUNK_BYTES, MAX_HEADER_BYTES, PROTOCOL_MAJOR, PROTOCOL_MINOR

from . import pipes
from .blobs import Blobs
from .keys import AuthorizedKeys, KeyPair
from .scheduler import Scheduler
from .store import Store

log = logging.getLogger("motionbooth.sessions")
ZAP_DOMAIN = "motionbooth"
_MESSAGES_AT_ONCE = 64
_SEND_QUEUE = 64  # messages that one client may be behind; 16 MiB at most, when all are chunks
_IDLE_SECONDS = 120.0

Answer = tuple[messages.AnyReply, bytes | None]


@dataclass
class Session:
    """One connection that has said Hello. `follows`: job number -> last event sent."""

    owner: str
    follows: dict[int, int] = field(default_factory=dict)
    heard_at: float = field(default_factory=time.monotonic)


def open_socket(context: zmq.Context[zmq.Socket[bytes]], keys: KeyPair, address: str) -> zmq.Socket[bytes]:
    """The bound ROUTER. Whoever has no key in `authorized/` gets nowhere: encryption is never off."""
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode())
    # Without an authenticator for this domain libzmq would otherwise let every key in.
    socket.setsockopt_string(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    # A full queue must be seen, not drop messages in silence.
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.SNDHWM, _SEND_QUEUE)
    socket.setsockopt(zmq.MAXMSGSIZE, max(MAX_HEADER_BYTES, CHUNK_BYTES))
    socket.setsockopt(zmq.HANDSHAKE_IVL, 10_000)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 5_000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 15_000)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close()
        raise MotionBoothError(
            f"The backend cannot listen on {address} ({error.strerror}). Another program may use the port: stop it, or "
            "choose another one with --address tcp://HOST:PORT."
        ) from None
    return socket


class Sessions:
    """Answers requests and tells followers. `server` is the name by which it greets."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        authorized: AuthorizedKeys,
        store: Store,
        blobs: Blobs,
        models: list[messages.ModelInfo],
        scheduler: Scheduler,
        server: str,
    ) -> None:
        self._socket = socket
        self._authorized = authorized
        self._store = store
        self._blobs = blobs
        self._models = models
        self._server = server
        self._sessions: dict[bytes, Session] = {}
        self._progress: dict[int, messages.Progress] = {}  # of running jobs, the latest
        self._scheduler = scheduler
        self._unsent: set[bytes] = set()  # sessions whose queue was full
        self._handlers: dict[type[messages.AnyRequest], Callable[..., Answer]] = {
            messages.Submit: self._on_submit,
            messages.Attach: self._on_attach,
            messages.Get: self._on_get,
            messages.ListJobs: self._on_list_jobs,
            messages.ListSubjects: self._on_list_subjects,
            messages.Cancel: self._on_cancel,
            messages.Put: self._on_put,
            messages.PutChunk: self._on_put_chunk,
            messages.Fetch: self._on_fetch,
            messages.Ping: self._on_ping,
            messages.Bye: self._on_bye,
        }

    def receive(self) -> None:
        """Answer what waits on the socket, but not so much that the rest of the server waits."""
        for _ in range(_MESSAGES_AT_ONCE):
            try:
                frames = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            self._answer(frames)

    def tick(self) -> None:
        """Send the scheduler's news and what had no room; forget who is gone or not welcome any more."""
        for item in self._scheduler.news():
            if isinstance(item, int):
                self._tell_change(item)
            else:
                self._tell_progress(item)
        unsent, self._unsent = self._unsent, set()
        for identity in unsent & self._sessions.keys():
            for number in list(self._sessions[identity].follows):
                self._send_events(identity, number)
        now = time.monotonic()
        for identity, session in list(self._sessions.items()):
            if session.owner not in self._authorized:
                self._refuse(identity)
            # A follower only listens, for hours perhaps; should it be gone, the next thing sent to it finds out.
            elif not session.follows and now - session.heard_at > _IDLE_SECONDS:
                self._forget(identity)

    def drain(self) -> None:
        """Tell everybody that the server is going away."""
        for identity in list(self._sessions):
            self._send(identity, messages.Draining())

    def _tell_change(self, number: int) -> None:
        self._progress.pop(number, None)
        for identity in self._followers(number):
            self._send_events(identity, number)

    def _tell_progress(self, report: pipes.Advanced) -> None:
        progress = self._progress[report.number] = messages.Progress(
            job=self._store.job(report.number).id,
            stage=report.stage,
            step=report.step,
            steps=report.steps,
            seconds_left=report.seconds_left,
            note=report.note,
        )
        for identity in self._followers(report.number):
            self._send(identity, progress)

    def _followers(self, number: int) -> list[bytes]:
        return [identity for identity, session in self._sessions.items() if number in session.follows]

    def _answer(self, frames: list[zmq.Frame]) -> None:
        identity = frames[0].bytes
        owner = frames[-1].get("User-Id")
        request_id = 0
        try:
            if not isinstance(owner, str) or owner not in self._authorized:
                self._refuse(identity)
                return
            request, payload = decode_request([frame.bytes for frame in frames[1:4]])
            request_id = request.id
            reply, data = self._handle(identity, owner, request, payload)
        except MotionBoothError as error:
            if isinstance(error, Malformed):
                log.warning("from %s: %s", self._authorized.names().get(str(owner)), error)
            reply, data = _refusal(request_id, error), None
        except Exception:
            log.exception("a request failed")
            words = "The backend could not carry this out; its owner finds the reason in server.log."
            reply, data = messages.Error(re=request_id, code=MotionBoothError.code, message=words), None
        self._send(identity, reply, data)
        if isinstance(reply, messages.Snapshot):
            self._send_latest(identity, reply)

    def _handle(self, identity: bytes, owner: str, request: messages.AnyRequest, payload: bytes | None) -> Answer:
        if isinstance(request, messages.Hello):
            welcome = self._welcome(request)
            self._sessions[identity] = Session(owner)
            return welcome, None
        session = self._sessions.get(identity)
        if session is None:
            raise NoSession("The backend does not know this connection; it has to begin with Hello.")
        session.heard_at = time.monotonic()
        handler = self._handlers[type(request)]
        if isinstance(request, messages.PutChunk):
            return handler(session, request, payload)
        if payload is not None:
            raise Malformed(f"{type(request).__name__} has no payload.")
        if isinstance(request, messages.Bye):
            self._forget(identity)
        return handler(session, request)

    def _welcome(self, request: messages.Hello) -> messages.Welcome:
        if request.major != PROTOCOL_MAJOR:
            newer, older = ("add-on", "backend") if request.major > PROTOCOL_MAJOR else ("backend", "add-on")
            raise VersionMismatch(
                f"The {newer} is newer than the {older} (protocol {request.major} there, {PROTOCOL_MAJOR} here): "
                f"update the {older}."
            )
        return messages.Welcome(
            re=request.id, server=self._server, major=PROTOCOL_MAJOR, minor=PROTOCOL_MINOR, models=self._models
        )

    def _on_submit(self, session: Session, request: messages.Submit) -> Answer:
        job, cached = self._scheduler.submit(session.owner, request.job, request.spec, request.priority)
        return messages.Accepted(re=request.id, job=job.id, state=job.state, cached=cached), None

    def _on_attach(self, session: Session, request: messages.Attach) -> Answer:
        number = self._store.number(session.owner, request.job)
        session.follows[number] = request.after_seq
        return self._snapshot(request.id, number), None

    def _on_get(self, session: Session, request: messages.Get) -> Answer:
        return self._snapshot(request.id, self._store.number(session.owner, request.job)), None

    def _on_list_jobs(self, session: Session, request: messages.ListJobs) -> Answer:
        return messages.Jobs(re=request.id, jobs=self._store.jobs(session.owner, request.limit)), None

    def _on_list_subjects(self, session: Session, request: messages.ListSubjects) -> Answer:
        return messages.Subjects(re=request.id, subjects=self._store.subjects(session.owner)), None

    def _on_cancel(self, session: Session, request: messages.Cancel) -> Answer:
        state = self._scheduler.cancel(self._store.number(session.owner, request.job))
        return messages.Canceling(re=request.id, job=request.job, state=state), None

    def _on_put(self, session: Session, request: messages.Put) -> Answer:
        offset = self._blobs.begin(session.owner, request.sha256, request.size)
        return messages.PutHave(re=request.id, sha256=request.sha256, offset=offset), None

    def _on_put_chunk(self, session: Session, request: messages.PutChunk, payload: bytes | None) -> Answer:
        if not payload:
            raise Malformed("PutChunk needs its bytes as payload.")
        offset = self._blobs.append(session.owner, request.sha256, request.offset, payload)
        return messages.PutHave(re=request.id, sha256=request.sha256, offset=offset), None

    def _on_fetch(self, session: Session, request: messages.Fetch) -> Answer:
        data, eof = self._blobs.read(request.sha256, request.offset, request.length)
        return messages.Chunk(re=request.id, sha256=request.sha256, offset=request.offset, eof=eof), data

    def _on_ping(self, session: Session, request: messages.Ping) -> Answer:
        return messages.Pong(re=request.id), None

    def _on_bye(self, session: Session, request: messages.Bye) -> Answer:
        return messages.Pong(re=request.id), None

    def _snapshot(self, request_id: int, number: int) -> messages.Snapshot:
        return messages.Snapshot(re=request_id, job=self._store.job(number), last_seq=self._store.last_seq(number))

    def _send_latest(self, identity: bytes, snapshot: messages.Snapshot) -> None:
        """What a new follower has missed."""
        session = self._sessions.get(identity)
        if session is None:  # gone while it was answered
            return
        number = self._store.number(session.owner, snapshot.job.id)
        if number in session.follows:
            self._send_events(identity, number)
            if number in self._progress:
                self._send(identity, self._progress[number])

    def _send_events(self, identity: bytes, number: int) -> None:
        session = self._sessions.get(identity)
        if session is None:  # gone since it was found to follow
            return
        follows = session.follows
        for event in self._store.events(number, follows[number]):
            if not self._send(identity, event):
                self._unsent.add(identity)
                return
            follows[number] = event.seq
            if event.state in TERMINAL_STATES:
                del follows[number]
                session.heard_at = time.monotonic()  # its silence counts from here
                return

    def _send(self, identity: bytes, reply: messages.AnyReply, payload: bytes | None = None) -> bool:
        """False where the client has no room now, or is gone. An answer that is lost so is asked for again."""
        try:
            self._socket.send_multipart([identity, *encode(reply, payload)], zmq.DONTWAIT)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._forget(identity)
            return False
        return True

    def _refuse(self, identity: bytes) -> None:
        self._send(
            identity, _refusal(0, NotAuthorized("The backend's owner has withdrawn this key; ask for a new one."))
        )
        self._forget(identity)

    def _forget(self, identity: bytes) -> None:
        self._sessions.pop(identity, None)
        self._unsent.discard(identity)


def _refusal(request_id: int, error: MotionBoothError) -> messages.Error:
    return messages.Error(re=request_id, code=error.code, message=str(error), retryable=error.retryable)
