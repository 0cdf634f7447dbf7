from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from motionbooth_addon.local_backend.process import LocalBackend


def test_a_program_that_reuses_the_process_id_of_a_crashed_backend_is_not_stopped(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (tmp_path / "backend.pid").write_text(str(other.pid))
        LocalBackend(tmp_path).stop()
        other.communicate(b"\n", timeout=20)
    assert other.returncode == 0
    assert not (tmp_path / "backend.pid").exists()
