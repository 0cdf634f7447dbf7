"""The server's one door: an encrypted socket, and the check of every key at its handshake."""

from __future__ import annotations

import logging
import time

import zmq
from motionbooth_protocol.connection import host_and_port
from motionbooth_protocol.errors import MotionBoothError
from motionbooth_protocol.limits import CHUNK_BYTES, MAX_HEADER_BYTES
from zmq.auth.thread import ThreadAuthenticator

from motionbooth.server.keys import AuthorizedKeys, KeyPair

log = logging.getLogger("motionbooth.entrance")
_ZAP_DOMAIN = "motionbooth"
_ZAP_ADDRESS = "inproc://zeromq.zap.01"  # where libzmq asks
_SECONDS_BETWEEN_TRIES = 5.0  # where the check of keys cannot be started
_LINGER_MILLISECONDS = 500  # for what is to be said at the end
_SEND_QUEUE = 64  # messages that one client may be behind; 16 MiB at most, when all are chunks


def open_socket(context: zmq.Context[zmq.Socket[bytes]], keys: KeyPair, address: str) -> zmq.Socket[bytes]:
    """The bound ROUTER. Whoever has no key in `authorized/` gets nowhere: encryption is never off.

    Raises InvalidInput for an address that is none, MotionBoothError where it cannot be had.
    """
    host_and_port(address)  # libzmq takes port 70000 for 4464
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode())
    # Without an authenticator for this domain libzmq would otherwise let every key in.
    socket.setsockopt_string(zmq.ZAP_DOMAIN, _ZAP_DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    # A full queue must be seen, not drop messages in silence.
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.SNDHWM, _SEND_QUEUE)
    # From the beginning, not only at the close: what a gone client leaves unsent would otherwise be waited for.
    socket.setsockopt(zmq.LINGER, _LINGER_MILLISECONDS)
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


class KeyCheck:
    """Checks every key at its handshake, in a thread of its own, from its construction until `close`.

    Should that thread die, whoever is in stays in and nobody new gets in, until `tick` starts another one.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], authorized: AuthorizedKeys) -> None:
        self._context = context
        self._authorized = authorized
        self._not_before = float("-inf")
        self.authenticator = self._start()

    def tick(self) -> None:
        """See that the thread is alive."""
        if self.authenticator.is_alive() or time.monotonic() < self._not_before:
            return
        log.error("the check of keys has died: nobody new can enter until it runs again")
        self.close()
        try:
            self.authenticator = self._start()
        except (OSError, RuntimeError, zmq.ZMQError):
            self._not_before = time.monotonic() + _SECONDS_BETWEEN_TRIES
            log.exception("the check of keys does not start; trying again in %.0f s", _SECONDS_BETWEEN_TRIES)
        else:
            log.info("the check of keys runs again")

    def close(self) -> None:
        """End the thread. Nobody new gets in after that."""
        if not self.authenticator.is_alive() and self.authenticator.pipe is not None:
            self.authenticator.pipe.close()  # else it would be told to end, and nobody is there to hear it
            self.authenticator.pipe = None  # type: ignore[assignment]  # as pyzmq's own stop() does
            # At once, while closing alone may leave the address taken for a moment.
            self.authenticator.zap_socket.unbind(_ZAP_ADDRESS)
        self.authenticator.stop()

    def _start(self) -> ThreadAuthenticator:
        authenticator = ThreadAuthenticator(self._context)
        authenticator.configure_curve_callback(_ZAP_DOMAIN, self._authorized)
        authenticator.start()
        return authenticator
