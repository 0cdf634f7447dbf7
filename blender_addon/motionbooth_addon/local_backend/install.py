"""Installs the backend on this machine: a Python environment of its own, outside Blender, made by venv and pip.

The work is done by processes that a thread listens to, so Blender's window never waits. What was cut short is no
environment: `READY` is written when a backend has answered there. The next try goes on with what is there, and begins
anew where that does not work. No bpy.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .._protocol.errors import NotFound, OutOfSpace

READY = "motionbooth-ready"  # in a finished environment: which version it has
_GIB = 2**30
# Bytes to fetch and on the disk, with everything that the backend needs: measured, and rounded up. On Linux torch
# brings CUDA.
FETCHED, KEPT = (4 * _GIB, 8 * _GIB) if sys.platform == "linux" else (_GIB, 3 * _GIB)
_CAN_MAKE = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"
_RECEIVED = re.compile(r"Progress (\d+) of \d+")
_SIZED = re.compile(r"Downloading .*\((\d+(?:\.\d+)?) (kB|MB|GB)\)")
_UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9}


@dataclass(frozen=True)
class Plan:
    """What would be installed from where, for a person to agree to. `source`: a wheel's path, or a requirement for
    pip's index; `python`: what the environment is made with; sizes in bytes.
    """

    source: str
    python: str
    folder: Path
    fetched: int
    kept: int
    free: int


def plan(wheel: str, version: str, folder: Path, places: Sequence[Path]) -> Plan:
    """`wheel`: chosen by the user, or "": looked for in `places`, else the index is asked.

    Raises NotFound where there is no such wheel or no Python, OutOfSpace where the disk is too small for it.
    """
    source = _source(wheel, version, places)
    existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free
    made = Plan(source, _find_python(), folder, FETCHED, KEPT, free)
    if free < made.kept and not folder.is_dir():
        raise OutOfSpace(
            f"The backend needs {size(made.kept)} in {folder.parent}, where {size(free)} are free; free some space "
            "there, or connect to another machine."
        )
    return made


def _source(wheel: str, version: str, places: Sequence[Path]) -> str:
    if wheel:
        if not Path(wheel).is_file() or not wheel.endswith(".whl"):
            raise NotFound(f"There is no wheel at {wheel}; correct its path in the extension's preferences.")
        return wheel
    name = f"motionbooth-{version}-py3-none-any.whl"
    found = next((place / name for place in places if (place / name).is_file()), None)
    return str(found) if found is not None else f"motionbooth=={version}"


def _find_python() -> str:
    """One of 3.11 or newer that can make environments: Blender's own, or one on the PATH."""
    found = (shutil.which(name) for name in ("python3.11", "python3.12", "python3.13", "python3", "python"))
    for python in (sys.executable, *found):
        if python:
            with contextlib.suppress(OSError):
                if _succeeds([python, "-c", _CAN_MAKE]):
                    return python
    raise NotFound(
        "There is no Python of version 3.11 or newer here that can make an environment (with venv and ensurepip). "
        "Install one from python.org, or by your system's packages, and try again."
    )


def size(count: int) -> str:
    return f"{count / _GIB:.1f} GB"


def installed_command(folder: Path) -> list[str] | None:
    """The backend's program in a finished environment; None where there is none, or its Python has gone."""
    python = _python_of(folder)
    if (folder / READY).is_file() and python.exists():
        return [str(python), "-m", "motionbooth.cli"]
    return None


def _python_of(folder: Path) -> Path:
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


