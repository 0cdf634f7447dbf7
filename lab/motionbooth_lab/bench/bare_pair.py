"""A pair of CURVE sockets without our protocol: the upper limit of the transfer rate. The peer is another process."""

from __future__ import annotations

import subprocess
import sys
import time

import zmq
from motionbooth_protocol.limits import CHUNK_BYTES, CHUNKS_IN_FLIGHT

_HEADER = b"x" * 64  # about the size of our headers


def bare_rate(size: int) -> float:
    """Bytes per second of a transfer of `size` bytes, with the protocol's chunk size and window."""
    pieces = -(-size // CHUNK_BYTES)
    public, secret = zmq.curve_keypair()
    answering = subprocess.Popen(
        [sys.executable, "-m", "motionbooth_lab.bench.bare_pair", str(pieces)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert answering.stdin is not None
        assert answering.stdout is not None
        answering.stdin.write(secret + b"\n")
        answering.stdin.flush()
        address = answering.stdout.readline().decode().strip()
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.curve_serverkey = public
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(address)
            socket.send(_HEADER)
            socket.recv_multipart()  # the handshake is over
            return _ask(socket, pieces)
    finally:
        answering.kill()
        answering.communicate()


def _ask(socket: zmq.Socket[bytes], pieces: int) -> float:
    began, asked, size = time.perf_counter(), 0, 0
    for got in range(pieces):
        while asked < min(pieces, got + CHUNKS_IN_FLIGHT):
            socket.send(_HEADER)
            asked += 1
        size += len(socket.recv_multipart()[1])
    return size / (time.perf_counter() - began)


def main(pieces: int) -> None:
    """Answer this many requests, and one for the handshake."""
    secret = sys.stdin.buffer.readline().strip()
    piece = bytes(CHUNK_BYTES)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.curve_server = True
        socket.curve_secretkey = secret
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        print(f"tcp://127.0.0.1:{port}", flush=True)
        for _ in range(pieces + 1):
            client, _question = socket.recv_multipart()
            socket.send_multipart([client, _HEADER, piece])


if __name__ == "__main__":
    main(int(sys.argv[1]))
