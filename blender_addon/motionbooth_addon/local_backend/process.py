"""The backend's process on this machine, which keeps running when Blender is closed. No bpy."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from .._protocol.errors import Conflict, NotFound
from .._protocol.reporting_process import last_line
from .._protocol.text import Text
from .install import environment

STORE = "jobs.sqlite"  # in a backend's home
ADDRESS = "tcp://127.0.0.1:*"  # any free port; it is in the connection file
# The message if no backend is installed, and online access is off.
MANUAL_INSTALLATION = (
    "MotionBooth's backend is not installed on this machine. Start Local Backend installs it if Blender's online "
    "access is on (Preferences > System > Network). Or install its wheel, which is next to the extension's zip, with "
    "pip (Python 3.11 or newer), and give the path of its program `motionbooth` in this extension's preferences; or "
    "connect to another machine."
)
_HAS_BACKEND = "import importlib.util, sys; sys.exit(importlib.util.find_spec('motionbooth') is None)"


def find_command(preferred: str, installed: list[str] | None = None) -> list[str]:
    """The command that runs the backend's command line.

    The first of: the path in the preferences; the command `installed` by the extension; a program on the PATH; a module
    of a Python on the PATH. Raises NotFound, which explains how to install it.
    """
    if preferred:
        if not Path(preferred).is_file():
            raise NotFound(
                "There is no backend program at {preferred}; correct its path in the extension's preferences.",
                preferred=preferred,
            )
        return [preferred]
    if installed is not None:
        return installed
    beside = str(Path(sys.executable).parent)  # if Blender is a module of the Python that has the backend, too
    if found := shutil.which("motionbooth") or shutil.which("motionbooth", path=beside):
        return [found]
    for name in ("python3", "python"):
        python = shutil.which(name)
        if python and subprocess.run([python, "-c", _HAS_BACKEND], env=environment(), check=False).returncode == 0:
            return [python, "-m", "motionbooth.cli"]
    raise NotFound(MANUAL_INSTALLATION)


class LocalBackend:
    """The backend with the home folder `home`. Another Blender may have started it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._asked_to_stop = False

    @property
    def connection_file(self) -> Path:
        """Exists while the backend is listening."""
        return self.home / "connection.json"

    @property
    def starting(self) -> bool:
        return self._process is not None and self._process.poll() is None and not self.connection_file.exists()

    @property
    def running(self) -> bool:
        return self.connection_file.exists() and self._pid() is not None and is_home_in_use(self.home)

    @property
    def active(self) -> bool:
        return self.starting or self.running

    def start(self, command: list[str]) -> None:
        """Returns at once; see `starting` and `failure`. Raises Conflict if one is just stopping."""
        if self.active:
            return
        if is_home_in_use(self.home):
            if self._asked_to_stop or not self.connection_file.exists():
                raise Conflict("The local backend is just stopping or starting. Try again in a moment.")
            return  # started from a command line
        self.home.mkdir(parents=True, exist_ok=True)
        self.connection_file.unlink(missing_ok=True)  # left by a backend that was killed
        options: dict[str, int | bool] = {"start_new_session": True}
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "serve", "--home", str(self.home), "--address", ADDRESS],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment(),
                **options,  # type: ignore[call-overload]
            )
        self._asked_to_stop = False
        (self.home / "backend.pid").write_text(str(self._process.pid))

    def failure(self) -> Text | None:
        """Why the process ended without being stopped, reported once; otherwise None."""
        if self._process is None or (status := self._process.poll()) is None:
            return None
        self._process = None
        if self._asked_to_stop:
            return None
        return Text.of(
            "The local backend ended (exit status {status}). {reason} Its log: {log}",
            status=status,
            reason=last_line(self._log),
            log=self._log,
        )

    def stop(self) -> None:
        """Ask it to end; its jobs are kept, and continue when it is started again. Returns at once."""
        self._asked_to_stop = True
        pid = self._pid()
        (self.home / "backend.pid").unlink(missing_ok=True)
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        elif pid is not None and self._is_ours(pid):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGTERM)

    def _is_ours(self, pid: int) -> bool:
        """Whether that process serves this home: after a crash, another program may have its id."""
        if sys.platform == "win32":
            return is_home_in_use(self.home)
        try:
            process = subprocess.run(["ps", "-ww", "-p", str(pid), "-o", "args="], capture_output=True, text=True)
        except FileNotFoundError:  # a system without ps
            return True
        return str(self.home) in process.stdout

    @property
    def _log(self) -> Path:
        return self.home / "backend.log"

    def _pid(self) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            return int((self.home / "backend.pid").read_text())
        return None


def is_home_in_use(home: Path) -> bool:
    """Whether any backend is running with this home: it locks its store."""
    store = home / STORE
    if not store.is_file():
        return False
    try:
        with contextlib.closing(
            sqlite3.connect(f"{store.resolve().as_uri()}?mode=rw", uri=True, timeout=0)
        ) as database:
            database.execute("SELECT 1 FROM sqlite_master").fetchone()  # also checkpoints the journal of a killed one
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    except sqlite3.Error:  # corrupt: for `motionbooth doctor`
        return False
    return False
