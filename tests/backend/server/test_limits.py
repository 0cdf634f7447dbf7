"""What one key may see and use: roles, quotas, counts and rates; and the removal of jobs by request and by age."""

from __future__ import annotations

import os
import resource
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from motionbooth.server.blobs import Blobs
from motionbooth.server.disk_space import DiskSpace
from motionbooth.server.retention import Retention
from motionbooth.server.specs import encode_spec
from motionbooth.server.store import Store
from motionbooth.server.transfers import Transfers
from motionbooth_protocol.client import Client, new_job_id
from motionbooth_protocol.codec import decode_reply, encode
from motionbooth_protocol.connection import host_and_port
from motionbooth_protocol.errors import Canceled, Conflict, NotAuthorized, NotFound, OverLimit
from motionbooth_protocol.jobs import Blob, Job, Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.limits import PAGE_BYTES
from motionbooth_protocol.messages import Error, GetStatus, Jobs, ListJobs, Ping, Pong, Put
from motionbooth_protocol.motion import Box, SubjectTrack
from msgspec.structs import replace
from raw_socket import HELLO, answer, raw
from refused import refused
from running_backend import SHOT, RunningBackend, large_job, small_job, stored, wait_until


def done(client: Client, prompt: str, seed: int = 0) -> Job:
    job = new_job_id()
    client.submit(job, small_job(prompt, seed))
    return client.follow(job)


def files(backend: RunningBackend) -> set[str]:
    return {path.name for path in (backend.home / "blobs").rglob("*") if path.is_file()}


def test_the_greeting_has_name_role_and_limits(backend: RunningBackend) -> None:
    backend.start(QUOTA_BYTES="5000000")
    with backend.client() as owner, backend.client(connection=backend.new_key("guest")) as guest:
        assert (owner.connect().name, owner.connect().role) == ("local", "admin")
        assert (guest.connect().name, guest.connect().role) == ("guest", "user")
        assert guest.connect().limits.quota_bytes == 5_000_000


def test_an_admin_sees_and_cancels_the_jobs_of_all_users_and_a_user_does_not(shared_backend: RunningBackend) -> None:
    with (
        shared_backend.client() as admin,
        shared_backend.client(connection=shared_backend.new_key("guest")) as guest,
    ):
        job = new_job_id()
        guest.submit(job, small_job("steps=1000 pause=0.05"))
        listed = {found.id: found for found in admin.jobs(all_users=True)}
        assert (listed[job].owner, listed[job].name, listed[job].model) == ("guest", "shot", "small")
        wait_until(lambda: admin.get(job).state == "running")
        assert admin.spec(job).spec == small_job("steps=1000 pause=0.05")
        assert job in {worker.job for worker in admin.status().workers}
        admin.cancel(job)
        with pytest.raises(Canceled):
            guest.follow(job)
        with pytest.raises(NotAuthorized):
            guest.jobs(all_users=True)


def test_a_user_does_not_see_what_others_run(shared_backend: RunningBackend) -> None:
    with (
        shared_backend.client() as owner,
        shared_backend.client(connection=shared_backend.new_key("curious")) as curious,
    ):
        job = new_job_id()
        owner.submit(job, small_job("steps=1000 pause=0.05 curious"))
        wait_until(lambda: owner.get(job).state == "running")
        status = curious.status()
        assert (status.running, [worker.job for worker in status.workers]) == (1, [None])
        assert [worker.owner for worker in status.workers] == [""]
        assert status.sessions >= 2
        assert status.disk_free > 0
        owner.cancel(job)


def test_a_failed_job_can_be_submitted_again_under_a_new_id(shared_backend: RunningBackend) -> None:
    with shared_backend.client() as client:
        first, second = new_job_id(), new_job_id()
        client.submit(first, small_job("steps=1 again"), priority=3)
        told = client.spec(first)
        client.submit(second, told.spec, told.priority)
        assert client.follow(second).priority == 3


def test_a_forgotten_job_is_removed_with_the_files_that_no_other_needs(backend: RunningBackend) -> None:
    backend.start()
    with backend.client() as client:
        first, same, other = (done(client, "steps=1", seed) for seed in (1, 1, 2))
        client.forget(first.id)
        assert files(backend) == {same.result("clip").sha256, other.result("clip").sha256}
        client.forget(same.id)
        client.forget(same.id)
        assert files(backend) == {other.result("clip").sha256}
        with pytest.raises(NotFound):
            client.get(same.id)
        running = new_job_id()
        client.submit(running, small_job("steps=1000 pause=0.05"))
        with pytest.raises(Conflict):
            client.forget(running)


