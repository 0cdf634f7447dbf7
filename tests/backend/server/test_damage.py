"""Half-uploaded and damaged files of a running backend."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from motionbooth.server.store import Store
from motionbooth_protocol.client import Client, new_job_id
from motionbooth_protocol.codec import decode_reply, encode
from motionbooth_protocol.errors import Damaged, JobFailed, MotionBoothError, NotFound
from motionbooth_protocol.jobs import Job, Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.messages import Error, Put, PutChunk, PutHave
from raw_socket import HELLO, answer, raw
from refused import assert_says, refused
from running_backend import RunningBackend, small_job, wait_until

HALF, WHOLE = 400_000_000, 800_000_000
PUTS = 60


def finished(client: Client, size: int = 1000) -> Job:
    job = new_job_id()
    client.submit(job, small_job(f"steps=1 size={size}", seed=7))
    return client.follow(job)


def blob_path(backend: RunningBackend, sha256: str) -> Path:
    return backend.home / "blobs" / sha256[:2] / sha256


def flip_a_bit(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def test_repeated_puts_of_a_large_half_file_do_not_hold_up_another_key(backend: RunningBackend) -> None:
    backend.start()
    sha256, start = hashlib.sha256(b"never complete").hexdigest(), os.urandom(1000)
    put = Put(id=2, sha256=sha256, size=WHOLE)
    eve = backend.new_key("eve")
    with raw(eve) as socket:
        answer(socket, *encode(HELLO))
        answer(socket, *encode(put))
        answer(socket, *encode(PutChunk(id=3, sha256=sha256, offset=0), start))
    backend.stop()
    (half,) = (path for path in (backend.home / "incoming").rglob("*") if path.is_file())
    os.truncate(half, HALF)
    backend.start()
    with backend.client() as client, raw(eve) as socket:
        client.ping()
        answer(socket, *encode(HELLO))
        for _ in range(PUTS):
            socket.send_multipart(encode(put))
        slowest = max(client.ping() for _ in range(10))
        # Reading and hashing 400 MB takes 0.1 s or more; in the server's loop, one after the other, all took 8 s.
        assert slowest < 1.0
        replies = [decode_reply(socket.recv_multipart())[0] for _ in range(PUTS)]
        assert {reply.report.code for reply in replies if isinstance(reply, Error)} <= {"busy"}

        def offset() -> int:
            reply = answer(socket, *encode(put))
            return reply.offset if isinstance(reply, PutHave) else 0

        wait_until(lambda: offset() == HALF)
        began = time.monotonic()
        assert offset() == HALF
        assert time.monotonic() - began < 0.2, "it was hashed again"


@pytest.mark.parametrize("size", [1000, 3 << 20], ids=["small", "large"])
def test_a_damaged_clip_is_found_when_it_is_fetched_and_its_job_makes_it_again(
    shared_backend: RunningBackend, tmp_path: Path, size: int
) -> None:
    with shared_backend.client() as client:
        first = finished(client, size)
        clip = first.result("clip")
        flip_a_bit(blob_path(shared_backend, clip.sha256))
        with pytest.raises((NotFound, Damaged)):
            client.fetch(clip, tmp_path / "damaged.mp4")
        wait_until(lambda: not blob_path(shared_backend, clip.sha256).exists())
        with refused(NotFound, code="damaged", sha256=clip.sha256[:12]):
            client.fetch(clip, tmp_path / "damaged.mp4")
        again = finished(client, size)
        assert again.attempt == 1, "the cache does not answer with it"
        assert again.result("clip") == clip
        client.fetch(first.result("clip"), tmp_path / "clip.mp4")
        assert (tmp_path / "clip.mp4").read_bytes() == bytes([7]) * size


@pytest.mark.parametrize("size", [1001, (3 << 20) + 1], ids=["small", "large"])
def test_the_cache_never_answers_with_a_damaged_clip(shared_backend: RunningBackend, tmp_path: Path, size: int) -> None:
    with shared_backend.client() as client:
        clip = finished(client, size).result("clip")
        assert finished(client, size).attempt == 0
        flip_a_bit(blob_path(shared_backend, clip.sha256))
        again = finished(client, size)
        assert again.attempt == 1
        client.fetch(again.result("clip"), tmp_path / "clip.mp4")
        assert (tmp_path / "clip.mp4").read_bytes() == bytes([7]) * size


@pytest.mark.parametrize("size", [1002, (3 << 20) + 2], ids=["small", "large"])
def test_a_client_replaces_a_damaged_file_by_its_copy(
    shared_backend: RunningBackend, tmp_path: Path, size: int
) -> None:
    with shared_backend.client() as client:
        clip = finished(client, size).result("clip")
        client.fetch(clip, tmp_path / "copy.mp4")
        flip_a_bit(blob_path(shared_backend, clip.sha256))
        client.upload(tmp_path / "copy.mp4")
        client.fetch(clip, tmp_path / "clip.mp4")
        assert (tmp_path / "clip.mp4").read_bytes() == bytes([7]) * size


def test_a_job_does_not_read_an_input_that_was_damaged_while_it_waited(
    shared_backend: RunningBackend, tmp_path: Path
) -> None:
    (tmp_path / "picture").write_bytes(os.urandom(1000))
    with shared_backend.client() as client:
        blocker, train = new_job_id(), new_job_id()
        client.submit(blocker, small_job("steps=1000 pause=0.05"))
        wait_until(lambda: client.get(blocker).state == "running")
        picture = Picture(client.upload(tmp_path / "picture"))
        client.submit(train, TrainSpec(subject=SubjectSpec("Toy", "sks", "toy", [picture]), model="small"))
        flip_a_bit(blob_path(shared_backend, picture.image))
        client.cancel(blocker)
        with refused(JobFailed, sha256=picture.image[:12]):
            client.follow(train)
        wait_until(lambda: not blob_path(shared_backend, picture.image).exists())  # the server has looked, too
        assert client.upload(tmp_path / "picture") == picture.image
        again = new_job_id()
        client.submit(again, TrainSpec(subject=SubjectSpec("Toy", "sks", "toy", [picture]), model="small"))
        assert client.follow(again).state == "done"


def test_damage_that_nobody_asks_for_is_found_in_the_background_and_reported(
    backend: RunningBackend, tmp_path: Path
) -> None:
    backend.start()
    with backend.client() as client:
        small, large = finished(client).result("clip"), finished(client, 3 << 20).result("clip")
        client.fetch(small, tmp_path / "small.mp4")
    backend.stop()
    for clip in (small, large):
        flip_a_bit(blob_path(backend, clip.sha256))
    backend.start()
    with backend.client() as client:
        wait_until(lambda: 2 in [text.values.get("count") for text in client.status().problems.values()])
        assert {path.name for path in (backend.home / "corrupt").iterdir()} == {small.sha256, large.sha256}
        client.upload(tmp_path / "small.mp4")
        assert finished(client, 3 << 20).attempt == 1
        wait_until(lambda: client.status().problems == {})


def damage(path: Path, share: float) -> None:
    """Overwrite the pages of a store from this share of the file on."""
    size = path.stat().st_size
    first = int(size * share) // 4096 * 4096
    with path.open("r+b") as file:
        file.seek(first)
        file.write(b"\xff" * (size - first))


def filled_store(home: Path) -> Path:
    path = home / "jobs.sqlite"
    store = Store(path)
    with store.database.transaction():
        for number in range(3000):
            store.transitions.submit("ann", f"job-{number:05}", small_job(seed=number))
    store.close()
    return path


def test_a_server_does_not_start_on_a_damaged_store_and_says_what_to_do(tmp_path: Path) -> None:
    damage(filled_store(tmp_path), 0.01)
    command = [
        sys.executable,
        "-m",
        "motionbooth.cli",
        "serve",
        "--home",
        str(tmp_path),
        "--address",
        "tcp://127.0.0.1:*",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "restore them from a backup" in result.stderr
    assert "Traceback" not in result.stderr + result.stdout


def test_a_store_that_is_damaged_while_the_server_runs_is_a_sentence_for_clients_and_others_are_served(
    backend: RunningBackend,
) -> None:
    path = filled_store(backend.home)
    backend.start()
    damage(path, 0.2)
    with backend.client() as client:
        with pytest.raises(MotionBoothError) as caught:
            client.jobs(limit=500, all_users=True)
        assert_says(caught.value.text, reason=...)
        assert str(backend.home) not in str(caught.value)
        client.ping()


def test_the_log_of_the_workers_is_rotated_while_they_write_it(shared_backend: RunningBackend) -> None:
    log = shared_backend.home / "logs" / "worker.log"
    with shared_backend.client() as client:
        job = new_job_id()
        client.submit(job, small_job(f"steps=3 log={2 << 20}"))
        client.follow(job)
        wait_until(lambda: log.with_name("worker.log.1").exists() and log.stat().st_size == 0)
        assert log.with_name("worker.log.1").stat().st_size >= 6 << 20
        client.submit(new_job_id(), small_job("steps=1 log=1000"))
        wait_until(lambda: log.stat().st_size == 1000)


def test_the_log_of_the_connection_to_a_cluster_is_rotated_too(shared_backend: RunningBackend) -> None:
    log = shared_backend.home / "logs" / "ray.log"
    log.write_bytes(bytes(6 << 20))
    wait_until(lambda: log.with_name("ray.log.1").exists() and log.stat().st_size == 0)


def test_a_message_to_a_client_names_no_folder_of_the_backend(shared_backend: RunningBackend) -> None:
    with shared_backend.client(connection=shared_backend.new_key("user")) as client:
        job = new_job_id()
        client.submit(job, small_job("unreadable"))
        with pytest.raises(JobFailed) as caught:
            client.follow(job)
    assert str(caught.value) == "weights cannot be read ([Errno 2] No such file or directory: 'weights')."
