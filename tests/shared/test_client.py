from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import zmq
from motionbooth_protocol import messages
from motionbooth_protocol.client import Client, new_job_id
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.errors import (
    Canceled,
    Damaged,
    InvalidInput,
    NotFound,
    OutOfSpace,
    Unreachable,
    by_code,
)
from motionbooth_protocol.jobs import Blob
from motionbooth_protocol.link import WrongServer
from msgspec.structs import replace
from refused import refused
from running_backend import RunningBackend, small_job


def nobody(address: str) -> Connection:
    server, _ = zmq.curve_keypair()
    public, secret = zmq.curve_keypair()
    return Connection(address, server.decode(), public.decode(), secret.decode())


def test_a_missing_backend_is_reported_at_once_with_the_address_and_what_to_do() -> None:
    began = time.monotonic()
    with (
        refused(Unreachable, address="tcp://127.0.0.1:1"),
        Client(nobody("tcp://127.0.0.1:1")),
    ):
        pass
    assert time.monotonic() - began < 5


def test_a_server_that_never_replies_is_reported_after_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with refused(Unreachable, seconds=1.0), Client(nobody(address), timeout=1.0):
            pass


def test_another_backend_at_the_address_is_reported(shared_backend: RunningBackend) -> None:
    other = replace(shared_backend.connection, server_public=zmq.curve_keypair()[0].decode())
    with pytest.raises(WrongServer), Client(other):
        pass


@pytest.mark.parametrize(
    "spoilt", [{"address": "nonsense"}, {"server_public": "short"}, {"client_secret": "ü" * 40}, {"address": ""}]
)
def test_an_unusable_connection_file_is_reported_with_a_sentence(spoilt: dict[str, str]) -> None:
    with refused(InvalidInput, address=...), Client(replace(nobody("tcp://127.0.0.1:1"), **spoilt)):
        pass


def test_a_server_that_stops_for_good_is_reported_when_patience_ends(backend: RunningBackend) -> None:
    backend.start()
    with backend.client(timeout=2.0, patience=1.0) as client:
        job = new_job_id()
        client.submit(job, small_job("steps=1000 pause=0.1"))
        backend.stop()
        began = time.monotonic()
        with refused(Unreachable, address=...):
            client.follow(job)
        assert time.monotonic() - began < 10
        with pytest.raises(Unreachable):
            client.jobs()


def test_waiting_can_be_stopped_from_another_thread(shared_backend: RunningBackend) -> None:
    stop = threading.Event()
    with Client(shared_backend.connection, stop=stop) as client, shared_backend.client() as other:
        job = new_job_id()
        client.submit(job, small_job("steps=1000 pause=0.1"))
        timer = threading.Timer(0.5, stop.set)
        timer.start()
        began = time.monotonic()
        with pytest.raises(Canceled):
            client.follow(job)
        assert time.monotonic() - began < 5
        timer.join()
        assert other.get(job).state in ("queued", "running")
        other.cancel(job)


def test_an_exception_from_a_callback_leaves_the_client_usable(shared_backend: RunningBackend) -> None:
    def fail(_: object) -> None:
        raise KeyboardInterrupt

    with shared_backend.client() as client:
        job = new_job_id()
        client.submit(job, small_job("steps=1000 pause=0.05", seed=1))
        with pytest.raises(KeyboardInterrupt):
            client.follow(job, on_progress=fail)
        client.cancel(job)
        with pytest.raises(Canceled):
            client.follow(job)


def test_an_upload_of_a_known_file_sends_nothing(shared_backend: RunningBackend, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(1 << 20))
    calls: list[int] = []
    with shared_backend.client() as client:
        first = client.upload(tmp_path / "file", lambda have, of: calls.append(have))
        assert calls[-1] == 1 << 20
        calls.clear()
        assert client.upload(tmp_path / "file", lambda have, of: calls.append(have)) == first
        assert calls == []


def test_a_file_that_cannot_be_sent_is_reported_with_a_sentence(shared_backend: RunningBackend, tmp_path: Path) -> None:
    with shared_backend.client() as client:
        with refused(NotFound, path=str(tmp_path / "missing.png")):
            client.upload(tmp_path / "missing.png")
        with refused(InvalidInput, path=str(tmp_path)):
            client.upload(tmp_path)


def uploaded(client: Client, folder: Path, size: int) -> tuple[Blob, bytes]:
    data = os.urandom(size)
    (folder / "source").write_bytes(data)
    return Blob("clip", client.upload(folder / "source"), size), data


def test_a_broken_download_is_resumed(shared_backend: RunningBackend, tmp_path: Path) -> None:
    with shared_backend.client() as client:
        blob, data = uploaded(client, tmp_path, 3 << 20)
        part = tmp_path / f".clip.mp4.{blob.sha256[:16]}.part"
        part.write_bytes(data[: 2 << 20])
        seen: list[int] = []
        client.fetch(blob, tmp_path / "clip.mp4", lambda have, of: seen.append(have))
    assert seen[0] > 2 << 20
    assert (tmp_path / "clip.mp4").read_bytes() == data
    assert not part.exists()


