"""Renders training pictures and guides in another Blender, so that the user's stays responsive. No bpy."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from .._protocol.errors import Canceled, InvalidInput, JobFailed
from .._protocol.motion import Shot
from .._protocol.reporting_process import ReportingProcess
from .._protocol.reports import ProgressReport
from ..capture.framing import WHOLE
from ..job_store import GuideRender, Render

SCENE, GUIDE, MASKS, PREVIEW = "scene.blend", "guide.png", "masks.png", "preview.png"  # in the folder of a guide
WORKBENCH, CYCLES = "WORKBENCH", "CYCLES"
FIRST_SECONDS = {WORKBENCH: 60.0}  # until its first frame; then Cycles is tried
_WATCH_SECONDS = 0.2  # between two looks whether a rendering is canceled or late
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
    command: list[str],
    wanted: Render,
    folder: Path,
    on_progress: Callable[[ProgressReport], None],
    is_canceled: Callable[[], bool] = lambda: False,
) -> list[tuple[Path, Path | None]]:
    """Render into `folder`, in a process that ends with this call, even if `on_progress` raises.

    is_canceled: called again and again, by another thread.
    Returns the pictures with their masks. Raises InvalidInput if the object cannot be rendered, and Canceled.
    """
    folder.mkdir(parents=True, exist_ok=True)
    task = [wanted.blend, wanted.collection, wanted.frame, wanted.size, str(folder)]
    try:
        pictures = _run(command, ["turntable.turntable", "rendering pictures", task], folder, on_progress, is_canceled)
    except JobFailed as error:
        raise InvalidInput(
            "Blender could not render the training pictures. {reason} Render the object yourself (F12) to see what is "
            "wrong, or choose a folder of training images instead.",
            reason=error,
        ) from error
    return [(Path(image), Path(mask) if mask else None) for image, mask in pictures]


def render_guide(
    command: list[str],
    wanted: GuideRender,
    shot: Shot,
    on_progress: Callable[[ProgressReport], None],
    is_canceled: Callable[[], bool] = lambda: False,
) -> list[Path]:
    """The guide of a shot, and its masks if it has any; rendered unless that is done. As `render` otherwise."""
    folder, clips = Path(wanted.folder), clips_of(wanted)
    if wanted.clip or all(clip.is_file() for clip in clips):
        return clips
    if not (folder / SCENE).is_file():
        raise InvalidInput(
            "The scene of this guide is no longer on this machine. Generate the shot again.", code="gone"
        )
    frame = (shot.model_frame or WHOLE).as_tuple()
    rate = shot.frames * shot.fps / shot.scene_frames  # the guide lasts as long as the shot
    for engine in wanted.engines:
        task = [str(folder), wanted.scene, shot.times, frame, wanted.size, rate, wanted.masked, engine]
        arguments, seconds = ["guide.render", "rendering the guide", task], FIRST_SECONDS.get(engine, math.inf)
        try:
            _run(command, arguments, folder, on_progress, is_canceled, seconds)
            break
        except JobFailed as error:  # without a display, Workbench ends its Blender or waits forever
            if engine == wanted.engines[-1]:
                raise InvalidInput(
                    "Blender could not render the guide. {reason} Render the scene yourself (F12) to see what is "
                    "wrong, or turn the guide off.",
                    reason=error,
                ) from error
    (folder / SCENE).unlink(missing_ok=True)
    return clips


def clips_of(guide: GuideRender) -> list[Path]:
    """The clip, and its masks if it has any."""
    if guide.clip:
        return [Path(guide.clip)]
    return [Path(guide.folder) / name for name in ([GUIDE, MASKS] if guide.masked else [GUIDE])]


def _run(
    command: list[str],
    task: list[Any],
    folder: Path,
    on_progress: Callable[[ProgressReport], None],
    is_canceled: Callable[[], bool],
    seconds: float = math.inf,
) -> Any:
    """seconds: after this time without a report the process is killed, which raises JobFailed."""
    # Blender with factory settings removes the libraries of all extensions from their folder: it gets another one.
    own = {"BLENDER_USER_EXTENSIONS": str(folder / "extensions")}
    libraries = str(Path(msgspec.__file__).parents[1])  # which the other Blender lacks, unless they are in its Python
    process = ReportingProcess([*command, json.dumps([libraries, *task])], folder / "blender.log", own)
    heard, late, ended = threading.Event(), threading.Event(), threading.Event()

    def watch() -> None:
        deadline = time.monotonic() + seconds
        while not ended.wait(_WATCH_SECONDS):
            if not heard.is_set() and time.monotonic() > deadline:
                late.set()
            if late.is_set() or is_canceled():
                process.kill()
                return

    def hear(report: ProgressReport) -> None:
        heard.set()
        on_progress(report)

    threading.Thread(target=watch, name="MotionBooth render", daemon=True).start()
    try:
        return process.run(hear)
    except Canceled as error:
        if late.is_set():
            raise JobFailed("Blender rendered nothing for {seconds:.0f} s.", seconds=seconds) from error
        raise
    finally:
        ended.set()
