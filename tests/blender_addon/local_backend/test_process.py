from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from motionbooth_addon._protocol.errors import Conflict
from motionbooth_addon.local_backend.process import STORE, LocalBackend


def test_a_program_that_reuses_the_process_id_of_a_crashed_backend_is_not_stopped(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (tmp_path / "backend.pid").write_text(str(other.pid))
        LocalBackend(tmp_path).stop()
        other.communicate(b"\n", timeout=20)
    assert other.returncode == 0
    assert not (tmp_path / "backend.pid").exists()


@pytest.mark.parametrize("system", ["linux", "win32"])
def test_what_a_killed_backend_left_behind_is_not_a_running_one(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a power cut: another program has its process id, and Start must not be refused."""
    monkeypatch.setattr(sys, "platform", system)
    (tmp_path / "connection.json").write_text("{}")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (tmp_path / "backend.pid").write_text(str(other.pid))
        assert not LocalBackend(tmp_path).active
        LocalBackend(tmp_path).stop()
        other.communicate(b"\n", timeout=20)
    assert other.returncode == 0


def test_a_backend_that_is_still_stopping_is_not_started_again_in_silence(tmp_path: Path) -> None:
    local = LocalBackend(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / STORE, isolation_level=None)) as its_store:
        its_store.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Conflict):
            local.start(["none"])
        (tmp_path / "connection.json").touch()
        local.start(["none"])  # it was started from a command line
        local.stop()
        with pytest.raises(Conflict):
            local.start(["none"])


def test_the_process_that_was_started_is_stopped_whatever_the_file_says(tmp_path: Path) -> None:
    """Two Blenders that start the backend at the same moment write one file."""
    local = LocalBackend(tmp_path)
    local.start([sys.executable, "-c", "import time; time.sleep(60)"])
    (tmp_path / "backend.pid").write_text("999999999")
    local.stop()
    assert local._process is not None
    local._process.wait(20)
    assert local.failure() is None