def test_a_corrupt_partial_download_starts_again(shared_backend: RunningBackend, tmp_path: Path) -> None:
    with shared_backend.client() as client:
        blob, data = uploaded(client, tmp_path, 1 << 20)
        (tmp_path / f".clip.mp4.{blob.sha256[:16]}.part").write_bytes(bytes(500_000))
        client.fetch(blob, tmp_path / "clip.mp4")
    assert (tmp_path / "clip.mp4").read_bytes() == data


def test_two_downloads_into_one_file_at_once_never_mix(shared_backend: RunningBackend, tmp_path: Path) -> None:
    """Two Blenders fetch the picture of a new subject at the same moment."""
    with shared_backend.client() as client:
        blob, data = uploaded(client, tmp_path, 3 << 20)
        others: list[int] = []

        def on_bytes(have: int, of: int) -> None:
            if not others:
                others.append(have)
                with (tmp_path / f".clip.mp4.{blob.sha256[:16]}.part").open("ab") as part:
                    part.write(data[:have])

        client.fetch(blob, tmp_path / "clip.mp4", on_bytes)
    assert (tmp_path / "clip.mp4").read_bytes() == data


def test_a_result_with_the_wrong_sha256_never_appears(shared_backend: RunningBackend, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"the take of yesterday")
    with shared_backend.client() as client:
        blob, _ = uploaded(client, tmp_path, 1 << 20)
        for size in (blob.size - 1, blob.size + 1):  # the bytes that the server sends have another sha256 then
            with pytest.raises(Damaged):
                client.fetch(Blob("clip", blob.sha256, size), tmp_path / "clip.mp4")
    assert (tmp_path / "clip.mp4").read_bytes() == b"the take of yesterday"


def test_fetching_a_missing_file_raises_not_found(shared_backend: RunningBackend, tmp_path: Path) -> None:
    with shared_backend.client() as client, pytest.raises(NotFound):
        client.fetch(Blob("clip", "0" * 64, 10), tmp_path / "clip.mp4")


FETCH_INTO_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from motionbooth_protocol.client import Client
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.errors import OutOfSpace
from motionbooth_protocol.jobs import Blob
file, sha256, size, path = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
with Client(Connection.read(Path(file))) as client:
    try:
        client.fetch(Blob("clip", sha256, int(size)), Path(path))
    except OutOfSpace as error:
        sys.exit(str(error))
"""


def test_a_full_disk_of_the_client_is_reported_and_the_download_resumed_when_there_is_space(
    shared_backend: RunningBackend, tmp_path: Path
) -> None:
    with shared_backend.client() as client:
        blob, data = uploaded(client, tmp_path, 2 << 20)
        arguments = [shared_backend.connection_file, blob.sha256, blob.size, tmp_path / "clip.mp4"]
        full = subprocess.run(
            [sys.executable, "-c", FETCH_INTO_A_FULL_DISK, *map(str, arguments)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert full.returncode == 1
        assert "is full" in full.stderr
        assert "Traceback" not in full.stderr
        assert not (tmp_path / "clip.mp4").exists()
        seen: list[int] = []
        client.fetch(blob, tmp_path / "clip.mp4", lambda have, of: seen.append(have))
    assert seen[0] > 500_000
    assert (tmp_path / "clip.mp4").read_bytes() == data


def test_a_busy_backend_is_asked_again_until_it_answers(backend: RunningBackend) -> None:
    backend.start(REQUESTS_PER_SECOND="5")
    with backend.client() as client:
        began = time.monotonic()
        for _ in range(20):
            client.ping()
        assert time.monotonic() - began > 1


def test_on_push_receives_events_of_all_attached_jobs_during_other_requests(
    shared_backend: RunningBackend,
) -> None:
    heard: list[messages.AnyReply] = []
    pushing = Client(shared_backend.connection, on_push=heard.append)
    with pushing as client:
        assert client.sessions == 1
        jobs = [new_job_id() for _ in range(3)]
        for number, job in enumerate(jobs):
            client.submit(job, small_job("steps=2", seed=500 + number))
            client.attach(job)
        ended: set[str] = set()
        deadline = time.monotonic() + 30
        while len(ended) < 3 and time.monotonic() < deadline:
            client.ping()
            client.listen(0.05)
            ended = {m.job for m in heard if isinstance(m, messages.Event) and m.state == "done"}
        assert ended == set(jobs)
    for job in jobs:
        seqs = [m.seq for m in heard if isinstance(m, messages.Event) and m.job == job]
        assert seqs == list(range(1, len(seqs) + 1)), "every event once and in order"


def test_codes_from_the_wire_name_their_classes() -> None:
    assert by_code("out_of_space") is OutOfSpace
    assert by_code("of a later version").__name__ == "MotionBoothError"
