"""Renders the training pictures of a 3-D object in another Blender, so that the user's stays responsive. No bpy."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from .._protocol.errors import InvalidInput, JobFailed
from .._protocol.reporting_process import ReportingProcess
from .._protocol.reports import ProgressReport
from ..jobs.job_store import Render

SCRIPT = Path(__file__).with_name("blender_process.py")


def renderer(blender: str, system_python: bool) -> list[str]:
    """The command that renders; the task follows it.

    blender: the program, "" for Blender as a Python module.
    system_python: whether it was started with --python-use-system-env.
    """
    if not blender:
        return [sys.executable, str(SCRIPT), "--"]
    command = [blender, "--background", "--factory-startup", "--python-exit-code", "1"]
    return [*command, *["--python-use-system-env"] * system_python, "--python", str(SCRIPT), "--"]


def render(
    command: list[str], wanted: Render, folder: Path, on_progress: Callable[[ProgressReport], None]
) -> list[tuple[Path, Path | None]]:
    """Render into `folder`, in a process that ends with this call, even if `on_progress` raises.

    Returns the pictures with their masks. Raises InvalidInput if the object cannot be rendered.
    """
    folder.mkdir(parents=True, exist_ok=True)
    task = json.dumps([wanted.blend, wanted.object, wanted.frame, wanted.size, str(folder)])
    try:
        pictures = ReportingProcess([*command, task], folder / "blender.log").run(on_progress)
    except JobFailed as error:
        raise InvalidInput(
            "Blender could not render the training pictures. {reason} Render the object yourself (F12) to see what is "
            "wrong, or choose a folder of training images instead.",
            reason=error,
        ) from error
    return [(Path(image), Path(mask) if mask else None) for image, mask in pictures]
