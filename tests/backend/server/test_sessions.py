"""Who gets in, and what the server makes of what they send."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq
from motionbooth_protocol import messages
from motionbooth_protocol.client import Client, new_job_id
from motionbooth_protocol.codec import decode_reply, encode
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.errors import NotAuthorized
from motionbooth_protocol.jobs import TERMINAL_STATES
from motionbooth_protocol.limits import PROTOCOL_MAJOR
from msgspec.structs import replace
from running_backend import RunningBackend, small_job, wait_until

HELLO = messages.Hello(id=1, major=PROTOCOL_MAJOR, minor=0)
PING = messages.Ping(id=2)


@contextmanager
def raw(connection: Connection, curve: bool = True, **options: int) -> Iterator[zmq.Socket[bytes]]:
    """A bare socket with the right keys, to send what our client never would."""
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
    assert reply.message
    return reply.code


def memory_of(backend: RunningBackend) -> int:
    """Bytes that the server's process holds."""
    assert backend.process is not None
    return int(Path(f"/proc/{backend.process.pid}/statm").read_text().split()[1]) * 4096


def test_a_key_that_was_not_let_in_is_refused_in_words(shared_backend: RunningBackend) -> None:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    stranger = replace(shared_backend.connection, client_public=public, client_secret=secret)
    with pytest.raises(NotAuthorized, match="refuses this key"):
        shared_backend.client(connection=stranger).__enter__()


def test_without_encryption_nobody_gets_in(shared_backend: RunningBackend) -> None:
    with raw(shared_backend.connection, curve=False, RCVTIMEO=1000) as socket:
        socket.send_multipart(encode(HELLO))
        with pytest.raises(zmq.Again):
            socket.recv_multipart()


def test_withdrawing_a_key_ends_its_live_session_and_no_other(shared_backend: RunningBackend) -> None:
    connection = shared_backend.new_key("guest")
    with shared_backend.client() as owner, shared_backend.client(connection=connection) as guest:
        job = new_job_id()
        guest.submit(job, small_job("steps=60 pause=0.1", seed=50))
        (shared_backend.home / "authorized" / "guest.pub").unlink()
        with pytest.raises(NotAuthorized, match="withdrawn"):
            guest.follow(job)
        with pytest.raises(NotAuthorized):
            guest.ping()
        owner.ping()


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"\xc1"],
        [b"\xff" * 1000],
        [b"\x91" * 100_000],
        [encode(PING)[0][:-1]],
        [encode(PING)[0] + b"\x00"],
        [encode(PING)[0], b"payload", b"more"],
        [encode(PING)[0], b"a payload that Ping does not have"],
        [encode(messages.Pong(re=1))[0]],
        [b"\x82\xa4type\xa4Ping\xa2id\xff"],
    ],
)
def test_what_is_no_message_is_refused_and_the_session_goes_on(
    shared_backend: RunningBackend, frames: list[bytes]
) -> None:
    with raw(shared_backend.connection) as socket:
        assert isinstance(answer(socket, *encode(HELLO)), messages.Welcome)
        assert error(socket, *frames) == "malformed"
        assert isinstance(answer(socket, *encode(PING)), messages.Pong)


def test_ten_thousand_frames_are_refused_and_memory_stays_bounded(shared_backend: RunningBackend) -> None:
    with raw(shared_backend.connection) as socket:
        answer(socket, *encode(HELLO))
        before = memory_of(shared_backend)
        for _ in range(5):
            assert error(socket, *[b"x" * 100] * 10_000) == "malformed"
        assert isinstance(answer(socket, *encode(PING)), messages.Pong)
        assert memory_of(shared_backend) - before < 64 << 20


def test_an_oversize_frame_ends_its_connection_and_nobody_elses(shared_backend: RunningBackend) -> None:
    with shared_backend.client() as other, raw(shared_backend.connection, RCVTIMEO=1000, RECONNECT_IVL=-1) as socket:
        answer(socket, *encode(HELLO))
        before = memory_of(shared_backend)
        socket.send(bytes(64 << 20))
        with pytest.raises(zmq.Again):
            socket.recv_multipart()
        other.ping()
        assert memory_of(shared_backend) - before < 32 << 20


