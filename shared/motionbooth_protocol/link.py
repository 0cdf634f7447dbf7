"""One encrypted connection to a backend, from its handshake to its end. dialogue.py reconnects."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import zmq
from zmq.utils.monitor import recv_monitor_message

from .connection import Connection
from .errors import Canceled, InvalidInput, MotionBoothError, NotAuthorized, Unreachable
from .limits import CHUNK_BYTES, MAX_HEADER_BYTES

_SECONDS_TO_PROBE = 30  # a silent connection
_SLICE_SECONDS = 0.1  # within which a stop is noticed


class WrongServer(NotAuthorized):
    """The server does not have the key of the backend in the connection file.

    Retryable, since a backend that stops during the handshake looks the same.
    """

    retryable = True


class Link:
    """Connects when constructed. Raises Unreachable, NotAuthorized or WrongServer.

    `timeout`: seconds for the handshake. `stop`: once set, every wait raises Canceled.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        connection: Connection,
        timeout: float,
        stop: threading.Event,
    ) -> None:
        self._address = connection.address
        self._stop = stop
        self._socket = context.socket(zmq.DEALER)
        self._monitor = self._socket.get_monitor_socket()
        try:
            self._configure(connection)
            self._shake_hands(timeout)
        except BaseException:
            self.close()
            raise

    def close(self, linger_milliseconds: int = 0) -> None:
        """Close the socket; messages in its queue have `linger_milliseconds` to be sent."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=linger_milliseconds)

    def send(self, frames: Sequence[bytes]) -> None:
        """Raises Unreachable if the connection is lost."""
        try:
            self._socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            raise self._lost() from None

    def receive(self, timeout: float) -> list[bytes] | None:
        """The next message's frames; None after `timeout` seconds. Raises Unreachable if the connection is lost."""
        deadline = time.monotonic() + timeout
        while True:
            if not self._stop.is_set():  # without polling, if a message is there already, as during a transfer
                with suppress(zmq.Again):
                    return self._socket.recv_multipart(zmq.DONTWAIT)
            ready = self._wait(deadline)
            if self._socket not in ready and self._monitor in ready:
                if recv_monitor_message(self._monitor)["event"] == zmq.Event.DISCONNECTED:
                    raise self._lost()
            elif self._socket not in ready and time.monotonic() >= deadline:
                return None

    def _configure(self, connection: Connection) -> None:
        socket = self._socket
        socket.setsockopt(zmq.RECONNECT_IVL, -1)
        # Set now, not when closing: ZeroMQ reads the value when a connection breaks, and would otherwise wait forever
        # to send the rest.
        socket.setsockopt(zmq.LINGER, 0)
        # No heartbeats: libzmq 4.3 can abort the process if a connection ends that has not been read. Dialogue pings.
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
        socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _SECONDS_TO_PROBE)
        socket.setsockopt(zmq.MAXMSGSIZE, max(MAX_HEADER_BYTES, CHUNK_BYTES))
        try:
            socket.setsockopt(zmq.CURVE_SERVERKEY, connection.server_public.encode())
            socket.setsockopt(zmq.CURVE_PUBLICKEY, connection.client_public.encode())
            socket.setsockopt(zmq.CURVE_SECRETKEY, connection.client_secret.encode())
            socket.connect(connection.address)
        except (zmq.ZMQError, UnicodeEncodeError) as error:
            raise InvalidInput(
                "The connection file is not usable ({reason}): it needs an address like tcp://127.0.0.1:5599 and keys "
                "of 40 characters; its address is {address}. Ask the backend's owner for a new one.",
                reason=error,
                address=repr(connection.address),
            ) from None

    def _shake_hands(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self._monitor in self._wait(deadline):
            event = recv_monitor_message(self._monitor)["event"]
            if event == zmq.Event.HANDSHAKE_SUCCEEDED:
                return
            if (failure := self._failure(event)) is not None:
                raise failure
        raise Unreachable(
            "Nothing answers at {address} within {seconds:.0f} s. Check the address in the connection file, that "
            "`motionbooth serve` is running there, and that no firewall blocks the port.",
            address=self._address,
            seconds=timeout,
        )

    def _failure(self, event: int) -> MotionBoothError | None:
        """The error for a monitor event during the handshake; None if the event is not a failure."""
        if event == zmq.Event.HANDSHAKE_FAILED_AUTH:
            return NotAuthorized(
                "The backend at {address} refuses this key. Ask its owner to authorize it, or use the connection "
                "file that the owner gave you.",
                address=self._address,
            )
        if event in (zmq.Event.HANDSHAKE_FAILED_NO_DETAIL, zmq.Event.HANDSHAKE_FAILED_PROTOCOL):
            return WrongServer(
                "The server at {address} is not the backend of this connection file: its key is different. If the "
                "backend was set up again, ask its owner for a new connection file.",
                address=self._address,
            )
        if event == zmq.Event.CLOSED:
            return Unreachable(
                "No backend listens at {address}. Start one there with `motionbooth serve`, or correct the "
                "address in the connection file.",
                address=self._address,
            )
        if event == zmq.Event.DISCONNECTED:
            return Unreachable(
                "The server at {address} closed the connection: it is not a MotionBooth backend, or it is stopping. "
                "Check the address in the connection file.",
                address=self._address,
            )
        return None

    def _wait(self, deadline: float) -> dict[zmq.Socket[bytes], int]:
        """Wait until a socket is readable, or for the deadline. Raises Canceled once `stop` is set."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        while True:
            if self._stop.is_set():
                raise Canceled("Stopped waiting for the backend.")
            left = max(0.0, deadline - time.monotonic())
            ready = dict(poller.poll(int(min(left, _SLICE_SECONDS) * 1000) + 1))
            if ready or time.monotonic() >= deadline:
                return ready

    def _lost(self) -> Unreachable:
        return Unreachable(
            "The connection to the backend at {address} was lost. The backend may have stopped (start it again with "
            "`motionbooth serve`), or the network may be down. Jobs continue there.",
            address=self._address,
        )
