"""`motionbooth bench fuzz`: malformed messages for the decoder and for a session with a real server."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import tempfile
import time
from pathlib import Path

import zmq
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth_protocol import messages
from motionbooth_protocol.client import new_job_id
from motionbooth_protocol.codec import decode_reply, decode_request, encode
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.errors import Malformed, MotionBoothError
from motionbooth_protocol.limits import PROTOCOL_VERSION

from motionbooth_lab.rig.attacks import ATTACKS, attack_command
from motionbooth_lab.rig.backend import RunningBackend, small_job
from motionbooth_lab.rig.foreign import foreign_messages

_BATCH = 200  # messages sent before the replies are read
_REPLY_MILLISECONDS, _TRIES = 500, 40


def bench_fuzz(count: int, seconds: float, seed: int = 0) -> BenchResult:
    """Send `count` messages to each, for at most `seconds` each. Raises MotionBoothError if a message does harm."""
    return BenchResult("fuzz", fuzz_decoder(count, seconds, seed) + fuzz_session(count, seconds, seed))


def fuzz_decoder(count: int, seconds: float, seed: int) -> list[Measure]:
    """Decode every message as a request and as a reply. Each is either valid or raises Malformed."""
    began, sent, accepted = time.monotonic(), 0, 0
    for frames in itertools.islice(foreign_messages(seed), count):
        sent += 1
        for decode in (decode_request, decode_reply):
            try:
                decode(frames)
                accepted += 1
            except Malformed:
                pass
            except Exception as error:
                raise MotionBoothError(
                    "The decoder raised {reason} for {frames}.", reason=repr(error), frames=repr(frames)
                ) from error
        if sent % 1000 == 0 and time.monotonic() - began > seconds:
            break
    return [
        Measure("decoder_messages", sent, "malformed messages"),
        Measure("decoder_accepted", accepted, "of them valid"),
        Measure("decoder_seconds", time.monotonic() - began, "s"),
    ]


def fuzz_session(count: int, seconds: float, seed: int) -> list[Measure]:
    """Send the messages to a real server with an authorized key, while the server runs a job for another client."""
    with tempfile.TemporaryDirectory(prefix="motionbooth-fuzz-") as folder:
        backend = RunningBackend(Path(folder) / "home")
        backend.start(WAITING_JOBS="50", REQUESTS_PER_SECOND="0")
        try:
            with backend.client() as client:
                job = new_job_id()
                client.submit(job, small_job("steps=20 pause=0.05", seed=7))
                sent, answered, spent, growth = _bombard(backend, count, seconds, seed)
                _attack(backend)
                clip = client.follow(job).result("clip")
                ping = client.ping()
            if clip.sha256 != hashlib.sha256(bytes([7]) * 1000).hexdigest():
                raise MotionBoothError("The clip that was generated in the meantime is wrong.")
        finally:
            backend.end()
    return [
        Measure("session_messages", sent, "malformed messages"),
        Measure("session_answers", answered, "replies to them"),
        Measure("session_seconds", spent, "s"),
        Measure("session_memory_mb", growth / 1e6, "MB more than after the first tenth"),
        Measure("session_ping_ms", 1000 * ping, "ms, right after them"),
    ]


def _bombard(backend: RunningBackend, count: int, seconds: float, seed: int) -> tuple[int, int, float, int]:
    """Returns messages sent, replies received, seconds, and the memory growth after the first tenth in bytes."""
    began, sent, answered, settled = time.monotonic(), 0, 0, 0
    source = foreign_messages(seed)
    with zmq.Context() as context, _socket(context, backend.connection) as socket:
        while sent < count and time.monotonic() - began < seconds:
            socket.send_multipart(encode(messages.Hello(id=0, version=PROTOCOL_VERSION)))
            for frames in itertools.islice(source, min(_BATCH, count - sent)):
                socket.send_multipart(frames)
                sent += 1
            socket.send_multipart(encode(messages.Ping(id=sent)))
            answered += _answers(socket, sent)
            if backend.process is None or backend.process.poll() is not None:
                raise MotionBoothError(
                    "The server ended within the last {batch} messages before message {sent}.", batch=_BATCH, sent=sent
                )
            if not settled and sent >= count / 10:
                settled = backend.memory()
        return sent, answered, time.monotonic() - began, backend.memory() - settled


def _attack(backend: RunningBackend) -> None:
    """Messages that never end, and hang-ups under backlog."""
    file = backend.home / "mallory.json"
    backend.new_key("mallory").write(file)
    for name in ATTACKS:
        subprocess.run(attack_command(name, file), stderr=subprocess.DEVNULL)
        if backend.process is None or backend.process.poll() is not None:
            raise MotionBoothError("The server ended during the attack {name}.", name=name)


def _answers(socket: zmq.Socket[bytes], last: int) -> int:
    """Count the replies up to the one to the last Ping. The server drops replies that don't fit its queue."""
    count = 0
    for _ in range(_TRIES):
        while socket.poll(_REPLY_MILLISECONDS):
            reply, _ = decode_reply(socket.recv_multipart())
            count += 1
            if reply.re == last:  # Pong, or an error if a Bye among the messages ended the session
                return count
        # The connection was closed because of a frame that was too large, or the reply was dropped.
        socket.send_multipart(encode(messages.Ping(id=last)))
    raise MotionBoothError("The server stopped responding after {last} messages.", last=last)


def _socket(context: zmq.Context[zmq.Socket[bytes]], connection: Connection) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.curve_serverkey = connection.server_public.encode()
    socket.curve_publickey = connection.client_public.encode()
    socket.curve_secretkey = connection.client_secret.encode()
    socket.connect(connection.address)
    return socket