class Installation:
    """One installation under way. `stage` and `factor` (0 to 1) may be read from any thread; `ended` is the last to
    change, and `error` a sentence then, "" where the backend is installed.
    """

    def __init__(self, plan: Plan, version: str) -> None:
        self.plan = plan
        self.stage = "making an environment"
        self.factor = 0.0
        self.error = ""
        self.ended = False
        self._version = version
        self._canceled = False
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="motionbooth-install", daemon=True)

    @property
    def canceled(self) -> bool:
        return self._canceled

    def start(self) -> Installation:
        self._thread.start()
        return self

    def cancel(self) -> None:
        """Returns at once. What has been fetched is kept for the next try."""
        with self._lock:
            self._canceled = True
            if self._process is not None:
                self._process.terminate()

    def _run(self) -> None:
        try:
            self._install()
        except _Stopped as stopped:
            self.error = str(stopped)
        except _Failed as failed:
            self.error = self._reason(failed.lines)
        except OSError as error:
            self.error = f"The backend was not installed: {error}. What is there is kept; try again."
        finally:
            self.ended = True

    def _install(self) -> None:
        folder = self.plan.folder
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / READY).unlink(missing_ok=True)
        python = _python_of(folder)
        if not _works(python):
            self._make(python)
        self._fetch(python)
        self.stage = "checking"
        if not self._answers(python):  # torn by an earlier try: pip took half a package for a whole one
            self._make(python)
            self._fetch(python)
            self.stage = "checking"
            if not self._answers(python):
                raise _Stopped(f"The backend was installed in {folder} and does not start; look at {self._log}.")
        (folder / READY).write_text(self._version)
        self.factor = 1.0

    def _make(self, python: Path) -> None:
        self.stage, self.factor = "making an environment", 0.0
        self._do([self.plan.python, "-m", "venv", "--clear", str(self.plan.folder)])
        # Blender's own pip may be too old to say how far it is; without a newer one the bar only jumps.
        with contextlib.suppress(_Failed):
            self._do([*_pip(python), "install", "--upgrade", "pip"])

    def _fetch(self, python: Path) -> None:
        """With pip, which keeps what it has fetched for the next try."""
        self.stage = "downloading"
        bar = ["--progress-bar", "raw"] if _succeeds([*_pip(python), "install", "--progress-bar", "raw", "pip"]) else []
        received = _Received(self)
        with self._measured():
            self._do([*_pip(python), "install", *bar, self.plan.source], received.line)

    def _reason(self, lines: Sequence[str]) -> str:
        said = "\n".join(lines)
        if "No matching distribution found for motionbooth" in said:
            return (
                f"The package index has no {self.plan.source}. Name the backend's wheel in the extension's "
                "preferences: it lies beside the extension's zip."
            )
        if "No space left" in said or "Errno 28" in said:
            return f"The disk of {self.plan.folder} is full; free {size(self.plan.kept)} there and try again."
        errors = [line for line in lines if line.lower().startswith("error: ")]
        what = (errors or list(lines) or [""])[0].partition(": ")[2]
        return (
            f"The backend was not installed: {what} All that was said: {self._log}. What is there is kept; try again."
        )

    def _answers(self, python: Path) -> bool:
        with contextlib.suppress(_Failed):
            self._do([str(python), "-c", "import motionbooth.cli.app, motionbooth.jobs.runner"])  # with torch and all
            return True
        return False

    @contextlib.contextmanager
    def _measured(self) -> Iterator[None]:
        """While pip unpacks, it says nothing: the disk tells how far it is."""
        done = threading.Event()
        before = self.plan.free

        def look() -> None:
            while not done.wait(1.0):
                if self.stage == "unpacking":
                    written = before - shutil.disk_usage(self.plan.folder).free
                    self.factor = max(
                        self.factor, min(0.99, 0.6 + 0.4 * written / (self.plan.kept + self.plan.fetched))
                    )

        watcher = threading.Thread(target=look, name="motionbooth-measure", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    @property
    def _log(self) -> Path:
        return self.plan.folder.with_name("install.log")

    def _do(self, command: list[str], on_line: Callable[[str], None] = lambda line: None) -> None:
        """Run it to its end. Raises _Failed with the last lines, _Stopped where it was canceled."""
        lines: deque[str] = deque(maxlen=200)
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            with self._begin(command) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    if not line.startswith("Progress "):
                        log.write(line)
                        lines.append(line.rstrip())
                    on_line(line)
        self._process = None
        if self._canceled:
            raise _Stopped("The installation was canceled. What was downloaded is kept for the next try.")
        if process.returncode != 0:
            raise _Failed(list(lines))

    def _begin(self, command: list[str]) -> subprocess.Popen[str]:
        with self._lock:
            if self._canceled:
                raise _Stopped("The installation was canceled. What was downloaded is kept for the next try.")
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                env={**environment(), "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"},
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # of Windows
            )
            return self._process


class _Received:
    """How many bytes pip has fetched, from what it prints."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._whole = 0.0  # of the files before this one
        self._announced = self._current = 0.0

    def line(self, line: str) -> None:
        if (sized := _SIZED.search(line)) is not None:
            self._whole += max(self._announced, self._current)
            self._announced, self._current = float(sized[1]) * _UNITS[sized[2]], 0.0
        elif (received := _RECEIVED.match(line)) is not None:
            self._current = float(received[1])
        elif line.startswith("Installing collected packages"):
            self._installation.stage = "unpacking"
            self._installation.factor = max(self._installation.factor, 0.6)
            return
        share = (self._whole + self._current) / self._installation.plan.fetched
        self._installation.factor = max(self._installation.factor, min(0.6, 0.6 * share))


class _Failed(Exception):
    """A process failed; its last lines."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(lines)
        self.lines = lines


class _Stopped(Exception):
    """Why the installation ended, a sentence."""


def _pip(python: Path) -> list[str]:
    return [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]


def _works(python: Path) -> bool:
    """Whether an environment can be gone on with."""
    with contextlib.suppress(OSError):
        return _succeeds([str(python), "-m", "pip", "--version"])
    return False


def _succeeds(command: list[str]) -> bool:
    ran = subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return ran.returncode == 0


def environment() -> dict[str, str]:
    """Ours, without what Blender or a launcher set for its own Python."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONHOME", "PYTHONPATH"}}
