"""Training pictures of a 3-D object, rendered in a Blender of its own, so that the one in use stays free. No bpy here.

The object lies in a library (`bpy.data.libraries.write`). The other Blender runs `turntable_process.py`, which writes
one JSON line on standard output for each picture.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ._protocol.errors import InvalidInput
from .ledger import Render

SCRIPT = Path(__file__).with_name("turntable_process.py")
_FAILED = (
    "Blender could not render the training pictures. Render the object yourself (F12) to see what is wrong, or choose "
    "a folder of pictures instead."
)


def renderer(blender: str) -> list[str]:
    """The command that renders; what is to be rendered follows it. `blender` is "" for Blender as a Python module."""
    if not blender:
        return [sys.executable, str(SCRIPT), "--"]
    return [blender, "--background", "--factory-startup", "--python-exit-code", "1", "--python", str(SCRIPT), "--"]


def render(
    command: list[str], wanted: Render, folder: Path, on_picture: Callable[[int, int], None]
) -> list[tuple[Path, Path | None]]:
    """Render into `folder`, in a process that ends with this call, even if `on_picture` raises.

    Returns the pictures with their masks. Raises InvalidInput with what was wrong with the object.
    """
    task = json.dumps([wanted.blend, wanted.object, wanted.frame, wanted.size, str(folder)])
    process = subprocess.Popen([*command, task], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        on_picture(0, 0)
        pictures = _read(process.stdout, on_picture)
        if process.wait() != 0 or not pictures:
            raise InvalidInput(_FAILED)
        return pictures
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _read(lines: IO[str], on_picture: Callable[[int, int], None]) -> list[tuple[Path, Path | None]]:
    pictures: list[tuple[Path, Path | None]] = []
    for line in lines:
        if not line.startswith('{"motionbooth":'):
            continue  # Blender's own
        told = json.loads(line)["motionbooth"]
        if "error" in told:
            raise InvalidInput(told["error"])
        if "picture" in told:
            on_picture(*told["picture"])
        else:
            pictures = [(Path(image), Path(mask) if mask else None) for image, mask in told["pictures"]]
    return pictures
