"""Connects to the backend that the preferences choose, and disconnects when it is gone; installs the local one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from .._protocol.connection import Connection, written_at
from .._protocol.errors import MotionBoothError
from .._protocol.text import Text
from ..local_backend.install import Installation, Plan, installed_command
from ..local_backend.process import LocalBackend
from ..preferences import preferences
from ..user_data import environment_folder
from .job_client import JobClient
from .ui_update import UiUpdater

_LOOPBACK = ("tcp://127.", "tcp://localhost:", "tcp://[::1]:")


class BackendWatcher:
    """Keeps `jobs` connected as connection files appear, change and disappear. `local`: the backend on this machine."""

    def __init__(self, jobs: JobClient, local: LocalBackend, ui: UiUpdater) -> None:
        self.local = local
        self.installation: Installation | None = None
        self._jobs = jobs
        self._ui = ui
        self._source: tuple[Any, ...] | None = None

    @property
    def connection_file(self) -> Path:
        chosen = preferences().connection_file
        return Path(bpy.path.abspath(chosen)) if chosen else self.local.connection_file

    def watch(self) -> None:
        """Connect if there is a new connection file; disconnect if it is gone."""
        if (failure := self.local.failure()) is not None:
            self._ui.show_notice(failure, is_error=True)
        path = self.connection_file
        written = written_at(path)
        source = (path, written, bpy.app.online_access, self.local.starting)
        if source == self._source:
            return
        self._source = source
        self._jobs.disconnect(seconds=0)  # the main thread does not wait
        if written is not None:
            self._connect(path)
        elif preferences().connection_file:
            self._ui.show_connection(
                "DISCONNECTED",
                Text.of("There is no connection file at {path}; import it again, or clear its path.", path=path),
            )
        else:
            self._ui.show_connection("STARTING" if self.local.starting else "NONE")

    def _connect(self, path: Path) -> None:
        try:
            connection = Connection.read(path)
        except MotionBoothError as error:
            self._ui.show_connection("DISCONNECTED", error.text)
            return
        if not connection.address.startswith(_LOOPBACK) and not bpy.app.online_access:
            self._ui.show_connection(
                "OFFLINE",
                "The backend is on another machine and Blender's online access is off: Preferences > System > Network.",
            )
            return
        from ..turntable import background_render

        self._ui.show_connection("CONNECTING", connection.address)
        previews = Path(bpy.app.tempdir) / "motionbooth"
        renderer = background_render.renderer(bpy.app.binary_path, system_python=not bpy.app.python_args)
        self._jobs.connect(connection, previews, renderer)

    def install(self, plan: Plan, version: str) -> None:
        self.installation = Installation(plan, version).start()

    def follow_installation(self) -> None:
        """Show its progress; start the backend when it is installed."""
        installation = self.installation
        if installation is None:
            return
        if not installation.ended:
            self._ui.show_installation(installation.stage, installation.factor)
            return
        self.installation = None
        self._ui.show_installation("", 0.0)
        command = installed_command(environment_folder())
        if installation.error is not None:
            self._ui.show_notice(installation.error, is_error=not installation.canceled)
            return
        assert command is not None
        self._ui.show_notice("The backend is installed and is starting.")
        self.local.start(command)

    def close(self) -> None:
        if self.installation is not None:
            self.installation.cancel()
