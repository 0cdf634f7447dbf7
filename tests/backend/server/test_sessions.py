"""Who gets in, and what the server makes of what they send."""

from __future__ import annotations

import pytest
from motionbooth_protocol import messages
from motionbooth_protocol.client import Client, new_job_id
from motionbooth_protocol.codec import decode_reply, encode
from msgspec.structs import replace
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
def test_what_is_no_message_is_refused_and_the_session_goes_on(
    shared_backend: RunningBackend, frames: list[bytes]
) -> None:
    with raw(shared_backend.connection) as socket:
        assert isinstance(answer(socket, *encode(HELLO)), messages.Welcome)
        assert error(socket, *frames) == "malformed"
        assert isinstance(answer(socket, *encode(PING)), messages.Pong)


def test_nothing_is_answered_before_hello(shared_backend: RunningBackend) -> None:
    with raw(shared_backend.connection) as socket:
        assert error(socket, *encode(messages.ListJobs(id=1))) == "no_session"


def test_a_later_minor_version_may_send_fields_that_we_do_not_know(shared_backend: RunningBackend) -> None:
    with raw(shared_backend.connection) as socket:
        hello = b"\x85\xa4type\xa5Hello\xa2id\x01\xa5major\x01\xa5minor\x63\xa6colour\xa3red"
        assert isinstance(answer(socket, hello), messages.Welcome)


def test_answers_come_while_the_server_records_and_sends(shared_backend: RunningBackend) -> None:
    with shared_backend.client() as client, shared_backend.client() as busy:
        for seed in range(20):
            busy.submit(new_job_id(), small_job(seed=1000 + seed))
            assert client.ping() < 2


def test_a_client_may_be_used_right_after_its_construction(shared_backend: RunningBackend) -> None:
    client = Client(shared_backend.connection)
    assert client.ping() < 5
    client.close()


def test_a_client_of_version_1_0_is_never_sent_a_preview(shared_backend: RunningBackend) -> None:
    job = new_job_id()
    with raw(shared_backend.connection) as old, shared_backend.client() as client:
        answer(old, *encode(replace(HELLO, minor=0)))
        client.submit(job, small_job("steps=4 pause=0.05 preview=1000", seed=71))
        old.send_multipart(encode(messages.Attach(id=3, job=job)))
        shown: list[messages.Preview] = []
        client.follow(job, on_preview=lambda preview, _: shown.append(preview))
        assert shown
        kinds = set()
        while old.poll(500):
            kinds.add(type(decode_reply(old.recv_multipart())[0]))
        assert messages.Event in kinds
        assert messages.Preview not in kinds
