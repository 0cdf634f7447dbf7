"""Installs the backend on this machine, into a Python environment outside Blender, with venv and pip. No bpy.

A thread runs the processes, so that Blender's window never waits. `READY` is written into an environment once the
backend was imported there. After an interruption, the next attempt continues with the environment, and creates a new
one if it is broken.
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

from .._protocol.errors import MotionBoothError, NotFound, OutOfSpace
from .._protocol.text import Text

READY = "motionbooth-ready"  # a file in a complete environment, with the version
_GIB = 2**30
# Bytes to download and on the disk, with all dependencies: measured and rounded up. On Linux, torch includes CUDA.
DOWNLOAD, INSTALLED = (4 * _GIB, 8 * _GIB) if sys.platform == "linux" else (_GIB, 3 * _GIB)
_CAN_CREATE = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))"
_RECEIVED = re.compile(r"Progress (\d+) of \d+")
_SIZED = re.compile(r"Downloading .*\((\d+(?:\.\d+)?) (kB|MB|GB)\)")
_CANCELED = Text("The installation was canceled. Downloaded files are kept for the next attempt.")
_UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9}


@dataclass(frozen=True)
class Plan:
    """What will be installed, for the user's consent.

    source: the path of a wheel, or a requirement for the package index.
    python: the interpreter that creates the environment.
    download, installed, free: bytes.
    """

    source: str
    python: str
    folder: Path
    download: int
    installed: int
    free: int


def plan(wheel: str, version: str, folder: Path, search: Sequence[Path]) -> Plan:
    """Plan an installation into `folder`.

    wheel: the user's choice, "" to look in the folders `search`, then in the package index.

    Raises NotFound if there is no such wheel or no Python, OutOfSpace if the disk is too small.
    """
    source = _source(wheel, version, search)
    existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free
    made = Plan(source, _find_python(), folder, DOWNLOAD, INSTALLED, free)
    if free < made.installed and not folder.is_dir():
        raise OutOfSpace(
            "The backend needs {needed} in {folder}, where {free} are free; free some space "
            "there, or connect to another machine.",
            needed=size(made.installed),
            folder=folder.parent,
            free=size(free),
        )
    return made


def _source(wheel: str, version: str, search: Sequence[Path]) -> str:
    if wheel:
        if not Path(wheel).is_file() or not wheel.endswith(".whl"):
            raise NotFound(
                "There is no wheel at {wheel}; correct its path in the extension's preferences.", wheel=wheel
            )
        return wheel
    name = f"motionbooth-{version}-py3-none-any.whl"
    found = next((folder / name for folder in search if (folder / name).is_file()), None)
    return str(found) if found is not None else f"motionbooth=={version}"


def _find_python() -> str:
    """A Python 3.11 or newer that can create environments: Blender's own, or one on the PATH."""
    found = (shutil.which(name) for name in ("python3.11", "python3.12", "python3.13", "python3", "python"))
    for python in (sys.executable, *found):
        if python:
            with contextlib.suppress(OSError):
                if _succeeds([python, "-c", _CAN_CREATE]):
                    return python
    raise NotFound(
        "There is no Python of version 3.11 or newer here that can create an environment (with venv and ensurepip). "
        "Install one from python.org or from your system's packages, and try again."
    )


def size(count: int) -> str:
    return f"{count / _GIB:.1f} GB"


def installed_command(folder: Path) -> list[str] | None:
    """The backend's command in a complete environment; None if there is none, or its Python was removed."""
    python = _python_of(folder)
    if (folder / READY).is_file() and python.exists():
        return [str(python), "-m", "motionbooth.cli"]
    return None


def _python_of(folder: Path) -> Path:
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


