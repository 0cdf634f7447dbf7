"""Authentication: the encrypted socket, and the check of each client's key in the handshake."""

from __future__ import annotations

import logging
import time

import zmq
from motionbooth_protocol.connection import host_and_port
from motionbooth_protocol.errors import MotionBoothError
from motionbooth_protocol.limits import CHUNK_BYTES, MAX_HEADER_BYTES
from zmq.auth.thread import ThreadAuthenticator

from motionbooth.server.keys import AuthorizedKeys, KeyPair

log = logging.getLogger("motionbooth.auth")
_ZAP_DOMAIN = "motionbooth"
_ZAP_ADDRESS = "inproc://zeromq.zap.01"  # fixed by libzmq
_SECONDS_BETWEEN_TRIES = 5.0  # to start the authenticator
_LINGER_MILLISECONDS = 500  # for the last messages when the server stops
_SEND_QUEUE = 4  # messages for each client; at most 1 MiB, if all are chunks
_SECONDS_TO_PROBE = 30  # a silent connection
_PROBES, _SECONDS_BETWEEN_PROBES = 3, 10
_MILLISECONDS_TO_ACKNOWLEDGE = 60_000


def open_socket(context: zmq.Context[zmq.Socket[bytes]], keys: KeyPair, address: str) -> zmq.Socket[bytes]:
    """The bound ROUTER, which always encrypts, and accepts only authorized keys.

    Raises InvalidInput if the address is malformed, MotionBoothError if it cannot be bound.
    """
    host_and_port(address)  # libzmq would read port 70000 as 4464
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode())
    # Without this, libzmq would accept every key if no authenticator handles the domain.
    socket.setsockopt_string(zmq.ZAP_DOMAIN, _ZAP_DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    # Report a full queue instead of dropping the message silently.
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.SNDHWM, _SEND_QUEUE)
    # Set now, not when closing: libzmq would otherwise wait for messages to clients that are gone already.
    socket.setsockopt(zmq.LINGER, _LINGER_MILLISECONDS)
    socket.setsockopt(zmq.MAXMSGSIZE, max(MAX_HEADER_BYTES, CHUNK_BYTES))
    socket.setsockopt(zmq.HANDSHAKE_IVL, 10_000)
    # No limit on the receive queue, and no heartbeats: libzmq 4.3 aborts the process if a connection whose queue is
    # full ends before a heartbeat, its own or the client's (its issues 3937 and 4767). Peer and Connections bound what
    # a client sends ahead; TCP itself finds half-open connections.
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, _SECONDS_TO_PROBE)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, _SECONDS_BETWEEN_PROBES)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, _PROBES)
    socket.setsockopt(zmq.TCP_MAXRT, _MILLISECONDS_TO_ACKNOWLEDGE)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        socket.close()
        raise MotionBoothError(
            "The backend cannot listen on {address} ({reason}). Another program may be using the port: stop it, or "
            "choose another port with --address tcp://HOST:PORT.",
            address=address,
            reason=error.strerror,
        ) from None
    return socket


class KeyCheck:
    """Checks every key in its handshake, in its own thread, until `close`.

    If that thread dies, connected clients stay connected and new ones are refused, until `tick` starts another one.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], authorized: AuthorizedKeys) -> None:
        self._context = context
        self._authorized = authorized
        self._not_before = float("-inf")
        self.authenticator = self._start()

    def tick(self) -> None:
        """Restart the thread if it has died."""
        if self.authenticator.is_alive() or time.monotonic() < self._not_before:
            return
        log.error("the authenticator has died; new connections are refused until it is restarted")
        self.close()
        try:
            self.authenticator = self._start()
        except (OSError, RuntimeError, zmq.ZMQError):
            self._not_before = time.monotonic() + _SECONDS_BETWEEN_TRIES
            log.exception("the authenticator cannot be started; trying again in %.0f s", _SECONDS_BETWEEN_TRIES)
        else:
            log.info("the authenticator is running again")

    def close(self) -> None:
        """End the thread. New connections are refused from now on."""
        if not self.authenticator.is_alive() and self.authenticator.pipe is not None:
            self.authenticator.pipe.close()  # stop() would otherwise send a message to the dead thread
            self.authenticator.pipe = None  # type: ignore[assignment]  # as pyzmq's own stop() does
            # Frees the address at once; closing the socket alone may take a moment.
            self.authenticator.zap_socket.unbind(_ZAP_ADDRESS)
        self.authenticator.stop()

    def _start(self) -> ThreadAuthenticator:
        authenticator = ThreadAuthenticator(self._context)
        authenticator.configure_curve_callback(_ZAP_DOMAIN, self._authorized)
        authenticator.start()
        return authenticator
