"""Admins fetch, check and remove published models over the wire, by name alone; everyone sees the models at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_hub import LocalHub
from motionbooth.models.published import published
from motionbooth.server.live_state import LiveState
from motionbooth.server.published_models import PublishedModels
from motionbooth_protocol.client import Client
from motionbooth_protocol.errors import Conflict, InvalidInput, NotAuthorized, NotFound
from motionbooth_protocol.messages import ManageModel, PublishedModel
from motionbooth_protocol.reporting_process import ReportingProcess
from motionbooth_protocol.reports import ProgressReport
from msgspec.structs import replace
from refused import refused
from running_backend import RunningBackend, small_job, wait_until

HUB = "cerspense/zeroscope_v2_576w"
WEIGHTS, INDEX = "unet/diffusion_pytorch_model.safetensors", "model_index.json"


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    files = {INDEX: b"{}", "unet/config.json": b"{}", WEIGHTS: os.urandom(3_000_000)}
    with LocalHub({HUB: files}).running() as hub:
        yield hub


@pytest.fixture
def backend(tmp_path: Path, hub: LocalHub) -> Iterator[RunningBackend]:
    backend = RunningBackend(tmp_path / "home")
    backend.start(HF_ENDPOINT=hub.url, MOTIONBOOTH_MODELS=str(tmp_path / "my models"))
    yield backend
    backend.end()


def zeroscope(client: Client) -> PublishedModel:
    return next(model for model in client.published() if model.name == "zeroscope")


def progress(client: Client) -> ProgressReport:
    return zeroscope(client).progress or ProgressReport("", 0, 0)


def ended(client: Client) -> PublishedModel:
    """The model when nothing is done with it any more."""
    wait_until(lambda: not zeroscope(client).doing)
    return zeroscope(client)


def test_an_action_that_fails_because_of_a_bug_is_not_said_to_have_succeeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(process: ReportingProcess, on_progress: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ReportingProcess, "run", fail)
    models = PublishedModels(tmp_path, LiveState(), None, lambda name: 0)
    models.manage(ManageModel(id=1, name="zeroscope", action="remove"))
    models._tasks["zeroscope"].close()
    models.tick()
    (found,) = [model for model in models.listed() if model.name == "zeroscope"]
    assert found.failed
    assert "RuntimeError" in str(found.outcome)


@pytest.mark.slow  # beside the extension's own test, which does the same through it
def test_an_admin_fetches_a_model_and_everyone_sees_it(backend: RunningBackend, hub: LocalHub, tmp_path: Path) -> None:
    with backend.client() as admin, backend.client(connection=backend.new_key("ann")) as user:
        for request in (user.published, lambda: user.manage_model("zeroscope", "get", license_accepted=True)):
            with pytest.raises(NotAuthorized):
                request()
        assert [model.name for model in admin.published()] == list(published())
        assert not any(model.here for model in admin.published())
        for name in ("../zeroscope", HUB, "toybox", "zeroscope/unet"):
            with refused(NotFound, name=name, known=...):
                admin.manage_model(name, "get", license_accepted=True)
        with refused(InvalidInput, model="zeroscope", page=f"https://huggingface.co/{HUB}"):
            admin.manage_model("zeroscope", "get")
        assert hub.served == [], "of all this, nothing was fetched"

        admin.manage_model("zeroscope", "offer")
        offered = ended(admin)
        assert (offered.size, offered.here, offered.failed) == (3_000_004, False, False)
        assert [(one.hub, one.name) for one in offered.licenses] == [(HUB, "cc-by-nc-4.0")]
        assert hub.served == []

        hub.breaks.add(WEIGHTS)  # it goes on by itself
        admin.manage_model("zeroscope", "get", license_accepted=True)
        admin.manage_model("zeroscope", "get", license_accepted=True)  # as after a lost reply
        found = ended(admin)
        assert found.here, found.outcome
        assert str(found.outcome) == "zeroscope was fetched and checked."
        assert (tmp_path / "my models" / "zeroscope" / WEIGHTS).read_bytes() == hub.files[HUB][WEIGHTS]
        for client in (admin, user):
            client.listen(0.3)
            assert "zeroscope" in [model.name for model in client.models()], "without a new session"

        admin.manage_model("zeroscope", "check")
        assert str(ended(admin).outcome) == "All files of zeroscope are as they were published."
        (tmp_path / "my models" / "zeroscope" / WEIGHTS).write_bytes(b"torn")
        admin.manage_model("zeroscope", "check")
        damaged = ended(admin)
        assert damaged.failed
        assert "1 files of zeroscope are missing or damaged" in str(damaged.outcome)

        user.submit("job-00001", replace(small_job("steps=200 pause=0.1"), model="zeroscope"))
        with refused(Conflict, model="zeroscope", count=1):
            admin.manage_model("zeroscope", "remove")
        user.cancel("job-00001")
        wait_until(lambda: user.get("job-00001").state == "canceled")
        admin.manage_model("zeroscope", "remove")
        assert not ended(admin).here
        assert not (tmp_path / "my models" / "zeroscope").exists()
        user.listen(0.3)
        assert "zeroscope" not in [model.name for model in user.models()]


@pytest.mark.slow
def test_a_download_is_canceled_and_continues_after_a_crash_of_the_server(
    backend: RunningBackend, hub: LocalHub, tmp_path: Path
) -> None:
    hub.slow.add(WEIGHTS)
    with backend.client() as admin:
        admin.manage_model("zeroscope", "get", license_accepted=True)
        wait_until(lambda: WEIGHTS in [path for path, _ in hub.served])
        with refused(Conflict, model="zeroscope"):
            admin.manage_model("zeroscope", "remove")
        admin.manage_model("zeroscope", "cancel")
        canceled = ended(admin)
        assert not canceled.here
        assert not canceled.failed
        admin.manage_model("zeroscope", "get", license_accepted=True)
        hub.served.clear()
        wait_until(lambda: WEIGHTS in [path for path, _ in hub.served])
    backend.kill()
    backend.start(HF_ENDPOINT=hub.url, MOTIONBOOTH_MODELS=str(tmp_path / "my models"))
    with backend.client() as admin:
        wait_until(lambda: progress(admin).stage == "fetching the model")
        assert progress(admin).steps == 3, "megabytes, also after a restart"
    backend.kill()
    hub.slow.clear()
    hub.served.clear()
    backend.start(HF_ENDPOINT=hub.url, MOTIONBOOTH_MODELS=str(tmp_path / "my models"))
    with backend.client() as admin:
        found = ended(admin)
        assert found.here, found.outcome
        assert {path for path, _ in hub.served} == {WEIGHTS}, "the rest was there already"


@pytest.mark.slow
def test_what_the_hub_does_not_give_is_said(backend: RunningBackend, hub: LocalHub) -> None:
    with backend.client() as admin:
        hub.gated.add(HUB)
        admin.manage_model("zeroscope", "get", license_accepted=True)
        found = ended(admin)
        assert found.failed
        assert "is closed to you" in str(found.outcome)
        admin.manage_model("lavie", "offer")
        wait_until(lambda: not any(model.doing for model in admin.published()))
        lavie = next(model for model in admin.published() if model.name == "lavie")
        assert lavie.failed
        assert "Vchitect/LaVie is not at the hub" in str(lavie.outcome)
