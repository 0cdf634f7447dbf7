"""Faults 11 to 15: foreign bytes, foreign versions, foreign keys."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import zmq
from motionbooth.server.auth import KeyCheck, open_socket
from motionbooth.server.keys import AuthorizedKeys, KeyPair, server_keys
from motionbooth_lab.rig.server_process import kill_thread
from motionbooth_protocol import messages
from motionbooth_protocol.client import new_job_id
from motionbooth_protocol.codec import encode
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.errors import NotAuthorized
from motionbooth_protocol.limits import PROTOCOL_VERSION
from msgspec.structs import replace
from raw_socket import HELLO, PING, answer, error, raw
from running_backend import Proxy, RunningBackend, small_job, wait_until


def test_fault_11_a_flipped_bit_is_never_decoded_and_costs_no_job(backend: RunningBackend, proxy: Proxy) -> None:
    with backend.client(connection=replace(backend.connection, address=proxy.address)) as client:
        proxy.flip_next = True
        job = new_job_id()
        client.submit(job, small_job())
        assert client.follow(job).state == "done"
        assert len(client.jobs()) == 1
    assert proxy.connections == 2


def test_fault_12_ten_thousand_frames_are_refused_and_memory_stays_bounded(shared_backend: RunningBackend) -> None:
    with raw(shared_backend.connection) as socket:
        answer(socket, *encode(HELLO))
        before = shared_backend.memory()
        for _ in range(5):
            assert error(socket, *[b"x" * 100] * 10_000) == "malformed"
        assert isinstance(answer(socket, *encode(PING)), messages.Pong)
        assert shared_backend.memory() - before < 64 << 20


def test_fault_12_an_oversize_frame_ends_its_own_connection_only(shared_backend: RunningBackend) -> None:
    with shared_backend.client() as other, raw(shared_backend.connection, RCVTIMEO=1000, RECONNECT_IVL=-1) as socket:
        answer(socket, *encode(HELLO))
        before = shared_backend.memory()
        socket.send(bytes(64 << 20))
        with pytest.raises(zmq.Again):
            socket.recv_multipart()
        other.ping()
        assert shared_backend.memory() - before < 32 << 20


def test_fault_13_for_another_version_the_error_says_which_side_to_update(shared_backend: RunningBackend) -> None:
    with raw(shared_backend.connection) as socket:
        newer = answer(socket, *encode(replace(HELLO, version=PROTOCOL_VERSION + 1)))
        older = answer(socket, *encode(replace(HELLO, version=0)))
        assert isinstance(newer, messages.Error)
        assert isinstance(older, messages.Error)
        assert newer.report.code == older.report.code == "version_mismatch"
        assert str(newer.report).endswith("update the backend.")
        assert str(older.report).endswith("update the client, in Blender the extension.")
        assert error(socket, *encode(PING)) == "no_session"


def test_fault_14_an_unauthorized_key_is_refused_with_a_sentence(shared_backend: RunningBackend) -> None:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    stranger = replace(shared_backend.connection, client_public=public, client_secret=secret)
    with pytest.raises(NotAuthorized):
        shared_backend.client(connection=stranger).__enter__()


def test_fault_14_a_plaintext_connection_is_refused(shared_backend: RunningBackend) -> None:
    with raw(shared_backend.connection, curve=False, RCVTIMEO=1000) as socket:
        socket.send_multipart(encode(HELLO))
        with pytest.raises(zmq.Again):
            socket.recv_multipart()


def test_fault_14_revoking_a_key_ends_its_sessions_and_no_other(shared_backend: RunningBackend) -> None:
    connection = shared_backend.new_key("guest")
    with shared_backend.client() as owner, shared_backend.client(connection=connection) as guest:
        job = new_job_id()
        guest.submit(job, small_job("steps=60 pause=0.1", seed=50))
        (shared_backend.home / "authorized" / "guest.pub").unlink()
        with pytest.raises(NotAuthorized):
            guest.follow(job)
        with pytest.raises(NotAuthorized):
            guest.ping()
        owner.ping()


def test_fault_15_an_authenticator_that_dies_is_restarted_and_still_refuses_strangers(
    backend: RunningBackend,
) -> None:
    backend.start()
    log = backend.home / "logs" / "server.log"
    public, secret = (key.decode() for key in zmq.curve_keypair())
    stranger = replace(backend.connection, client_public=public, client_secret=secret)
    with backend.client() as inside:
        for deaths in (1, 2):
            assert backend.process is not None
            backend.process.send_signal(signal.SIGUSR1)
            inside.ping()
            wait_until(lambda count=deaths: log.read_text().count("authenticator is running again") == count)
            with backend.client() as newcomer:
                newcomer.ping()
            with pytest.raises(NotAuthorized):
                backend.client(connection=stranger).__enter__()
    assert "ZeroDivisionError" in log.read_text(), "the log says what it died of"
    assert backend.stop() == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_fault_15_without_an_authenticator_new_connections_are_refused(tmp_path: Path) -> None:
    keys, authorized = server_keys(tmp_path), AuthorizedKeys(tmp_path / "authorized")
    mine = KeyPair.kept_in(tmp_path / "mine.secret")
    authorized.add("me", mine.public)
    with zmq.Context() as context, open_socket(context, keys, "tcp://127.0.0.1:*") as socket:
        address = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        connection = Connection(address, keys.public, mine.public, mine.secret)
        check = KeyCheck(context, authorized)
        with raw(connection) as inside:
            inside.send(b"before")
            assert socket.recv_multipart()[1] == b"before"
            kill_thread(check.authenticator)
            with raw(connection) as outside:
                outside.send(b"no check")
                assert not socket.poll(1000)
                inside.send(b"still in")
                assert socket.recv_multipart()[1] == b"still in"
                check.tick()
            with raw(connection) as newcomer:
                newcomer.send(b"checked")
                assert socket.recv_multipart()[1] == b"checked"
        check.close()
