"""Watches the TCP connections of the server's socket, in a thread of its own, and can end one.

ZeroMQ assembles a message of many frames as a whole, however many they are, and has no limit for their number. So the
watch asks the system how many bytes each connection has received since its last message was delivered, and ends those
that run too far ahead. Only Linux says that number; elsewhere a client with an authorized key can fill the memory.
"""

from __future__ import annotations

import logging
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import zmq
from motionbooth_protocol.limits import MAX_BACKLOG_BYTES
from zmq.utils.monitor import recv_monitor_message

log = logging.getLogger("motionbooth.connections")
_MILLISECONDS_BETWEEN_SCANS = 20  # in which ZeroMQ decrypts 10 MB
_MILLISECONDS_TO_WAIT = 500  # without connections
_MAX_BACKLOG_OF_ALL = 16 * MAX_BACKLOG_BYTES
_BYTES_RECEIVED = 128  # offset of tcpi_bytes_received in Linux' struct tcp_info
_EVENTS = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_MONITOR_STOPPED


class Connections:
    """All connections of the bound `router`, by the descriptors of their sockets."""

    def __init__(self, router: zmq.Socket[bytes]) -> None:
        self._router = router
        self._monitor = router.get_monitor_socket(_EVENTS)
        self._marks: dict[int, int] = {}  # bytes that each had received when its last message was delivered
        self._delivered: set[int] = set()
        self._ended: deque[int] = deque()
        self._thread = threading.Thread(target=self._watch, name="connections", daemon=True)
        self._thread.start()

    def delivered(self, descriptor: int) -> None:
        """A message of this connection has arrived."""
        self._delivered.add(descriptor)

    def take_ended(self) -> set[int]:
        """The descriptors of the connections that have ended since the last call. They may be in use again."""
        return {self._ended.popleft() for _ in range(len(self._ended))}

    def close(self) -> None:
        self._router.disable_monitor()  # whose last event ends the thread
        self._thread.join()
        self._monitor.close(linger=0)

    def _watch(self) -> None:
        while True:
            wait = _MILLISECONDS_BETWEEN_SCANS if self._marks else _MILLISECONDS_TO_WAIT
            while self._monitor.poll(wait):
                event = recv_monitor_message(self._monitor)
                if event["event"] == zmq.EVENT_MONITOR_STOPPED:
                    return
                self._note(event["event"], int(event["value"]))
                wait = 0
            try:
                self._scan()
            except Exception:  # ZeroMQ would stop if nobody received its events
                log.exception("the connections could not be checked")

    def _note(self, event: int, descriptor: int) -> None:
        if event == zmq.EVENT_ACCEPTED:
            self._marks[descriptor] = 0
        elif self._marks.pop(descriptor, None) is not None:
            self._ended.append(descriptor)

    def _scan(self) -> None:
        delivered, self._delivered = self._delivered, set()
        backlogs: dict[int, int] = {}
        for descriptor in list(self._marks):
            received = bytes_received(descriptor)
            if descriptor in delivered:
                self._marks[descriptor] = received
            backlogs[descriptor] = received - self._marks[descriptor]
        total = sum(backlogs.values())
        for descriptor, backlog in sorted(backlogs.items(), key=lambda item: -item[1]):
            if backlog <= MAX_BACKLOG_BYTES and total <= _MAX_BACKLOG_OF_ALL:
                return
            total -= backlog
            log.warning("a connection sent %d bytes that are no complete message; it was ended", backlog)
            end_connection(descriptor)


def bytes_received(descriptor: int) -> int:
    """By this TCP connection so far; 0 where the system does not say it, and for what is no connection any more."""
    if sys.platform == "linux":
        with suppress(OSError, struct.error), _borrowed(descriptor) as connection:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED + 8)
            return int(struct.unpack_from("=Q", info, _BYTES_RECEIVED)[0])
    return 0


def other_end(descriptor: int) -> object:
    """The address of the client of this connection; None if it has ended."""
    with suppress(OSError), _borrowed(descriptor) as connection:
        return connection.getpeername()
    return None


def end_connection(descriptor: int) -> None:
    """End a connection, whose client can connect again."""
    with suppress(OSError), _borrowed(descriptor) as connection:
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """ZeroMQ's own socket. Raises OSError if the descriptor is no socket any more."""
    connection = socket.socket(fileno=descriptor)
    try:
        yield connection
    finally:
        connection.detach()
