"""The sessions of connected clients: their requests and replies.

What arrives is taken out of ZeroMQ's queues at once and waits for its turn with its peer. A connection that stops
reading holds one reply and its own requests here, and a few messages in ZeroMQ; one that sends too far ahead is ended.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence

import zmq
from motionbooth_protocol import messages
from motionbooth_protocol.codec import decode_request, encode, id_of
from motionbooth_protocol.errors import (
    Busy,
    Malformed,
    MotionBoothError,
    NoSession,
    NotAuthorized,
    OverLimit,
    VersionMismatch,
)
from motionbooth_protocol.limits import PROTOCOL_VERSION

from motionbooth.server.connections import Connections, end_connection
from motionbooth.server.handlers import Reply, RequestHandlers
from motionbooth.server.job_queries import JobQueries
from motionbooth.server.keys import AuthorizedKeys, Key
from motionbooth.server.live_state import LiveState
from motionbooth.server.peers import Peer, Turns
from motionbooth.server.publisher import Publisher
from motionbooth.server.rate_limit import RateLimit
from motionbooth.server.redaction import for_user
from motionbooth.server.settings import ServerSettings
from motionbooth.server.views import Views

log = logging.getLogger("motionbooth.sessions")
_SECONDS_AT_ONCE = 0.005  # each for receiving, replying and publishing, before the rest of the server has its turn
_MAX_CONNECTIONS_OF_KEY = 250
_SECONDS_BETWEEN_SWEEPS = 0.5
_LONGEST_WAIT = 0.2  # seconds
_REVOKED = NotAuthorized("The backend's owner has revoked this key; ask for a new one.")


class Sessions:
    """All connections, by the routing id that ZeroMQ gave to each."""

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
        self._connections = Connections(socket)
        self._authorized = authorized
        self._handlers = handlers
        self._views = views
        self._live = live
        self._publisher = Publisher(self._send, queries, live)
        self._rate_limit = RateLimit(settings.limits.requests_per_second)
        self._idle_seconds = settings.idle_seconds
        self._peers: dict[bytes, Peer] = {}
        self._connections_of: Counter[str] = Counter()  # by owner
        self._turns = Turns()
        self._blocked: set[Peer] = set()
        self._swept_at = float("-inf")
        self._models = live.models

    def receive(self) -> None:
        """Take what has arrived, and reply to some of it."""
        until = time.monotonic() + _SECONDS_AT_ONCE
        while time.monotonic() < until and (frames := self._received()) is not None:
            self._take(frames)
        until = time.monotonic() + _SECONDS_AT_ONCE
        while time.monotonic() < until and (peer := self._turns.next()) is not None:
            self._reply_to(peer, peer.next_request())
            self._wait_for_turn(peer)

    def tick(self) -> None:
        """Publish what is new and what had no room; end the sessions of idle and unauthorized clients."""
        self._retry()
        self._send_models()
        self._publisher.publish(_SECONDS_AT_ONCE)
        self._forget_ended()
        if time.monotonic() - self._swept_at > _SECONDS_BETWEEN_SWEEPS:
            self._sweep()

    def _send_models(self) -> None:
        """If they have changed. Who has no room now sees them in the next session."""
        if self._models is not self._live.models:
            self._models = self._live.models
            frames = encode(messages.Models(models=self._models))
            for peer in [peer for peer in self._peers.values() if peer.is_greeted]:
                self._send(peer, frames)

    def wait_seconds(self) -> float:
        """How long the server may wait for the next message."""
        if self._turns or self._publisher.has_more:
            return 0.0
        now = time.monotonic()
        return max(0.0, min([_LONGEST_WAIT, *(peer.retry_at - now for peer in self._blocked)]))

    def close(self) -> None:
        """Announce to all clients that the server is stopping."""
        for peer in list(self._peers.values()):
            self._send(peer, encode(messages.Draining()))
        self._connections.close()

    # Connections

    def _received(self) -> list[zmq.Frame] | None:
        """The next message: the routing id and up to three frames, which are one too many."""
        try:
            frames = [self._socket.recv(zmq.DONTWAIT, copy=False)]
        except zmq.Again:
            return None
        while frames[-1].more:
            frame = self._socket.recv(copy=False)
            frames[3:] = [frame]
        return frames

    def _take(self, frames: list[zmq.Frame]) -> None:
        """Let a message wait for its turn."""
        peer = self._peer(frames[0].bytes, frames[-1])
        self._connections.delivered(peer.descriptor)
        peer.active_at = time.monotonic()
        if peer.is_ended:
            return
        self._live.counters.received_bytes += sum(map(len, frames[1:]))
        if not (len(peer.client) == 5 and peer.client.startswith(b"\0")):
            self._refuse(peer, Malformed("This client has chosen a routing id; leave that to ZeroMQ."))
        elif not peer.add([frame.bytes for frame in frames[1:4]]):
            log.warning("%s sends requests faster than it reads the replies", self._authorized.name(peer.owner))
            self._live.counters.ended_connections += 1
            self._end(peer)
        elif peer.is_blocked:
            peer.retry_at = 0.0  # who sends has probably read
        else:
            self._turns.add(peer)

    def _peer(self, client: bytes, frame: zmq.Frame) -> Peer:
        """The connection that this frame came from."""
        owner, descriptor = str(frame.get("User-Id")), int(frame.get("__fd"))
        peer = self._peers.get(client)
        if peer is not None and (peer.owner, peer.descriptor) == (owner, descriptor):
            return peer
        if peer is not None:
            self._forget(peer)
        peer = self._peers[client] = Peer(client, owner, descriptor)
        self._connections_of[owner] += 1
        return peer

    def _retry(self) -> None:
        """Send to those that had no room, if they have it now."""
        now = time.monotonic()
        for peer in [peer for peer in self._blocked if peer.retry_at <= now]:
            self._blocked.discard(peer)
            peer.is_blocked = False
            unsent, peer.unsent = peer.unsent, None
            if unsent is not None:
                self._reply(peer, unsent)
            self._wait_for_turn(peer)
            self._publisher.add(peer)

    def _sweep(self) -> None:
        now = self._swept_at = time.monotonic()
        for peer in list(self._peers.values()):
            if peer.is_ended:  # its last message was sent, and what it had sent has arrived by now
                self._end(peer)
                self._forget(peer)
            elif self._authorized.find(peer.owner) is None:
                self._refuse(peer)
            elif now - peer.active_at > self._idle_seconds:
                self._end(peer)

    def _forget_ended(self) -> None:
        """The peers whose connections have ended."""
        ended = self._connections.take_ended()
        for peer in [peer for peer in self._peers.values() if peer.descriptor in ended]:
            if not peer.is_connected:
                self._forget(peer)

    def _end(self, peer: Peer) -> None:
        """End the session and the connection. Whatever still arrives from it is ignored."""
        self._end_session(peer)
        peer.is_ended = True
        if peer.is_connected:
            end_connection(peer.descriptor)

    def _end_session(self, peer: Peer) -> None:
        """What the peer has sent after its last request is dropped."""
        peer.requests.clear()
        peer.backlog = 0
        peer.unsent = None
        self._turns.discard(peer)
        self._blocked.discard(peer)
        self._leave(peer)

    def _leave(self, peer: Peer) -> None:
        """The peer may begin another session."""
        peer.is_greeted = False
        self._publisher.detach(peer)
        self._live.connections = sum(other.is_greeted for other in self._peers.values())

    def _forget(self, peer: Peer) -> None:
        self._end_session(peer)
        peer.is_ended = True
        del self._peers[peer.client]
        self._connections_of[peer.owner] -= 1
        if not self._connections_of[peer.owner]:
            del self._connections_of[peer.owner]

    def _wait_for_turn(self, peer: Peer) -> None:
        if peer.requests and not peer.is_blocked:
            self._turns.add(peer)

    # Requests

    def _reply_to(self, peer: Peer, frames: list[bytes]) -> None:
        key = self._authorized.find(peer.owner)
        if key is None:
            self._refuse(peer)
            return
        began = time.thread_time()
        is_free = False
        reply: messages.AnyReply
        try:
            request, data = decode_request(frames)
            is_free = isinstance(request, messages.PutChunk | messages.Fetch)
            reply, payload = self._handle(peer, key, request, data)
            encoded = _encoded(key, reply, payload)
        except MotionBoothError as error:
            if isinstance(error, Malformed) and self._rate_limit.allows(key.public):
                log.warning("from %s: %s", key.name, error)
            is_free = is_free or isinstance(error, Busy)
            self._live.counters.errors[error.report.kind] += 1
            reply = _error(id_of(frames), error)
            encoded = _encoded(key, reply)
        except Exception:
            log.exception("a request failed")
            self._live.counters.errors["error"] += 1
            reply = _error(
                id_of(frames),
                MotionBoothError(
                    "The request failed because of a bug in the backend; its owner finds the details in server.log."
                ),
            )
            encoded = _encoded(key, reply)
        self._live.counters.replies[type(reply).__name__] += 1
        if not is_free:
            self._rate_limit.charge(key.public, time.thread_time() - began)
        self._reply(peer, encoded)
        if isinstance(reply, messages.Snapshot):
            self._publisher.add(peer)

    def _handle(self, peer: Peer, key: Key, request: messages.AnyRequest, payload: bytes | None) -> Reply:
        if isinstance(request, messages.Hello):
            return self._begin_session(peer, key, request), None
        if not peer.is_greeted:
            raise NoSession("This connection has no session; it must begin with Hello.")
        if not isinstance(request, messages.PutChunk | messages.Fetch):
            self._check_rate(key)
        if isinstance(request, messages.Attach) and payload is None:
            return self._attach(peer, key, request), None
        if isinstance(request, messages.Bye):
            self._leave(peer)
        return self._handlers.handle(key, request, payload)

    def _begin_session(self, peer: Peer, key: Key, request: messages.Hello) -> messages.Welcome:
        if request.version != PROTOCOL_VERSION:
            if request.version > PROTOCOL_VERSION:
                raise VersionMismatch(
                    "The backend is older than this client (protocol {own}, not {version}): update the backend.",
                    own=PROTOCOL_VERSION,
                    version=request.version,
                )
            raise VersionMismatch(
                "The backend is newer than this client (protocol {own}, not {version}): update the client, in Blender "
                "the extension.",
                own=PROTOCOL_VERSION,
                version=request.version,
            )
        self._publisher.detach(peer)
        if self._connections_of[key.public] > _MAX_CONNECTIONS_OF_KEY:
            raise OverLimit(
                "This key has {most} open connections, which is the limit.",
                most=_MAX_CONNECTIONS_OF_KEY,
            )
        peer.is_greeted, peer.is_admin = True, key.is_admin
        self._live.connections = sum(other.is_greeted for other in self._peers.values())
        return self._views.welcome(key, request.id)

    def _attach(self, peer: Peer, key: Key, request: messages.Attach) -> messages.Snapshot:
        job_number = self._views.job_number(key, request.job)
        self._publisher.attach(peer, job_number, request.after_seq)
        return self._views.snapshot(job_number, request.id)

    def _check_rate(self, key: Key) -> None:
        if not self._rate_limit.allows(key.public):
            raise Busy(
                "This key takes more than its share of the backend's time, {rate} short requests a second; try this "
                "one again later.",
                rate=self._rate_limit.rate,
            )

    # The socket

    def _reply(self, peer: Peer, frames: list[bytes]) -> None:
        """Send a reply now, or when there is room."""
        if not self._send(peer, frames) and peer.is_blocked:
            peer.unsent = frames

    def _send(self, peer: Peer, frames: Sequence[bytes]) -> bool:
        """False if the peer has no room now (it is blocked then), or is gone."""
        if peer.is_blocked:
            return False
        try:
            self._socket.send_multipart([peer.client, *frames], zmq.DONTWAIT)
        except zmq.Again:
            peer.block()
            self._blocked.add(peer)
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._end_session(peer)
            peer.is_ended = True
            return False
        peer.sent()
        self._live.counters.sent_bytes += sum(map(len, frames))
        return True

    def _refuse(self, peer: Peer, error: MotionBoothError = _REVOKED) -> None:
        """Tell it why it is not served. The next sweep ends the connection."""
        self._send(peer, encode(_error(0, error)))
        self._end_session(peer)
        peer.is_ended = True


def _encoded(key: Key, reply: messages.AnyReply, payload: bytes | None = None) -> list[bytes]:
    """As far as the key may see it."""
    return encode(reply if key.is_admin else for_user(reply), payload)


def _error(request_id: int, error: MotionBoothError) -> messages.Error:
    return messages.Error(re=request_id, report=error.report, retryable=error.retryable)
