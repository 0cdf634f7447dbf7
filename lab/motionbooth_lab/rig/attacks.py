"""Attacks on a server's availability by a client with a valid key: `python -m motionbooth_lab.rig.attacks NAME FILE N`.

FILE is the key's connection file, N the number of repetitions. Each attack runs in a separate process, so that it
takes no time from the client that measures how the server serves others meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import zmq
from motionbooth.server.store import Store
from motionbooth_protocol import messages
from motionbooth_protocol.client import Client, new_job_id
from motionbooth_protocol.codec import decode_reply, encode
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.errors import Unreachable
from motionbooth_protocol.jobs import Blob
from motionbooth_protocol.limits import CHUNK_BYTES, PROTOCOL_VERSION

from motionbooth_lab.rig.backend import RunningBackend, large_job, small_job

JOBS = 8000  # of the attacking key
_SECONDS_BETWEEN_PINGS = 0.01
_UNREAD = {"LINGER": 0, "SNDHWM": 0, "RCVHWM": 1, "SNDTIMEO": 500, "RECONNECT_IVL": -1}
_SECONDS_TO_ABORT = 0.5  # after the last message
_SECONDS_OF_ATTACK = 20  # at most
_SECONDS_TO_HEAR = 60.0  # the reply to one ping
_AHEAD = 10  # requests before their replies are read
_HALF_BYTES = 200_000_000 // CHUNK_BYTES * CHUNK_BYTES


def hang_up(connection: Connection, number: int) -> None:
    """Send 3,000 requests for a long listing, read nothing, hang up."""
    with _unread(connection) as socket:
        for id in range(3000):
            socket.send_multipart(encode(messages.ListJobs(id=id, limit=500)))
        time.sleep(0.2 + number % 4 * 0.1)


def hang_up_with_heartbeats(connection: Connection, number: int) -> None:
    """The same with ZeroMQ's heartbeats between the requests, one a millisecond."""
    with _unread(connection, HEARTBEAT_IVL=1, HEARTBEAT_TIMEOUT=60_000) as socket:
        for id in range(8000):
            socket.send_multipart(encode(messages.ListJobs(id=id, limit=3)))
        time.sleep(0.1 + number % 4 * 0.1)


def hang_up_together(connection: Connection, number: int) -> None:
    """20 connections send 1,800 requests for the status each, read nothing and hang up."""
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        sockets = [stack.enter_context(_unread(connection, context)) for _ in range(20)]
        for id in range(1800):
            for socket in sockets:
                socket.send_multipart(encode(messages.GetStatus(id=id)))
        time.sleep(0.5)


def many_frames(connection: Connection, number: int) -> None:
    """One message of 900 frames of 900 KiB."""
    with _unread(connection, LINGER=5000) as socket:
        for part in range(900):
            socket.send(bytes(900 << 10), zmq.SNDMORE if part < 899 else 0)


def small_frames(connection: Connection, number: int) -> None:
    """One message of 2 million frames of 1 byte."""
    with _unread(connection, LINGER=5000) as socket:
        for part in range(2_000_000):
            socket.send(b"x", zmq.SNDMORE if part < 1_999_999 else 0)


def follow_all(connection: Connection, number: int) -> None:
    """Follow 8,000 jobs, read nothing."""
    with Client(connection) as client:
        jobs = [job.id for job in client.jobs(limit=500)] or ["no-such-job"]
    with _unread(connection) as socket:
        for id in range(JOBS):
            socket.send_multipart(encode(messages.Attach(id=id, job=jobs[id % len(jobs)])))
            if id % 500 == 0:
                time.sleep(0.2)
        time.sleep(1.0)


def list_often(connection: Connection, number: int) -> None:
    """Ask for a long listing 300 times, ten requests ahead, and read the replies."""
    with _read(connection) as socket:
        _ask(socket, [encode(messages.ListJobs(id=0, limit=500))] * 300)


def ask_status_often(connection: Connection, number: int) -> None:
    """Ask for the status 3,000 times."""
    with _read(connection) as socket:
        _ask(socket, [encode(messages.GetStatus(id=0))] * 3000)


def half_upload(connection: Connection, number: int) -> None:
    """Send half of a file of 400 MB, unless that was done before, and announce it 2,000 times."""
    sha256, chunk = hashlib.sha256(b"never complete").hexdigest(), bytes(CHUNK_BYTES)
    announced = encode(messages.Put(id=0, sha256=sha256, size=2 * _HALF_BYTES))
    with _read(connection) as socket:
        (reply,) = _ask(socket, [announced])
        first = reply.offset if isinstance(reply, messages.PutHave) else _HALF_BYTES  # a restarted server hashes it
        offsets = range(first, _HALF_BYTES, CHUNK_BYTES)
        _ask(socket, (encode(messages.PutChunk(id=0, sha256=sha256, offset=at), chunk) for at in offsets))
        _ask(socket, [announced] * 2000)


