"""A bare socket with the right keys, for messages that our client never sends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import zmq
from motionbooth_protocol import messages
from motionbooth_protocol.codec import decode_reply
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.limits import PROTOCOL_VERSION

HELLO = messages.Hello(id=1, version=PROTOCOL_VERSION)
PING = messages.Ping(id=2)


@contextmanager
def raw(connection: Connection, curve: bool = True, **options: int | bytes) -> Iterator[zmq.Socket[bytes]]:
    """A bare socket with the right keys, for messages that our client never sends."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, 10_000)
        for name, value in options.items():
            socket.setsockopt(getattr(zmq, name), value)
        if curve:
            socket.curve_serverkey = connection.server_public.encode()
            socket.curve_publickey = connection.client_public.encode()
            socket.curve_secretkey = connection.client_secret.encode()
        socket.connect(connection.address)
        yield socket


def answer(socket: zmq.Socket[bytes], *frames: bytes) -> messages.AnyReply:
    socket.send_multipart(frames)
    return decode_reply(socket.recv_multipart())[0]


def error(socket: zmq.Socket[bytes], *frames: bytes) -> str:
    reply = answer(socket, *frames)
    assert isinstance(reply, messages.Error), reply
    assert str(reply.report)
    return reply.report.code
