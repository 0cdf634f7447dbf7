from __future__ import annotations

import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from motionbooth.server.keys import AuthorizedKeys
from motionbooth.server.serve import _keys, local
from motionbooth_protocol.client import new_job_id
from running_backend import RunningBackend, is_running, small_job, wait_until


def motionbooth(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "motionbooth.cli", *map(str, arguments)], capture_output=True, text=True, timeout=60
    )


def test_the_connection_file_exists_exactly_while_the_server_listens(backend: RunningBackend) -> None:
    backend.start()
    with backend.client() as client:
        assert client.ping() < 5
        assert [model.name for model in client.models()] == ["small"]
    assert backend.stop() == 0
    assert not backend.connection_file.exists()


def test_a_first_start_that_fails_halfway_locks_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(keys: AuthorizedKeys, *words: str) -> None:
        raise OSError("The disk is full.")

    monkeypatch.setattr(AuthorizedKeys, "add", fail)
    with pytest.raises(OSError, match="full"):
        _keys(tmp_path)
    monkeypatch.undo()
    _, local, authorized = _keys(tmp_path)
    found = authorized.find(local.public)
    assert found is not None
    assert found.is_admin


def test_the_start_prints_address_authorized_keys_and_models(backend: RunningBackend) -> None:
    backend.start()
    said = [backend.connection.address, str(backend.connection_file), "local", "small (8 frames of 96 x 64)"]
    wait_until(lambda: all(words in (backend.home / "printed.log").read_text() for words in said))


def test_secrets_are_readable_by_their_owner_only(backend: RunningBackend) -> None:
    backend.start()
    secrets = [*(backend.home / "keys").iterdir(), backend.connection_file, backend.home / "jobs.sqlite"]
    assert len(secrets) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}


def test_keys_are_kept_across_restarts(backend: RunningBackend) -> None:
    first = backend.start().connection
    backend.stop()
    backend.start()
    assert backend.connection.read(backend.connection_file) == first


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{taken}", "tcp://203.0.113.1:5599"])
def test_an_address_that_cannot_be_bound_is_one_sentence(tmp_path: Path, address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = address.format(taken=other.getsockname()[1])
        result = motionbooth("serve", "--home", tmp_path, "--address", address)
    assert result.returncode == 1
    assert "cannot listen on" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    result = motionbooth("serve", "--home", tmp_path / "file" / "home")
    assert result.returncode == 2
    assert "cannot keep its files" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_server_imports_neither_torch_nor_image_libraries() -> None:
    imports = "import sys, motionbooth.cli.app, motionbooth.server.serve, motionbooth.models.sources"
    code = f"{imports}; sys.exit(bool({{'torch', 'PIL', 'cv2', 'av'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_box_of_a_cluster_and_a_worker_do_not_import_the_database() -> None:
    imports = "import sys, motionbooth.server.ray_worker, motionbooth.server.worker"
    code = f"{imports}; sys.exit(bool({{'sqlite3', 'ray', 'torch'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_no_process_is_left_when_the_server_ends(backend: RunningBackend, how: str) -> None:
    backend.start()
    with backend.client() as client:
        client.submit(new_job_id(), small_job("steps=1000 pause=1 deaf"))
    worker = backend.worker_pid()
    assert is_running(worker)
    getattr(backend, how)()
    wait_until(lambda: not is_running(worker), 5)


def test_a_server_on_all_interfaces_is_reached_on_this_machine_by_loopback() -> None:
    assert local("tcp://0.0.0.0:5599") == "tcp://127.0.0.1:5599"
    assert local("tcp://[::]:5599") == "tcp://127.0.0.1:5599"
    assert local("tcp://192.0.2.7:5599") == "tcp://192.0.2.7:5599"
