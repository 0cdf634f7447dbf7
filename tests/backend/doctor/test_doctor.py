"""Faults of a folder, one by one: the doctor finds each, says what to do, and fixes it if that is safe."""

from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path

import pytest
from motionbooth.cli.app import app
from motionbooth.doctor.finding import Finding
from motionbooth.doctor.folder import examine_folder
from motionbooth.doctor.machine import examine_machine
from motionbooth.server.blobs import Blobs
from motionbooth.server.database import Database
from motionbooth.server.keys import AuthorizedKeys, server_keys
from motionbooth.server.sandbox import own_user_problem, sandbox_problem
from motionbooth.server.store import Store
from running_backend import RunningBackend, small_job, stored
from typer.testing import CliRunner


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A backend's folder with a finished job, its clip, and a waiting job."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    server_keys(home)
    AuthorizedKeys(home / "authorized").add("local", server_keys(home).public)
    (home / "clip").write_bytes(b"a clip")
    clip = stored(Blobs(home), home / "clip")
    store = Store(home / "jobs.sqlite")
    store.transitions.submit("ann", "job-00001", small_job(seed=1), cached=[clip])
    store.transitions.submit("ann", "job-00002", small_job(seed=2))
    store.close()
    return home


def found(home: Path, fix: bool = False) -> dict[str, list[Finding]]:
    """All findings that are not ok, by subject."""
    wrong: dict[str, list[Finding]] = {}
    for finding in examine_folder(home, fix):
        if finding.state != "ok":
            wrong.setdefault(finding.about, []).append(finding)
    return wrong


def clip_of(home: Path) -> Path:
    (path,) = (path for path in (home / "blobs").rglob("*") if path.is_file())
    return path


def test_a_sound_folder_has_no_findings_and_is_not_changed(home: Path) -> None:
    before = sorted(home.rglob("*"))
    assert found(home) == found(home, fix=True) == {}
    assert sorted(home.rglob("*")) == before


def test_secrets_that_others_can_read_are_made_private(home: Path) -> None:
    (home / "keys" / "server.secret").chmod(0o644)
    home.chmod(0o755)
    assert found(home)["secrets"][0].state == "fault"
    assert found(home, fix=True)["secrets"][0].state == "fixed"
    assert stat.S_IMODE((home / "keys" / "server.secret").stat().st_mode) == 0o600
    assert found(home) == {}


def test_a_corrupt_file_is_moved_away_and_never_served(home: Path) -> None:
    clip = clip_of(home)
    clip.write_bytes(b"A clip")
    assert found(home)["files"][0].state == "fault"
    assert clip.exists()
    fixed = found(home, fix=True)
    assert fixed["files"][0].state == "fixed"
    assert "results are missing" in fixed["jobs"][0].found
    assert not clip.exists()
    assert (home / "corrupt" / clip.name).read_bytes() == b"A clip"


def test_only_files_without_an_owner_are_removed(home: Path) -> None:
    clip = clip_of(home)
    (home / "orphan").write_bytes(b"nobody's")
    sha256 = stored(Blobs(home), home / "orphan").sha256
    assert found(home)["files"][0].state == "warning"
    assert found(home, fix=True)["files"][0].state == "fixed"
    assert not Blobs(home).has(sha256)
    assert clip_of(home) == clip


def test_scratch_of_ended_jobs_is_removed_and_that_of_waiting_ones_kept(home: Path) -> None:
    for number in (1, 2, 77):
        (home / "scratch" / str(number)).mkdir(parents=True)
        (home / "scratch" / str(number) / "checkpoint").write_bytes(b"...")
    (home / "scratch" / "78").write_bytes(b"no folder")  # a worker can write what it likes here
    (home / "scratch" / "79").symlink_to(home / "keys")
    assert "4 ended jobs" in found(home, fix=True)["scratch"][0].found
    assert (home / "keys" / "server.secret").exists()
    assert [path.name for path in (home / "scratch").iterdir()] == ["2"]


def test_a_corrupt_store_and_a_corrupt_key_are_reported_and_left_alone(home: Path) -> None:
    (home / "authorized" / "bob.pub").write_text("no key")
    (home / "jobs.sqlite").write_bytes(b"no database" * 1000)
    wrong = found(home, fix=True)
    assert "bob" in wrong["keys"][0].found
    assert "restore them from a backup" in wrong["store"][0].found
    assert (home / "jobs.sqlite").read_bytes() == b"no database" * 1000


def test_nothing_is_removed_on_the_word_of_a_store_with_faults(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(home / "jobs.sqlite")
    store.database.execute("DELETE FROM file_owners")
    store.close()
    monkeypatch.setattr(Database, "integrity_faults", lambda self: ["row 1 missing from index file_owners"])
    before = sorted(home.rglob("*"))
    assert [finding.about for finding in found(home, fix=True)["store"]] == ["store"]
    assert sorted(home.rglob("*")) == before


def test_a_running_backend_is_not_disturbed(backend: RunningBackend) -> None:
    backend.start()
    stores = [finding for finding in examine_folder(backend.home, fix=True) if finding.about == "store"]
    assert [finding.state for finding in stores] == ["ok"]
    assert "a backend is running" in stores[0].found
    with backend.client() as client:
        client.ping()


def test_a_port_that_is_taken_is_reported(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        (port,) = (finding for finding in examine_machine(tmp_path, address) if finding.about == "port")
    assert port.state == "fault"
    assert "--address" in port.advice


@pytest.mark.parametrize(("kind", "state", "found"), [("xpu", "ok", "Arc"), ("cpu", "warning", "none found")])
def test_a_gpu_without_nvidias_driver_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, kind: str, state: str, found: str
) -> None:
    monkeypatch.setattr("motionbooth.doctor.machine.nvidia_gpus", list)
    monkeypatch.setattr("motionbooth.models.memory.device.found_device", lambda: kind)
    monkeypatch.setattr("torch.xpu.get_device_name", lambda: "Intel Arc A770")
    (gpu,) = [each for each in examine_machine(home, "tcp://127.0.0.1:*") if each.about == "GPU"]
    assert gpu.state == state
    assert found in gpu.found


@pytest.mark.skipif(sys.platform != "linux", reason="there are sandboxes on Linux only")
def test_whether_workers_have_a_sandbox_is_said_and_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sandbox() -> Finding:
        (found,) = (one for one in examine_machine(tmp_path, "tcp://127.0.0.1:*") if one.about == "sandbox")
        return found

    models = tmp_path / "models"
    (models / "one").mkdir(parents=True)
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(models))
    works = sandbox_problem() is None
    is_root = os.geteuid() == 0
    assert sandbox().state == ("ok" if works and not (is_root and own_user_problem([])) else "warning")
    if sandbox().state == "ok":
        assert ("a user of their own (65520)" if is_root else "what this user can") in sandbox().found
    if works and is_root:
        (models / "one").chmod(0o700)
        assert (sandbox().state, f"{models}/one is not readable" in sandbox().found) == ("warning", True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sandbox().state == "warning"
    assert "apt install bubblewrap" in sandbox().found


def test_the_command_prints_a_table_and_exits_with_1_on_a_fault(home: Path) -> None:
    arguments = ["doctor", "--home", str(home), "--address", "tcp://127.0.0.1:*"]
    sound = CliRunner().invoke(app, arguments)
    assert sound.exit_code == 0, sound.output
    assert "toybox" in sound.output
    clip_of(home).write_bytes(b"A clip")
    assert CliRunner().invoke(app, arguments).exit_code == 1
    assert CliRunner().invoke(app, [*arguments, "--fix"]).exit_code == 0