def test_a_subject_that_a_waiting_job_of_another_key_needs_is_not_removed(
    backend: RunningBackend, tmp_path: Path
) -> None:
    backend.start()
    (tmp_path / "picture").write_bytes(b"pixels")
    with backend.client() as ann, backend.client(connection=backend.new_key("bob")) as bob:
        picture = Picture(ann.upload(tmp_path / "picture"))
        train = new_job_id()
        ann.submit(train, TrainSpec(subject=SubjectSpec("Toy", "sks", "toy", [picture]), model="small"))
        weights = ann.follow(train).result("subject").sha256
        track = SubjectTrack(name="toy", class_word="toy", token="sks", boxes=[Box(0, 0, 1, 1)] * 8, weights=weights)
        waiting = new_job_id()
        spec = replace(small_job("steps=1000 pause=0.05 a sks toy"), shot=replace(SHOT, subjects=[track]))
        bob.submit(waiting, spec)
        ann.forget(train)
        assert weights in files(backend)
        assert ann.subjects() == []
        bob.cancel(waiting)
        wait_until(lambda: bob.get(waiting).state == "canceled")
        bob.forget(waiting)
        assert weights not in files(backend)


def test_a_full_quota_removes_downloaded_jobs_first_and_then_refuses_with_a_sentence(
    backend: RunningBackend, tmp_path: Path
) -> None:
    backend.start(QUOTA_BYTES="1000000")
    (tmp_path / "file").write_bytes(os.urandom(300_000))
    with backend.client() as client:
        fetched, unfetched = (done(client, "steps=1 size=400000", seed) for seed in (1, 2))
        client.fetch(fetched.result("clip"), tmp_path / "clip.mp4")
        client.upload(tmp_path / "file")
        with pytest.raises(NotFound):
            client.get(fetched.id)
        assert client.get(unfetched.id).state == "done"
        (tmp_path / "file").write_bytes(os.urandom(700_000))
        with refused(OverLimit, quota=..., used=..., size=...):
            client.upload(tmp_path / "file")
        assert unfetched.result("clip").sha256 in files(backend)


def test_only_files_that_are_really_removed_count_as_room(tmp_path: Path) -> None:
    store, blobs = Store(tmp_path / "jobs.sqlite"), Blobs(tmp_path)
    clips = []
    for number in range(3):
        (tmp_path / "clip").write_bytes(bytes([number]) * 100_000)
        clips.append(stored(blobs, tmp_path / "clip"))
    for number, clip in enumerate([clips[0], clips[0], clips[1], clips[2]]):
        store.transitions.submit("ann", f"job-{number:05}", small_job(seed=number), cached=[clip])
        store.ownership.mark_downloaded("ann", clip.sha256)
    Retention(store, blobs).make_room("ann", 150_000)
    assert [job.id for _, job in store.queries.jobs("ann", 9)] == ["job-00003"]
    assert store.ownership.bytes_of("ann") == 100_000 + len(encode_spec(small_job(seed=3)))
    assert [blobs.has(clip.sha256) for clip in clips] == [False, False, True]
    store.close()


def test_a_file_that_was_just_sent_for_the_next_job_outlives_the_job_that_had_it(tmp_path: Path) -> None:
    store, blobs = Store(tmp_path / "jobs.sqlite"), Blobs(tmp_path)
    retention = Retention(store, blobs)
    transfers = Transfers(blobs, store.ownership, retention, DiskSpace(tmp_path, 4096, {}, lambda: None), 0)
    (tmp_path / "picture").write_bytes(b"pixels")
    picture = stored(blobs, tmp_path / "picture")
    put = Put(id=1, sha256=picture.sha256, size=picture.size)
    spec = TrainSpec(subject=SubjectSpec("Toy", "sks", "toy", [Picture(picture.sha256)]), model="small")
    for number in range(3):
        transfers.put("ann", put)
        if number:
            retention.forget(store.queries.number("ann", f"job-{number - 1:05}"))
        assert blobs.has(picture.sha256)
        store.transitions.submit("ann", f"job-{number:05}", replace(spec, seed=number))
        store.transitions.request_cancel(store.queries.number("ann", f"job-{number:05}"))
    retention.forget(store.queries.number("ann", "job-00002"))
    assert not blobs.has(picture.sha256)
    store.close()


