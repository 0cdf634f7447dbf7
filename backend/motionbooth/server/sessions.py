"""Who is connected, what they are answered, and what they are told.

A durable event is read from the store for each follower and sent when its socket has room, so that a slow reader costs
neither memory nor anybody else's time. Progress and previews are sent if there is room and forgotten if not.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
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
from msgspec.structs import replace

from motionbooth.server import worker_pipe
from motionbooth.server.handlers import Answer, Answers
from motionbooth.server.keys import AuthorizedKeys, Key
from motionbooth.server.scheduler import News, Scheduler
from motionbooth.server.store import Store

log = logging.getLogger("motionbooth.sessions")
_MESSAGES_AT_ONCE = 64
_SESSIONS_OF_ONE_KEY = 1000
_IDLE_SECONDS = 120.0
_SWEEP_SECONDS = 0.5


@dataclass
class Session:
    """One connection that has said Hello. `follows`: job number -> last event sent."""

    owner: str
    follows: dict[int, int] = field(default_factory=dict)
    heard_at: float = field(default_factory=time.monotonic)


class Allowance:
    """How many requests a key may still send: `rate` more each second, and never more than those of two seconds."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._left = 2.0 * rate
        self._at = time.monotonic()

    def take(self) -> bool:
        """Use one up; False where there is none."""
        now = time.monotonic()
        self._left = min(2.0 * self._rate, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Sessions:
    """Answers requests and tells followers."""

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        authorized: AuthorizedKeys,
        store: Store,
        scheduler: Scheduler,
        answers: Answers,
    ) -> None:
        self._socket = socket
        self._authorized = authorized
        self._store = store
        self._scheduler = scheduler
        self._answers = answers
        self._sessions: dict[bytes, Session] = {}
        self._followers: defaultdict[int, set[bytes]] = defaultdict(set)  # of each job, by its number
        self._unsent: set[bytes] = set()  # sessions whose queue was full
        self._allowances: dict[str, Allowance] = {}
        self._swept_at = float("-inf")

    def __len__(self) -> int:
        """How many are connected."""
        return len(self._sessions)

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
        for item in latest(self._scheduler.news()):
            with suppress(NotFound):  # its owner has removed it meanwhile
                self._tell(item)
        unsent, self._unsent = self._unsent, set()
        for identity in unsent & self._sessions.keys():
            for number in list(self._sessions[identity].follows):
                self._send_events(identity, number)
        if time.monotonic() - self._swept_at > _SWEEP_SECONDS:
            self._sweep()

    def drain(self) -> None:
        """Tell everybody that the server is going away."""
        for identity in list(self._sessions):
            self._send(identity, encode(messages.Draining()))

    def _sweep(self) -> None:
        now = self._swept_at = time.monotonic()
        running = set(self._store.running())
        for known in (self._answers.progress, self._answers.pictures):
            for number in known.keys() - running:  # reported as it ended
                del known[number]
        for identity, session in list(self._sessions.items()):
            if self._authorized.find(session.owner) is None:
                self._refuse(identity)
            # A follower only listens, for hours perhaps; should it be gone, the next thing sent to it finds out.
            elif not session.follows and now - session.heard_at > _IDLE_SECONDS:
                self._forget(identity)

    # Of the server's own accord

    def _tell(self, item: News) -> None:
        if isinstance(item, int):
            self._tell_change(item)
        elif isinstance(item, worker_pipe.Advanced):
            self._tell_progress(item)
        else:
            self._tell_preview(item)

    def _tell_change(self, number: int) -> None:
        self._answers.progress.pop(number, None)
        self._answers.pictures.pop(number, None)
        for identity in list(self._followers.get(number, ())):
            self._send_events(identity, number)

    def _tell_progress(self, report: worker_pipe.Advanced) -> None:
        known = self._answers.progress.get(report.number)
        progress = self._answers.progress[report.number] = messages.Progress(
            job=known.job if known is not None else self._store.job(report.number).id, report=report.report
        )
        frames = encode(progress)
        for identity in list(self._followers.get(report.number, ())):
            self._send(identity, frames)

    def _tell_preview(self, report: worker_pipe.Pictured) -> None:
        self._answers.pictures[report.number] = report
        followers = list(self._followers.get(report.number, ()))
        if followers:
            frames = self._preview(report)
            for identity in followers:
                self._send(identity, frames)

    def _preview(self, report: worker_pipe.Pictured) -> Sequence[bytes]:
        return encode(messages.Preview(job=self._store.job(report.number).id, report=report.report))

    def _send_events(self, identity: bytes, number: int) -> None:
        session = self._sessions.get(identity)
        if session is None:  # gone since it was found to follow
            return
        try:
            events = self._store.events(number, session.follows[number])
        except NotFound:  # its owner has removed it
            self._unfollow(identity, session, number)
            return
        for event in events:
            if not self._send(identity, encode(event)):
                self._unsent.add(identity)
                return
            session.follows[number] = event.seq
            if event.state in TERMINAL_STATES:
                self._unfollow(identity, session, number)
                session.heard_at = time.monotonic()  # its silence counts from here
                return

    # Requests

    def _answer(self, frames: list[zmq.Frame]) -> None:
        identity = frames[0].bytes
        owner = frames[-1].get("User-Id")
        request_id = 0
        try:
            key = self._authorized.find(owner) if isinstance(owner, str) else None
            if key is None:
                self._refuse(identity)
                return
            request, payload = decode_request([frame.bytes for frame in frames[1:4]])
            request_id = request.id
            reply, data = self._handle(identity, key, request, payload)
        except MotionBoothError as error:
            if isinstance(error, Malformed):
                log.warning("from %s: %s", self._authorized.name(str(owner)), error)
            reply, data = _refusal(request_id, error), None
        except Exception:
            log.exception("a request failed")
            words = "The backend could not carry this out; its owner finds the reason in server.log."
            reply, data = messages.Error(re=request_id, code=MotionBoothError.code, message=words), None
        self._send(identity, encode(reply, data))
        if isinstance(reply, messages.Snapshot):
            self._send_latest(identity, reply)

    def _handle(self, identity: bytes, key: Key, request: messages.AnyRequest, payload: bytes | None) -> Answer:
        if isinstance(request, messages.Hello):
            return self._greet(identity, key, request), None
        session = self._sessions.get(identity)
        if session is None:
            raise NoSession("The backend does not know this connection; it has to begin with Hello.")
        session.heard_at = time.monotonic()
        if not isinstance(request, messages.PutChunk | messages.Fetch):
            self._check_rate(key)
        if isinstance(request, messages.Attach) and payload is None:
            return self._attach(identity, session, key, request), None
        reply, data = self._answers.answer(key, request, payload)
        if isinstance(request, messages.Bye):
            self._forget(identity)
        elif isinstance(reply, messages.Status):
            reply = replace(reply, sessions=len(self._sessions))
        return reply, data

    def _greet(self, identity: bytes, key: Key, request: messages.Hello) -> messages.Welcome:
        if request.version != PROTOCOL_VERSION:
            newer, older = ("add-on", "backend") if request.version > PROTOCOL_VERSION else ("backend", "add-on")
            raise VersionMismatch(
                f"The {newer} is newer than the {older} (protocol {request.version} there, {PROTOCOL_VERSION} here): "
                f"update the {older}."
            )
        self._forget(identity)
        if sum(session.owner == key.public for session in self._sessions.values()) >= _SESSIONS_OF_ONE_KEY:
            raise OverLimit(f"This key has {_SESSIONS_OF_ONE_KEY} sessions open, as many as the backend allows it.")
        self._sessions[identity] = Session(key.public)
        return self._answers.welcome(key, request)

    def _attach(self, identity: bytes, session: Session, key: Key, request: messages.Attach) -> messages.Snapshot:
        number = self._answers.number(key, request.job)
        session.follows[number] = request.after_seq
        self._followers[number].add(identity)
        return self._answers.snapshot(request.id, number)

    def _send_latest(self, identity: bytes, snapshot: messages.Snapshot) -> None:
        """What a new follower has missed."""
        session = self._sessions.get(identity)
        key = self._authorized.find(session.owner) if session is not None else None
        if session is None or key is None:  # gone while it was answered
            return
        number = self._answers.number(key, snapshot.job.id)
        if number in session.follows:
            self._send_events(identity, number)
            if number in self._answers.progress:
                self._send(identity, encode(self._answers.progress[number]))
            if number in self._answers.pictures:
                self._send(identity, self._preview(self._answers.pictures[number]))

    def _check_rate(self, key: Key) -> None:
        rate = self._answers.limits.requests_per_second
        if rate and not self._allowances.setdefault(key.public, Allowance(rate)).take():
            raise Busy(f"More than {rate} requests a second came from this key; try this one again in a while.")

    # The socket

    def _send(self, identity: bytes, frames: Sequence[bytes]) -> bool:
        """False where the client has no room now, or is gone. An answer that is lost so is asked for again."""
        try:
            self._socket.send_multipart([identity, *frames], zmq.DONTWAIT)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._forget(identity)
            return False
        return True

    def _refuse(self, identity: bytes) -> None:
        error = NotAuthorized("The backend's owner has withdrawn this key; ask for a new one.")
        self._send(identity, encode(_refusal(0, error)))
        self._forget(identity)

    def _forget(self, identity: bytes) -> None:
        session = self._sessions.pop(identity, None)
        if session is not None:
            for number in list(session.follows):
                self._unfollow(identity, session, number)
        self._unsent.discard(identity)

    def _unfollow(self, identity: bytes, session: Session, number: int) -> None:
        session.follows.pop(number, None)
        self._followers[number].discard(identity)
        if not self._followers[number]:
            del self._followers[number]


def latest(news: Sequence[News]) -> Iterable[News]:
    """In order; but of progress and of pictures only the last of each job."""
    last = {(type(item), item if isinstance(item, int) else item.number): place for place, item in enumerate(news)}
    for place, item in enumerate(news):
        if isinstance(item, int) or last[type(item), item.number] == place:
            yield item


def _refusal(request_id: int, error: MotionBoothError) -> messages.Error:
    return messages.Error(re=request_id, code=error.code, message=str(error), retryable=error.retryable)
