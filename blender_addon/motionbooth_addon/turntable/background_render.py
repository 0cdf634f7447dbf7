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

from .._protocol.errors import InvalidInput
from ..jobs.job_store import Render

SCRIPT = Path(__file__).with_name("blender_process.py")
_FAILED = (
    "Blender could not render the training pictures (it said: {said}). Render the object yourself (F12) to see what is "
    "wrong, or choose a folder of pictures instead."
)


def renderer(blender: str, system_python: bool) -> list[str]:
    """The command that renders; what is to be rendered follows it.

    `blender` is the program, "" for Blender as a Python module; `system_python` whether it was started to heed Python's
    environment variables.
    """
    if not blender:
        return [sys.executable, str(SCRIPT), "--"]
    command = [blender, "--background", "--factory-startup", "--python-exit-code", "1"]
    return [*command, *["--python-use-system-env"] * system_python, "--python", str(SCRIPT), "--"]


def render(
    command: list[str], wanted: Render, folder: Path, on_picture: Callable[[int, int], None]
) -> list[tuple[Path, Path | None]]:
    """Render into `folder`, in a process that ends with this call, even if `on_picture` raises.

    Returns the pictures with their masks. Raises InvalidInput with what was wrong with the object.
    """
    task = json.dumps([wanted.blend, wanted.object, wanted.frame, wanted.size, str(folder)])
    process = subprocess.Popen([*command, task], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        on_picture(0, 0)
        pictures, said = _read(process.stdout, on_picture)
        if process.wait() != 0 or not pictures:
            raise InvalidInput(_FAILED.format(said=said))
        return pictures
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _read(lines: IO[str], on_picture: Callable[[int, int], None]) -> tuple[list[tuple[Path, Path | None]], str]:
    """The pictures, none if it ended before; and the last that Blender itself said."""
    pictures: list[tuple[Path, Path | None]] = []
    said = ""
    for line in lines:
        if not line.startswith('{"motionbooth":'):
            said = line.strip() or said
            continue
        told = json.loads(line)["motionbooth"]
        if "error" in told:
            raise InvalidInput(told["error"])
        if "picture" in told:
            on_picture(*told["picture"])
        else:
            pictures = [(Path(image), Path(mask) if mask else None) for image, mask in told["pictures"]]
    return pictures, said