def test_an_interrupted_upload_is_not_counted_twice(backend: RunningBackend, tmp_path: Path) -> None:
    backend.start(QUOTA_BYTES="1000000")
    (tmp_path / "file").write_bytes(os.urandom(900_000))

    def leave(have: int, of: int) -> None:
        raise KeyboardInterrupt

    with backend.client() as client:
        with pytest.raises(KeyboardInterrupt):
            client.upload(tmp_path / "file", leave)
        client.upload(tmp_path / "file")


def test_only_so_many_jobs_may_wait(backend: RunningBackend) -> None:
    backend.start(WAITING_JOBS="3")
    with backend.client() as client:
        jobs = [new_job_id() for _ in range(3)]
        for seed, job in enumerate(jobs):
            client.submit(job, small_job("steps=1000 pause=0.05", seed))
        with refused(OverLimit, most=3):
            client.submit(new_job_id(), small_job())
        client.submit(jobs[0], small_job("steps=1000 pause=0.05", 0))
        client.cancel(jobs[2])
        client.submit(new_job_id(), small_job())


def test_a_flood_of_requests_gets_busy_and_a_patient_client_gets_replies(backend: RunningBackend) -> None:
    backend.start(REQUESTS_PER_SECOND="20")
    with raw(backend.connection) as socket:
        answer(socket, *encode(HELLO))
        for number in range(60):
            socket.send_multipart(encode(Ping(id=number)))
        replies = [decode_reply(socket.recv_multipart())[0] for _ in range(60)]
        codes = [reply.report.code for reply in replies if isinstance(reply, Error)]
        assert set(codes) == {"busy"}
        # The session took a few of the 40 that may come at once.
        assert sum(isinstance(reply, Pong) for reply in replies) >= 35
    with backend.client() as client:
        for _ in range(10):
            client.ping()


def test_a_request_that_takes_the_server_longer_costs_more(backend: RunningBackend) -> None:
    _store_jobs(backend, 300)
    backend.start(REQUESTS_PER_SECOND="20")
    with raw(backend.connection) as socket:
        answer(socket, *encode(HELLO))
        for number in range(1, 31):
            socket.send_multipart(encode(ListJobs(id=number, limit=500)))
        replies = [decode_reply(socket.recv_multipart())[0] for _ in range(30)]
    assert 1 <= sum(isinstance(reply, Jobs) for reply in replies) < 20, "30 pings would all be answered"
    assert isinstance(replies[-1], Error)
    assert replies[-1].report.code == "busy"


def test_a_listing_comes_in_pages_that_fit_into_a_message(backend: RunningBackend) -> None:
    """With names of 200 characters of 4 bytes each, 500 jobs are more than a message can have."""
    name = "\N{ROCKET}" * 200
    _store_jobs(backend, 500, name)
    subjects = [f"subject {number}" for number in range(400)]
    store = Store(backend.home / "jobs.sqlite")
    with store.database.transaction():
        for number, subject in enumerate(subjects):
            store.database.execute(
                "INSERT INTO subjects (owner, name, token, class_word, model, weights, created) "
                "VALUES (?, ?, ?, 'toy', 'small', ?, ?)",
                backend.connection.client_public, subject, name, f"{number:064x}", float(number),
            )  # fmt: skip
    store.close()
    backend.start()
    with backend.client() as client, raw(backend.connection) as socket:
        answer(socket, *encode(HELLO))
        jobs = client.jobs(limit=500, all_users=True)
        assert [job.id for job in jobs] == [f"job-{number:05}" for number in reversed(range(500))]
        assert jobs[0].name == name
        assert len({job.id for job in client.jobs(limit=77)} & {job.id for job in jobs[:77]}) == 77
        socket.send_multipart(encode(ListJobs(id=2, limit=500)))
        (page,) = socket.recv_multipart()
        assert PAGE_BYTES <= len(page) < PAGE_BYTES + 4096
        assert [subject.name for subject in client.subjects()] == subjects[::-1]


def test_the_status_of_thousands_of_workers_comes_in_pages(tmp_path: Path) -> None:
    backend = RunningBackend(tmp_path / "home", "motionbooth_lab.rig.pulse_server", "4096").start()
    try:
        with backend.client() as client, raw(backend.connection) as socket:
            status = client.status()
            assert [worker.name for worker in status.workers] == [f"pulse {number}" for number in range(4096)]
            answer(socket, *encode(HELLO))
            socket.send_multipart(encode(GetStatus(id=2)))
            (page,) = socket.recv_multipart()
            assert PAGE_BYTES <= len(page) < PAGE_BYTES + 4096
    finally:
        backend.end()


