from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from motionbooth_addon.local_backend.process import LocalBackend


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
