"""Faults 6 to 10: vanishing clients, broken networks, slow readers and repeated requests."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from following import Following
from motionbooth_protocol import messages
from motionbooth_protocol.client import new_job_id
from motionbooth_protocol.codec import decode_reply, encode
from motionbooth_protocol.errors import Conflict
from motionbooth_protocol.jobs import TERMINAL_STATES
from motionbooth_protocol.messages import Attach
from msgspec.structs import replace
from raw_socket import HELLO, answer, raw
from running_backend import Proxy, RunningBackend, small_job, wait_until


def test_fault_06_the_server_survives_a_client_that_vanishes(shared_backend: RunningBackend) -> None:
    job = new_job_id()
    with raw(shared_backend.connection) as socket:
        answer(socket, *encode(HELLO))
        answer(socket, *encode(messages.Submit(id=3, job=job, spec=small_job("steps=5 pause=0.1", seed=60))))
        socket.send_multipart(encode(messages.Attach(id=4, job=job)))
    with shared_backend.client() as client:
        assert client.follow(job).state == "done"


def test_fault_06_the_server_survives_clients_gone_before_the_reply(backend: RunningBackend) -> None:
    """The server notices that the client is gone while it replies to the Attach."""
    backend.start()
    job = new_job_id()
    with backend.client() as client:
        client.submit(job, small_job())
        client.follow(job)
    assert backend.process is not None
    for _ in range(5):
        with raw(backend.connection, LINGER=200) as leaving:
            answer(leaving, *encode(HELLO))
            backend.process.send_signal(signal.SIGSTOP)
            for index in range(20):
                leaving.send_multipart(encode(Attach(id=100 + index, job=job)))
            time.sleep(0.1)
        backend.process.send_signal(signal.SIGCONT)
    with backend.client() as client:
        assert client.ping() < 10
    assert backend.process.poll() is None


def test_fault_07_a_client_resumes_without_a_gap_after_the_network_was_cut(
    backend: RunningBackend, proxy: Proxy
) -> None:
    following = Following(backend, "steps=20 pause=0.1", proxy.address)
    wait_until(lambda: len(following.progress) > 3)
    proxy.is_open = False
    proxy.cut()
    with backend.client() as another:  # the job does not mind
        wait_until(lambda: another.get(following.job).state == "done")
    proxy.is_open = True
    assert following.done().state == "done"
    assert proxy.connections == 2


def test_fault_07_an_upload_is_resumed_after_the_network_was_cut(
    backend: RunningBackend, proxy: Proxy, tmp_path: Path
) -> None:
    size = 24 << 20
    (tmp_path / "big").write_bytes(os.urandom(size))
    cuts = iter([size // 3, size // 2])
    next_cut = next(cuts)

    def cut(have: int, of: int) -> None:
        nonlocal next_cut
        if have > next_cut:
            next_cut = next(cuts, size)
            proxy.cut()

    with backend.client(connection=replace(backend.connection, address=proxy.address)) as client:
        client.upload(tmp_path / "big", cut)
    assert proxy.connections == 3
    assert proxy.bytes_up < size + 2 * 10 * (256 << 10) + (1 << 20), "more was sent again than what was in flight"


def test_fault_08_a_client_detects_a_hanging_server_and_reconnects(backend: RunningBackend, proxy: Proxy) -> None:
    following = Following(backend, "steps=20 pause=0.1", proxy.address, timeout=2.0, ping_after=0.5)
    wait_until(lambda: len(following.progress) > 3)
    assert backend.process is not None
    backend.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: proxy.connections > 1)
    backend.process.send_signal(signal.SIGCONT)
    assert following.done().state == "done"


def test_fault_08_a_client_detects_a_half_open_connection_and_reconnects(backend: RunningBackend, proxy: Proxy) -> None:
    following = Following(backend, "steps=20 pause=0.1", proxy.address, timeout=1.0, ping_after=0.5)
    wait_until(lambda: len(following.progress) > 3)
    proxy.is_paused = True  # still connected, but nothing comes through
    wait_until(lambda: proxy.connections > 1)
    proxy.is_paused = False
    assert following.done().state == "done"


def test_fault_08_the_server_drops_a_half_open_session(backend: RunningBackend) -> None:
    backend.start(IDLE_SECONDS="1")
    proxy = Proxy(backend.connection.address)
    try:
        with backend.client() as other, raw(replace(backend.connection, address=proxy.address)) as gone:
            answer(gone, *encode(HELLO))
            assert other.status().sessions == 2
            proxy.is_paused = True
            wait_until(lambda: other.status().sessions == 1, 10)
    finally:
        proxy.close()


def test_fault_08_the_server_drops_a_half_open_session_that_follows_a_job(backend: RunningBackend) -> None:
    backend.start(IDLE_SECONDS="1")
    proxy = Proxy(backend.connection.address)
    job = new_job_id()
    try:
        with backend.client() as other, raw(replace(backend.connection, address=proxy.address)) as gone:
            answer(gone, *encode(HELLO))
            other.submit(job, small_job("steps=1000 pause=1000"))
            answer(gone, *encode(Attach(id=4, job=job)))
            assert other.status().sessions == 2
            proxy.is_paused = True
            wait_until(lambda: other.status().sessions == 1, 10)
    finally:
        proxy.close()


def test_fault_08_only_idle_sessions_are_dropped_and_their_clients_recover(backend: RunningBackend) -> None:
    backend.start(IDLE_SECONDS="1")
    proxy = Proxy(backend.connection.address)
    try:
        with backend.client(connection=replace(backend.connection, address=proxy.address)) as client:
            job = new_job_id()
            client.submit(job, small_job("steps=25 pause=0.1"))
            client.follow(job)
            assert proxy.connections == 1
            time.sleep(2)
            client.ping()
            assert proxy.connections == 2
    finally:
        proxy.close()


def test_fault_09_a_slow_network_slows_no_other_client_and_all_durable_events_arrive(
    backend: RunningBackend, proxy: Proxy
) -> None:
    proxy.bytes_per_second = 3000
    slow = Following(backend, "steps=30 pause=0.05", proxy.address, timeout=60.0)
    with backend.client() as other:
        wait_until(lambda: slow.progress)
        assert max(other.ping() for _ in range(50)) < 1
    assert slow.done().state == "done"


def test_fault_09_a_slow_reader_slows_no_other_client_and_misses_no_durable_event(
    backend: RunningBackend, tmp_path: Path
) -> None:
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
            before = backend.memory()
            began = time.monotonic()
            for job in jobs:
                client.follow(job)
            assert time.monotonic() - began < 10
            assert client.ping() < 1
            assert backend.memory() - before < 64 << 20
            ended = set()
            wait_until(lambda: ended.update(terminal_events(slow)) or ended == set(jobs), 20)


def terminal_events(socket: zmq.Socket[bytes]) -> Iterator[str]:
    """The jobs whose final events wait on the socket."""
    while socket.poll(300):
        reply, _ = decode_reply(socket.recv_multipart())
        if isinstance(reply, messages.Event) and reply.state in TERMINAL_STATES:
            yield reply.job


def test_fault_10_the_same_submit_a_hundred_times_over_two_connections_is_one_job(
    shared_backend: RunningBackend,
) -> None:
    job, spec = new_job_id(), small_job(seed=2)

    def submit_often() -> None:
        with shared_backend.client() as client:
            for _ in range(50):
                client.submit(job, spec)

    threads = [threading.Thread(target=submit_often) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with shared_backend.client() as client:
        assert [j.id for j in client.jobs()].count(job) == 1
        assert client.follow(job).attempt == 1
        with pytest.raises(Conflict):
            client.submit(job, small_job(seed=3))