def _store_jobs(backend: RunningBackend, count: int, name: str = "shot") -> None:
    """Give the local key this many ended jobs, before the server starts."""
    backend.start().stop()
    store = Store(backend.home / "jobs.sqlite")
    clip = Blob("clip", "0" * 64, 1000)
    with store.database.transaction():
        for number in range(count):
            spec = replace(small_job(seed=number), shot=replace(SHOT, name=name))
            store.transitions.submit(backend.connection.client_public, f"job-{number:05}", spec, cached=[clip])
    store.close()


def test_results_of_an_older_model_version_are_not_reused(backend: RunningBackend, tmp_path: Path) -> None:
    model = tmp_path / "weights"
    model.touch()
    backend.start(MODEL_FILE=str(model))
    with backend.client() as client:
        done(client, "steps=1")
        assert client.submit(new_job_id(), small_job()).cached
        os.utime(model, (1, 1))
        wait_until(lambda: not client.submit(new_job_id(), small_job()).cached, 5)


def test_old_jobs_are_removed_and_needed_files_stay(backend: RunningBackend, tmp_path: Path) -> None:
    backend.start(KEEP_DAYS="0.00001")  # most of a second
    (tmp_path / "picture").write_bytes(b"pixels")
    with backend.client() as client:
        picture = Picture(client.upload(tmp_path / "picture"))
        train = new_job_id()
        client.submit(train, TrainSpec(subject=SubjectSpec("Toy", "sks", "toy", [picture]), model="small"))
        client.follow(train)
        done(client, "steps=1")
        waiting = new_job_id()
        client.submit(waiting, small_job("steps=1000 pause=0.05", 1))
        wait_until(lambda: client.get(waiting).state == "running")
        time.sleep(1.0)
    backend.stop()
    backend.start(KEEP_DAYS="0.00001")
    with backend.client() as client:
        wait_until(lambda: len(client.jobs()) == 2, 5)
        assert {job.id for job in client.jobs()} == {train, waiting}
        assert [subject.name for subject in client.subjects()] == ["Toy"]
        assert client.subjects()[0].weights in files(backend)


def test_connections_of_strangers_do_not_exhaust_the_open_files(backend: RunningBackend, tmp_path: Path) -> None:
    """The usual limit of open files is soon reached, so the server raises its own to the system's."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = psutil.Process().num_fds() + 80  # starting the server takes some in this process, too
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, before[1]))
    try:
        backend.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    _, port = host_and_port(backend.connection.address)
    with backend.client() as client, ExitStack() as strangers:
        for _ in range(low + 30):
            strangers.enter_context(socket.create_connection(("127.0.0.1", int(port)), 5))
        job = new_job_id()
        client.submit(job, small_job("steps=2", seed=77))
        client.fetch(client.follow(job).result("clip"), tmp_path / "clip.mp4")


def test_specs_count_toward_the_quota_until_their_jobs_are_removed(backend: RunningBackend) -> None:
    spec = large_job("steps=1000 pause=1 dog")
    size = len(encode_spec(spec))
    backend.start(QUOTA_BYTES=str(10 * size + size // 2))
    accepted = list[str]()

    def submit_until_refused() -> None:
        for seed in range(100):
            job = new_job_id()
            client.submit(job, replace(spec, seed=seed))
            accepted.append(job)

    with backend.client(connection=backend.new_key("ann")) as client:
        with refused(OverLimit, quota=..., used=..., size=...):
            submit_until_refused()
        assert len(accepted) == 10
        with backend.client() as other:
            other.submit(new_job_id(), replace(spec, seed=1000))
        client.submit(accepted[0], replace(spec, seed=0))
        for job in accepted:
            client.cancel(job)
        wait_until(lambda: all(client.get(job).state == "canceled" for job in accepted))
        for job in accepted:
            client.forget(job)
        client.submit(new_job_id(), replace(spec, seed=2000))


def test_the_space_of_removed_jobs_is_given_back_to_the_disk(tmp_path: Path) -> None:
    path, spec = tmp_path / "jobs.sqlite", large_job("a dog")
    store = Store(path)
    retention = Retention(store, Blobs(tmp_path))
    numbers = []
    for seed in range(30):
        store.transitions.submit("ann", f"job-{seed:05}", replace(spec, seed=seed))
        numbers.append(store.queries.number("ann", f"job-{seed:05}"))
        store.transitions.request_cancel(numbers[-1])
    for number in numbers:
        retention.forget(number)
    for _ in range(100):
        store.database.shrink()  # as retention does once a second
    store.close()
    assert path.stat().st_size < 3 * len(encode_spec(spec))