def large_specs(connection: Connection, number: int) -> None:
    """Submit 200 jobs of 300 KB each, cancel and remove them."""
    jobs = {new_job_id(): large_job("steps=1 dog", seed) for seed in range(200)}
    with _read(connection) as socket:
        _ask(socket, (encode(messages.Submit(id=0, job=job, spec=spec)) for job, spec in jobs.items()))
        _ask(socket, (encode(messages.Cancel(id=0, job=job)) for job in jobs))
        _ask(socket, (encode(messages.Forget(id=0, job=job)) for job in jobs))


ATTACKS: dict[str, Callable[[Connection, int], None]] = {
    attack.__name__: attack
    for attack in (
        hang_up, hang_up_with_heartbeats, hang_up_together, many_frames, small_frames, follow_all, list_often,
        ask_status_often, half_upload, large_specs,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Harm:
    """What an attack did: the server's `aborts` (0 or 1), another key's pings in seconds, and memory in bytes more than
    before at its highest.
    """

    aborts: int
    pings: list[float]
    memory: int

    @property
    def ping_p99(self) -> float:
        return statistics.quantiles(self.pings, n=100)[98]


class Attacked:
    """A server with a key that attacks it and has 8,000 jobs. `home`: a folder that does not exist yet."""

    def __init__(self, home: Path, jobs: int = JOBS) -> None:
        self.backend = RunningBackend(home).start()
        self.attacker = self.backend.new_key("mallory")
        self.backend.stop()
        self._file = home / "mallory.json"
        self.attacker.write(self._file)
        store = Store(home / "jobs.sqlite")
        with store.database.transaction():
            for seed in range(jobs):
                spec = small_job("steps=1", seed=seed)
                clip = Blob("clip", f"{seed:064x}", 1000)
                store.transitions.submit(self.attacker.client_public, new_job_id(), spec, cached=[clip])
        store.close()
        self.start()

    def start(self) -> None:
        self.backend.start(REQUESTS_PER_SECOND="1000")  # as `motionbooth serve` has it

    def suffer(self, attack: str, times: int = 1) -> Harm:
        """Run an attack, and ping the server with another key until it is over. Restarts the server if it aborts."""
        process = self.backend.process
        assert process is not None
        pings: list[float] = []
        with self.backend.client(timeout=_SECONDS_TO_HEAR, patience=1.0) as other:
            other.ping()
            before = most = self.backend.memory()
            with subprocess.Popen(attack_command(attack, self._file, times), stderr=subprocess.DEVNULL) as attacking:
                while attacking.poll() is None and process.poll() is None:
                    with suppress(Unreachable):  # it has aborted
                        pings.append(other.ping())
                        most = max(most, self.backend.memory())
                    time.sleep(_SECONDS_BETWEEN_PINGS)
                attacking.kill()
            time.sleep(_SECONDS_TO_ABORT)
        has_aborted = process.poll() is not None
        if has_aborted:
            self.start()
        return Harm(int(has_aborted), pings, most - before)


def attack_command(name: str, connection_file: Path, times: int = 1) -> list[str]:
    """The command that runs this attack."""
    return [sys.executable, "-m", "motionbooth_lab.rig.attacks", name, str(connection_file), str(times)]


@contextmanager
def _unread(
    connection: Connection, context: zmq.Context[zmq.Socket[bytes]] | None = None, **options: int
) -> Iterator[zmq.Socket[bytes]]:
    """A socket with a session whose replies are not read."""
    with ExitStack() as stack:
        context = context or stack.enter_context(zmq.Context())
        socket = stack.enter_context(context.socket(zmq.DEALER))
        for name, value in {**_UNREAD, **options}.items():
            socket.setsockopt(getattr(zmq, name), value)
        socket.curve_serverkey = connection.server_public.encode()
        socket.curve_publickey = connection.client_public.encode()
        socket.curve_secretkey = connection.client_secret.encode()
        socket.connect(connection.address)
        socket.send_multipart(encode(messages.Hello(id=0, version=PROTOCOL_VERSION)))
        yield socket


@contextmanager
def _read(connection: Connection) -> Iterator[zmq.Socket[bytes]]:
    """A socket with a session whose replies are read."""
    with _unread(connection, RCVHWM=100, RCVTIMEO=20_000) as socket:
        socket.recv_multipart()  # the reply to Hello
        yield socket


def _ask(socket: zmq.Socket[bytes], requests: Iterable[list[bytes]]) -> list[messages.AnyReply]:
    """Send the requests, ten ahead, and return the replies."""
    replies, sent = list[messages.AnyReply](), 0
    for sent, request in enumerate(requests, start=1):
        socket.send_multipart(request)
        if sent - len(replies) >= _AHEAD:
            replies.append(decode_reply(socket.recv_multipart())[0])
    return [*replies, *(decode_reply(socket.recv_multipart())[0] for _ in range(len(replies), sent))]


def main(name: str, file: str, times: int) -> None:
    """Each time in a new process, since libzmq may abort the attacker, too, or hang."""
    for number in range(times):
        if os.fork() == 0:
            signal.alarm(_SECONDS_OF_ATTACK)
            with suppress(zmq.Again):  # the server has ended the connection
                ATTACKS[name](Connection.read(Path(file)), number)
            os._exit(0)
        os.wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
