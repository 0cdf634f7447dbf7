"""Sessions and their messages, well-formed or not."""

from __future__ import annotations

import logging
import sys

import msgspec
import pytest
from motionbooth.server.logs import formatter
from motionbooth_protocol import messages
from motionbooth_protocol.client import Client, new_job_id
from motionbooth_protocol.codec import encode
from motionbooth_protocol.limits import PROTOCOL_VERSION
from raw_socket import HELLO, PING, answer, error, raw
from running_backend import RunningBackend, small_job


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
def test_a_malformed_message_is_refused_and_the_session_continues(
    shared_backend: RunningBackend, frames: list[bytes]
) -> None:
    with raw(shared_backend.connection) as socket:
        assert isinstance(answer(socket, *encode(HELLO)), messages.Welcome)
        assert error(socket, *frames) == "malformed"
        assert isinstance(answer(socket, *encode(PING)), messages.Pong)


def test_the_reply_to_a_malformed_request_has_its_id_if_that_can_be_read(shared_backend: RunningBackend) -> None:
    with raw(shared_backend.connection) as socket:
        answer(socket, *encode(HELLO))
        for request in ({"type": "Cancel", "id": 31, "job": "?"}, {"type": "Unknown", "id": 31}):
            assert answer(socket, msgspec.msgpack.encode(request)).re == 31
        assert answer(socket, encode(messages.Get(id=32, job="job-00001"))[0], b"a payload").re == 32
        assert answer(socket, b"\xc1").re == 0


def test_no_request_is_handled_before_hello(shared_backend: RunningBackend) -> None:
    with raw(shared_backend.connection) as socket:
        assert error(socket, *encode(messages.ListJobs(id=1))) == "no_session"


def test_unknown_fields_of_a_message_are_ignored(shared_backend: RunningBackend) -> None:
    with raw(shared_backend.connection) as socket:
        hello = msgspec.msgpack.encode({"type": "Hello", "id": 1, "version": PROTOCOL_VERSION, "color": "red"})
        assert isinstance(answer(socket, hello), messages.Welcome)


def test_replies_are_prompt_while_the_server_is_busy(shared_backend: RunningBackend) -> None:
    with shared_backend.client() as client, shared_backend.client() as busy:
        for seed in range(20):
            busy.submit(new_job_id(), small_job(seed=1000 + seed))
            assert client.ping() < 2


def test_a_client_may_be_used_right_after_its_construction(shared_backend: RunningBackend) -> None:
    client = Client(shared_backend.connection)
    assert client.ping() < 5
    client.close()


def test_no_message_forges_a_line_of_the_log(shared_backend: RunningBackend) -> None:
    forged = "2026-01-01 00:00:00,000 motionbooth.server INFO the owner has said so"
    with raw(shared_backend.connection) as socket:
        answer(socket, *encode(HELLO))
        request = msgspec.msgpack.encode({"type": f"Ping\n{forged}", "id": 7})
        assert error(socket, request) == "malformed"
    log = (shared_backend.home / "logs" / "server.log").read_text()
    assert f"\\n{forged}" in log
    assert not any(line.startswith(forged) for line in log.splitlines())


def test_a_traceback_forges_no_line_of_the_log_either() -> None:
    try:
        raise ValueError("bad\n2026-01-01 00:00:00,000 motionbooth.server INFO forged")
    except ValueError:
        record = logging.LogRecord("motionbooth", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    first, *others = formatter("text").format(record).splitlines()
    assert first.endswith("ERROR failed")
    assert all(line.startswith("    ") for line in others)