class Installation:
    """A running installation. Its attributes may be read from any thread.

    stage, factor: the progress, factor from 0 to 1.
    ended: set last.
    error: why the installation ended early; None if it succeeded. canceled: because the user canceled it.
    """

    def __init__(self, plan: Plan, version: str) -> None:
        self.plan = plan
        self.stage = "creating an environment"
        self.factor = 0.0
        self.error: Text | None = None
        self.ended = False
        self._version = version
        self.canceled = False
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="motionbooth-install", daemon=True)

    def start(self) -> Installation:
        self._thread.start()
        return self

    def cancel(self) -> None:
        """Returns at once. The downloads are kept for the next attempt."""
        with self._lock:
            self.canceled = True
            if self._process is not None:
                self._process.terminate()

    def _run(self) -> None:
        try:
            self._install()
        except _Stopped as stopped:
            self.error = stopped.text
        except _Failed as failed:
            self.error = self._reason(failed.lines)
        except OSError as error:
            self.error = Text.of(
                "The backend was not installed: {reason}. Downloaded files are kept; try again.", reason=error
            )
        finally:
            self.ended = True

    def _install(self) -> None:
        folder = self.plan.folder
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / READY).unlink(missing_ok=True)
        python = _python_of(folder)
        if not _has_pip(python):
            self._create(python)
        self._download(python)
        self.stage = "checking"
        if not self._starts(python):  # an interrupted attempt left half a package, which pip takes for complete
            self._create(python)
            self._download(python)
            self.stage = "checking"
            if not self._starts(python):
                raise _Stopped(
                    "The backend was installed in {folder} and does not start; look at {log}.",
                    folder=folder,
                    log=self._log,
                )
        (folder / READY).write_text(self._version)
        self.factor = 1.0

    def _create(self, python: Path) -> None:
        self.stage, self.factor = "creating an environment", 0.0
        self._run_command([self.plan.python, "-m", "venv", "--clear", str(self.plan.folder)])
        # Blender's own pip may be too old to report its progress; without a newer one the bar only jumps.
        with contextlib.suppress(_Failed):
            self._run_command([*_pip(python), "install", "--upgrade", "pip"])

    def _download(self, python: Path) -> None:
        """With pip, whose cache keeps the downloads for the next attempt."""
        self.stage = "downloading"
        bar = ["--progress-bar", "raw"] if _succeeds([*_pip(python), "install", "--progress-bar", "raw", "pip"]) else []
        progress = _DownloadProgress(self)
        with self._watch_disk():
            self._run_command([*_pip(python), "install", *bar, self.plan.source], progress.read_line)

    def _reason(self, lines: Sequence[str]) -> Text:
        said = "\n".join(lines)
        if "No matching distribution found for motionbooth" in said:
            return Text.of(
                "The package index has no {package}. Name the backend's wheel in the extension's "
                "preferences: it is next to the extension's zip.",
                package=self.plan.source,
            )
        if "No space left" in said or "Errno 28" in said:
            return Text.of(
                "The disk of {folder} is full; free {needed} there and try again.",
                folder=self.plan.folder,
                needed=size(self.plan.installed),
            )
        errors = [line for line in lines if line.lower().startswith("error: ")]
        what = (errors or list(lines) or [""])[0].partition(": ")[2]
        return Text.of(
            "The backend was not installed: {reason} The full log is {log}. Downloaded files are kept; try again.",
            reason=what,
            log=self._log,
        )

    def _starts(self, python: Path) -> bool:
        with contextlib.suppress(_Failed):
            self._run_command(
                [str(python), "-c", "import motionbooth.cli.app, motionbooth.jobs.runner"]
            )  # imports torch, too
            return True
        return False

    @contextlib.contextmanager
    def _watch_disk(self) -> Iterator[None]:
        """Derive the progress from the disk: pip prints nothing while it unpacks."""
        done = threading.Event()
        before = self.plan.free

        def look() -> None:
            while not done.wait(1.0):
                if self.stage == "unpacking":
                    written = before - shutil.disk_usage(self.plan.folder).free
                    self.factor = max(
                        self.factor, min(0.99, 0.6 + 0.4 * written / (self.plan.installed + self.plan.download))
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

    def _run_command(self, command: list[str], on_line: Callable[[str], None] = lambda line: None) -> None:
        """Run a command. Raises _Failed with its last lines, _Stopped if the installation was canceled."""
        lines: deque[str] = deque(maxlen=200)
        with self._log.open("a", encoding="utf-8") as log:
            log.write(f"$ {' '.join(command)}\n")
            with self._start_process(command) as process:
                assert process.stdout is not None
                for line in process.stdout:
                    if not line.startswith("Progress "):
                        log.write(line)
                        lines.append(line.rstrip())
                    on_line(line)
        self._process = None
        if self.canceled:
            raise _Stopped(_CANCELED)
        if process.returncode != 0:
            raise _Failed(list(lines))

    def _start_process(self, command: list[str]) -> subprocess.Popen[str]:
        with self._lock:
            if self.canceled:
                raise _Stopped(_CANCELED)
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


class _DownloadProgress:
    """Derives the progress of the download from pip's output."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._complete = 0.0  # bytes of the files before the current one
        self._announced = self._current = 0.0

    def read_line(self, line: str) -> None:
        if (sized := _SIZED.search(line)) is not None:
            self._complete += max(self._announced, self._current)
            self._announced, self._current = float(sized[1]) * _UNITS[sized[2]], 0.0
        elif (received := _RECEIVED.match(line)) is not None:
            self._current = float(received[1])
        elif line.startswith("Installing collected packages"):
            self._installation.stage = "unpacking"
            self._installation.factor = max(self._installation.factor, 0.6)
            return
        share = (self._complete + self._current) / self._installation.plan.download
        self._installation.factor = max(self._installation.factor, min(0.6, 0.6 * share))


class _Failed(Exception):
    """A process failed with these last lines."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(lines)
        self.lines = lines


class _Stopped(MotionBoothError):
    """The installation ended early."""


def _pip(python: Path) -> list[str]:
    return [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]


def _has_pip(python: Path) -> bool:
    """Whether an environment can be continued with."""
    with contextlib.suppress(OSError):
        return _succeeds([str(python), "-m", "pip", "--version"])
    return False


def _succeeds(command: list[str]) -> bool:
    ran = subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return ran.returncode == 0


def environment() -> dict[str, str]:
    """This process's environment variables, without those that Blender or a launcher set for its Python."""
    return {name: value for name, value in os.environ.items() if name not in {"PYTHONHOME", "PYTHONPATH"}}
