"""A pair of CURVE sockets that does the work of a transfer without our protocol. The peer is another process.

It reads the file; this side hashes what it receives and writes it to another one.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import zmq
from motionbooth_protocol.limits import CHUNK_BYTES, CHUNKS_IN_FLIGHT

_HEADER = b"x" * 64  # about the size of our headers


def bare_rate(file: Path, copy: Path) -> float:
    """Bytes per second of a transfer of the file, with the protocol's chunk size and window."""
    pieces = -(-file.stat().st_size // CHUNK_BYTES)
    public, secret = zmq.curve_keypair()
    answering = subprocess.Popen(
        [sys.executable, "-m", "motionbooth_lab.bench.bare_pair", str(file)],
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
            return _ask(socket, pieces, copy)
    finally:
        answering.kill()
        answering.communicate()


def _ask(socket: zmq.Socket[bytes], pieces: int, copy: Path) -> float:
    began, asked, digest = time.perf_counter(), 0, hashlib.sha256()
    with copy.open("wb") as file:
        for got in range(pieces):
            while asked < min(pieces, got + CHUNKS_IN_FLIGHT):
                socket.send(_HEADER)
                asked += 1
            piece = socket.recv_multipart()[1]
            digest.update(piece)
            file.write(piece)
    return copy.stat().st_size / (time.perf_counter() - began)


def main(path: Path) -> None:
    """Answer the request of the handshake, and then each with the next piece of the file."""
    secret = sys.stdin.buffer.readline().strip()
    with path.open("rb") as file, zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        socket.curve_server = True
        socket.curve_secretkey = secret
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        print(f"tcp://127.0.0.1:{port}", flush=True)
        client, _question = socket.recv_multipart()
        socket.send_multipart([client, _HEADER, b""])
        while piece := file.read(CHUNK_BYTES):
            client, _question = socket.recv_multipart()
            socket.send_multipart([client, _HEADER, piece])
        socket.poll()  # until it is killed, with its last messages sent


if __name__ == "__main__":
    main(Path(sys.argv[1]))
