"""Attacks on the server's availability by a client with a valid key."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zmq
from motionbooth.server.auth import KeyCheck, open_socket
from motionbooth.server.keys import AuthorizedKeys, KeyPair, server_keys
from motionbooth_lab.rig.attacks import ATTACKS, Attacked
from motionbooth_protocol import messages
from motionbooth_protocol.client import new_job_id
from motionbooth_protocol.codec import decode_reply, encode
from motionbooth_protocol.connection import Connection
from raw_socket import HELLO, answer, raw
from running_backend import RunningBackend, small_job

_TIMES = {"hang_up": 8, "hang_up_with_heartbeats": 15, "hang_up_together": 2}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    attacked = Attacked(tmp_path_factory.mktemp("attacked") / "home", jobs=2000)
    yield attacked
    attacked.backend.end()


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_ends_nothing_and_neither_fills_the_memory_nor_keeps_others_waiting(
    attacked: Attacked, attack: str
) -> None:
    with attacked.backend.client() as other:
        job = new_job_id()
        other.submit(job, small_job("steps=3 pause=0.05", seed=list(ATTACKS).index(attack)))
        harm = attacked.suffer(attack, _TIMES.get(attack, 1))
        assert harm.aborts == 0
        assert harm.memory <= 100e6
        assert harm.ping_p99 < 1.0  # 50 ms where nothing else runs; the bench has the figure
        assert other.follow(job).attempt == 1


def test_a_client_that_reads_late_gets_every_reply(backend: RunningBackend, tmp_path: Path) -> None:
    backend.start()
    (tmp_path / "file").write_bytes(os.urandom(256 << 10))
    with backend.client() as client, raw(backend.connection, RCVHWM=1, RCVBUF=4096) as late:
        sha256 = client.upload(tmp_path / "file")
        answer(late, *encode(HELLO))
        for number in range(100):
            late.send_multipart(encode(messages.Fetch(id=100 + number, sha256=sha256, offset=0)))
        assert client.ping() < 1
        assert [decode_reply(late.recv_multipart())[0].re for _ in range(100)] == list(range(100, 200))


def test_a_client_that_sends_on_without_reading_is_disconnected(shared_backend: RunningBackend) -> None:
    connection = shared_backend.new_key("flood")
    with shared_backend.client() as other, raw(connection, RCVHWM=1, RCVBUF=4096, SNDTIMEO=10) as flood:
        answer(flood, *encode(HELLO))
        before = other.status().sessions
        # How many replies fit into the system's buffers differs. The flood itself, which reads nothing, is not told.
        while other.status().sessions == before:
            for number in range(200):
                with suppress(zmq.Again):
                    flood.send_multipart(encode(messages.GetStatus(id=number)))
        assert other.status().sessions == before - 1
        assert other.ping() < 1


def test_the_system_itself_finds_connections_that_are_gone(tmp_path: Path) -> None:
    keys, authorized = server_keys(tmp_path), AuthorizedKeys(tmp_path / "authorized")
    mine = KeyPair.kept_in(tmp_path / "mine.secret")
    authorized.add("me", mine.public)
    with zmq.Context() as context, open_socket(context, keys, "tcp://127.0.0.1:*") as router:
        check = KeyCheck(context, authorized)
        address = router.getsockopt_string(zmq.LAST_ENDPOINT)
        with raw(Connection(address, keys.public, mine.public, mine.secret)) as client:
            client.send(b"here")
            descriptor = router.recv_multipart(copy=False)[-1].get("__fd")
            with socket.socket(fileno=os.dup(int(descriptor))) as connection:
                assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        check.close()
