"""The connections from which messages have come, and the order in which their requests are handled."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

from motionbooth_protocol.limits import MAX_BACKLOG_BYTES, MAX_BACKLOG_REQUESTS

from motionbooth.server.attempts import JobNumber
from motionbooth.server.connections import other_end

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1  # seconds between attempts to send to a peer without room


@dataclass(eq=False)
class Peer:
    """One connection, by the routing id that ZeroMQ gave to it, and its socket's descriptor.

    Its requests wait here until they are handled, one at a time: the next one only after the reply to the last one had
    room in the send queue. `attached`: the last event sent of each job that the client is attached to, `due`: the jobs
    among them that have newer ones.
    """

    client: bytes
    owner: str  # a public key
    descriptor: int
    is_greeted: bool = False  # it has sent Hello and has a session
    is_admin: bool = False
    is_ended: bool = False
    requests: deque[list[bytes]] = field(default_factory=deque)
    backlog: int = 0  # bytes of the requests
    unsent: list[bytes] | None = None  # the reply that had no room
    is_blocked: bool = False
    retry_at: float = 0.0
    pause: float = _SHORTEST_PAUSE
    attached: dict[JobNumber, int] = field(default_factory=dict)
    due: dict[JobNumber, None] = field(default_factory=dict)
    active_at: float = field(default_factory=time.monotonic)  # when something was last received or sent

    def __post_init__(self) -> None:
        self._address = other_end(self.descriptor)

    @property
    def is_connected(self) -> bool:
        """False if the connection has ended, even if its descriptor is another one's now."""
        return self._address is not None and self._address == other_end(self.descriptor)

    def add(self, request: list[bytes]) -> bool:
        """Keep a request. False if that is more than a client may send ahead."""
        self.requests.append(request)
        self.backlog += sum(map(len, request))
        return self.backlog <= MAX_BACKLOG_BYTES and len(self.requests) <= MAX_BACKLOG_REQUESTS

    def next_request(self) -> list[bytes]:
        request = self.requests.popleft()
        self.backlog -= sum(map(len, request))
        return request

    def block(self) -> None:
        """Its send queue is full: wait, longer each time."""
        self.is_blocked = True
        self.retry_at = time.monotonic() + self.pause
        self.pause = min(2 * self.pause, _LONGEST_PAUSE)

    def sent(self) -> None:
        self.active_at = time.monotonic()
        self.pause = _SHORTEST_PAUSE


class Turns:
    """Whose request is handled next: keys take turns, and so do the connections of each key."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[Peer, None]] = {}  # by owner, in order

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, peer: Peer) -> None:
        """It waits, after all others, unless it waits already."""
        self._waiting.setdefault(peer.owner, {})[peer] = None

    def discard(self, peer: Peer) -> None:
        peers = self._waiting.get(peer.owner, {})
        peers.pop(peer, None)
        if not peers:
            self._waiting.pop(peer.owner, None)

    def next(self) -> Peer | None:
        """The peer whose turn it is, which does not wait any longer; None if none waits."""
        if not self._waiting:
            return None
        owner, peers = next(iter(self._waiting.items()))
        del self._waiting[owner]
        peer = next(iter(peers))
        del peers[peer]
        if peers:
            self._waiting[owner] = peers
        return peer
