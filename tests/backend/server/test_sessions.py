"""Sessions and their messages, well-formed or not."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import msgspec
import pytest
import zmq
from motionbooth.server.blobs import Blobs
from motionbooth.server.executor import Device
from motionbooth.server.keys import AuthorizedKeys, Key
from motionbooth.server.live_state import LiveState
from motionbooth.server.local_executor import LocalExecutor
from motionbooth.server.logs import formatter
from motionbooth.server.redaction import for_user
from motionbooth.server.scheduler import Scheduler
from motionbooth.server.settings import ServerSettings
from motionbooth.server.store import Store
from motionbooth.server.views import Views
from motionbooth_protocol import messages
from motionbooth_protocol.client import Client, new_job_id
from motionbooth_protocol.codec import decode_reply, encode
from motionbooth_protocol.errors import Conflict, ErrorReport, JobFailed, NotAuthorized, NotFound
from motionbooth_protocol.jobs import JobState
from motionbooth_protocol.limits import PROTOCOL_VERSION
from raw_socket import HELLO, PING, answer, error, raw
from refused import refused
from running_backend import RunningBackend, small_job, wait_until


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


def test_what_follows_a_bye_at_once_has_its_reply_too(shared_backend: RunningBackend) -> None:
    with raw(shared_backend.connection) as socket:
        requests = [HELLO, messages.Bye(id=2), messages.Ping(id=3), messages.Hello(id=4, version=PROTOCOL_VERSION)]
        for request in [*requests, messages.Ping(id=5)]:
            socket.send_multipart(encode(request))
        replies = [decode_reply(socket.recv_multipart())[0] for _ in range(5)]
    assert [(reply.re, type(reply).__name__) for reply in replies] == [
        (1, "Welcome"), (2, "Pong"), (3, "Error"), (4, "Welcome"), (5, "Pong"),
    ]  # fmt: skip


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


def test_a_client_cannot_choose_the_routing_id_of_its_session(shared_backend: RunningBackend) -> None:
    with raw(shared_backend.connection, ROUTING_ID=b"another's", RECONNECT_IVL=-1) as socket:
        monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        assert error(socket, *encode(HELLO)) == "malformed"
        assert monitor.poll(5000)
        socket.disable_monitor()
        monitor.close()


def test_the_log_has_who_submitted_canceled_and_removed_which_job_and_which_keys_were_refused(
    shared_backend: RunningBackend,
) -> None:
    job = new_job_id()
    with shared_backend.client() as admin, shared_backend.client(connection=shared_backend.new_key("ann")) as ann:
        ann.submit(job, small_job("steps=1000 pause=0.05", seed=77))
        admin.cancel(job)
        wait_until(lambda: ann.get(job).state == "canceled")
        ann.forget(job)
    public, secret = (key.decode() for key in zmq.curve_keypair())
    stranger = msgspec.structs.replace(shared_backend.connection, client_public=public, client_secret=secret)
    with pytest.raises(NotAuthorized):
        shared_backend.client(connection=stranger).__enter__()
    log = (shared_backend.home / "logs" / "server.log").read_text()
    for line in (
        f"ann submitted job {job} (generate shot with small)",
        f"local canceled job {job} of ann, which is ",
        f"ann removed job {job}",
        f"refused the key {public}",
    ):
        assert f"motionbooth.audit {'WARNING' if 'refused' in line else 'INFO'} {line}" in log


def test_an_admin_who_cancels_by_an_id_of_several_users_says_whose_job_it_is(shared_backend: RunningBackend) -> None:
    job = new_job_id()
    with (
        shared_backend.client() as admin,
        shared_backend.client(connection=shared_backend.new_key("first")) as first,
        shared_backend.client(connection=shared_backend.new_key("second")) as second,
    ):
        for client in (first, second):
            client.submit(job, small_job("steps=1000 pause=0.05", seed=78))
        with refused(Conflict, job=job):
            admin.cancel(job)
        with pytest.raises(NotFound):
            admin.cancel(job, owner="nobody")
        admin.cancel(job, owner="first")
        wait_until(lambda: first.get(job).state == "canceled")
        assert second.get(job).state in ("queued", "running")
        with pytest.raises(NotFound):
            first.cancel(new_job_id(), owner="second")
        second.cancel(job)


def test_users_see_no_folder_of_the_server_and_admins_do(backend: RunningBackend) -> None:
    backend.start()
    guest = backend.new_key("guest")
    text = "The file {path} cannot be read ({reason})."
    values = {"path": "/srv/my films/weights.bin", "reason": "[Errno 5] Input/output error: '/srv/films/a.bin'"}
    failure = ErrorReport(text, values, "error")
    backend.stop()
    store = Store(backend.home / "jobs.sqlite")
    with store.database.transaction():
        store.transitions.submit(guest.client_public, "job-00001", small_job())
        attempt = store.transitions.start(store.queries.number(guest.client_public, "job-00001"))
        store.transitions.end(attempt.id, JobState.FAILED, failure)
    store.close()
    backend.start()
    events: list[messages.Event] = []
    with backend.client() as admin, backend.client(connection=guest) as user:
        assert str(admin.get("job-00001").error) == str(failure)
        shown = "The file weights.bin cannot be read ([Errno 5] Input/output error: 'a.bin')."
        assert str(user.get("job-00001").error) == str(user.jobs()[0].error) == shown
        with pytest.raises(JobFailed):
            user.follow("job-00001", on_event=events.append)
        assert str(events[-1].error) == shown


def test_a_long_reason_why_a_box_cannot_work_reaches_users_without_the_folder(tmp_path: Path) -> None:
    folder = "/srv/" + "projects and shots/".replace(" ", "_") * 10 + "motionbooth"
    reason = f"The backend's folder {folder} does not exist on box-7, or is another one: it must be on a shared disk."
    store, live, authorized = Store(tmp_path / "jobs.sqlite"), LiveState(), AuthorizedKeys(tmp_path / "authorized")
    with zmq.Context() as context:
        executor = LocalExecutor(context, ["true"], tmp_path / "worker.log", [Device("ray-1", reason)])
        scheduler = Scheduler(store, Blobs(tmp_path), executor, live, tmp_path)
        views = Views(ServerSettings(tmp_path), authorized, store, scheduler, live)
        status = views.status(Key("", "ann", "user"), messages.GetStatus(id=1))
        for shown, sees in ((status, folder), (for_user(status), "motionbooth")):
            reply, _ = decode_reply(encode(shown))
            assert isinstance(reply, messages.Status)
            assert reply.workers[0].device == reason.replace(folder, sees)
        scheduler.close()
    store.close()
