"""A backend in a separate process whose model only draws; see tests/blender_addon/drawing_server.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from running_backend import wait_until

DRAWING_SERVER = Path(__file__).parents[1] / "blender_addon" / "drawing_server.py"


@contextmanager
def drawing_backend(home: Path) -> Iterator[Path]:
    """Run the backend during the context; yields its connection file."""
    process = subprocess.Popen([sys.executable, str(DRAWING_SERVER), str(home)], stdout=subprocess.DEVNULL)
    file = home / "connection.json"
    try:
        wait_until(lambda: file.exists() or process.poll() is not None)
        assert file.exists(), "the server ended"
        yield file
    finally:
        process.terminate()
        process.wait(20)