def test_another_major_version_is_told_which_side_to_update(shared_backend: RunningBackend) -> None:
    with raw(shared_backend.connection) as socket:
        newer = answer(socket, *encode(replace(HELLO, major=PROTOCOL_MAJOR + 1)))
        older = answer(socket, *encode(replace(HELLO, major=0)))
        assert isinstance(newer, messages.Error)
        assert isinstance(older, messages.Error)
        assert newer.code == older.code == "version_mismatch"
        assert "update the backend" in newer.message
        assert "update the add-on" in older.message
        assert error(socket, *encode(PING)) == "no_session"


def test_nothing_is_answered_before_hello(shared_backend: RunningBackend) -> None:
    with raw(shared_backend.connection) as socket:
        assert error(socket, *encode(messages.ListJobs(id=1))) == "no_session"


def test_a_later_minor_version_may_send_fields_that_we_do_not_know(shared_backend: RunningBackend) -> None:
    with raw(shared_backend.connection) as socket:
        hello = b"\x85\xa4type\xa5Hello\xa2id\x01\xa5major\x01\xa5minor\x63\xa6colour\xa3red"
        assert isinstance(answer(socket, hello), messages.Welcome)


def test_a_slow_reader_slows_nobody_and_misses_no_durable_event(backend: RunningBackend, tmp_path: Path) -> None:
    backend.start()
    (tmp_path / "file").write_bytes(os.urandom(256 << 10))
    with backend.client() as client:
        sha256 = client.upload(tmp_path / "file")
        jobs = [new_job_id() for _ in range(3)]
        with raw(backend.connection, RCVHWM=1, RCVBUF=4096) as slow:
            answer(slow, *encode(HELLO))
            for number, job in enumerate(jobs):
                client.submit(job, small_job("steps=3 pause=0.05", seed=number))
                slow.send_multipart(encode(messages.Attach(id=10 + number, job=job)))
            for number in range(200):  # 50 MB of answers that it does not read
                slow.send_multipart(encode(messages.Fetch(id=100 + number, sha256=sha256, offset=0)))
            before = memory_of(backend)
            began = time.monotonic()
            for job in jobs:
                client.follow(job)
            assert time.monotonic() - began < 10
            assert client.ping() < 1
            assert memory_of(backend) - before < 64 << 20
            ended = set()
            wait_until(lambda: ended.update(terminal_events(slow)) or ended == set(jobs), 20)


def terminal_events(socket: zmq.Socket[bytes]) -> Iterator[str]:
    """The jobs whose end is told in what waits on the socket."""
    while socket.poll(300):
        reply, _ = decode_reply(socket.recv_multipart())
        if isinstance(reply, messages.Event) and reply.state in TERMINAL_STATES:
            yield reply.job


def test_answers_come_while_the_server_records_and_sends(shared_backend: RunningBackend) -> None:
    with shared_backend.client() as client, shared_backend.client() as busy:
        for seed in range(20):
            busy.submit(new_job_id(), small_job(seed=1000 + seed))
            assert client.ping() < 2


def test_the_server_outlives_a_client_that_goes_without_a_word(shared_backend: RunningBackend) -> None:
    job = new_job_id()
    with raw(shared_backend.connection) as socket:
        answer(socket, *encode(HELLO))
        answer(socket, *encode(messages.Submit(id=3, job=job, spec=small_job("steps=5 pause=0.1", seed=60))))
        socket.send_multipart(encode(messages.Attach(id=4, job=job)))
    with shared_backend.client() as client:
        assert client.follow(job).state == "done"


def test_a_client_may_be_used_right_after_its_construction(shared_backend: RunningBackend) -> None:
    client = Client(shared_backend.connection)
    assert client.ping() < 5
    client.close()
