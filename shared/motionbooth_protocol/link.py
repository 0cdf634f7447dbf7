"""One encrypted connection to a backend, from its handshake to its end. Connecting again is for client.py to do."""

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

_HEARTBEAT_MILLISECONDS = 5_000
_SILENCE_MILLISECONDS = 15_000  # after which a connection counts as dead
_SLICE_SECONDS = 0.1  # how soon a stop is noticed


class WrongServer(NotAuthorized):
    """Whoever listens there cannot prove to be the backend that the connection file names.

    A backend that stops in the middle of the handshake looks the same, hence retryable.
    """

    retryable = True


class Link:
    """Connected when constructed. Raises Unreachable, NotAuthorized or WrongServer, each saying what to do.

    `timeout`: seconds that the handshake may take. `stop`: once set, every wait raises Canceled.
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
        """Give the socket back; what was sent has so long to leave."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=linger_milliseconds)

    def send(self, frames: Sequence[bytes]) -> None:
        """Raises Unreachable where the connection is gone."""
        try:
            self._socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            raise self._lost() from None

    def receive(self, timeout: float) -> list[bytes] | None:
        """The next message's frames; None after `timeout` seconds. Raises Unreachable where the connection broke."""
        deadline = time.monotonic() + timeout
        while True:
            if not self._stop.is_set():  # what is there already, as in a transfer, needs no waiting
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
        # From the beginning, not only at the close: without it what a broken connection leaves unsent is waited for
        # for ever, since ZeroMQ takes over the value at the break.
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MILLISECONDS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _SILENCE_MILLISECONDS)
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
            "Nothing answers at {address} within {seconds:.0f} s. Check the address in the connection file, "
            "that `motionbooth serve` runs there, and that no firewall is between.",
            address=self._address,
            seconds=timeout,
        )

    def _failure(self, event: int) -> MotionBoothError | None:
        """What a monitor event before the end of the handshake means, None where it is no failure."""
        if event == zmq.Event.HANDSHAKE_FAILED_AUTH:
            return NotAuthorized(
                "The backend at {address} refuses this key. Ask its owner to let it in, or use the connection "
                "file that the owner gave you.",
                address=self._address,
            )
        if event in (zmq.Event.HANDSHAKE_FAILED_NO_DETAIL, zmq.Event.HANDSHAKE_FAILED_PROTOCOL):
            return WrongServer(
                f"What listens at {self._address} is not the backend that the connection file names: its key is "
                "another one. If the backend was set up anew, get a new connection file from its owner."
            )
        if event == zmq.Event.CLOSED:
            return Unreachable(
                "No backend listens at {address}. Start one there with `motionbooth serve`, or correct the "
                "address in the connection file.",
                address=self._address,
            )
        if event == zmq.Event.DISCONNECTED:
            return Unreachable(
                "What listens at {address} hung up: it is not a MotionBooth backend, or it is just stopping. "
                "Check the address in the connection file.",
                address=self._address,
            )
        return None

    def _wait(self, deadline: float) -> dict[zmq.Socket[bytes], int]:
        """Until something can be read, or the deadline. Raises Canceled once `stop` is set."""
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
            "The connection to the backend at {address} broke. It may have stopped (start it again with "
            "`motionbooth serve`), or the network between is down. Jobs go on there.",
            address=self._address,
        )
