"""The user's data folder, the same as that of the backend's commands (platformdirs). No bpy, no other package."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_NAME = "motionbooth"


def data_folder() -> Path:
    """The backend's default home. The extension's files are in its subfolder `blender`, see files.py."""
    return _user_data_folder(sys.platform, os.environ)


def environment_folder() -> Path:
    """The Python environment in which the extension installs a backend. It can be deleted and created again."""
    return data_folder() / "environment"


def _user_data_folder(system: str, environment: os._Environ[str] | dict[str, str]) -> Path:
    """platformdirs.user_data_path("motionbooth") of that system."""
    if system == "win32":
        local = environment.get("LOCALAPPDATA", "")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / _NAME / _NAME
    chosen = environment.get("XDG_DATA_HOME", "").strip()
    if os.path.isabs(chosen):
        return Path(chosen) / _NAME
    if system == "darwin":
        return Path.home() / "Library" / "Application Support" / _NAME
    return Path.home() / ".local" / "share" / _NAME
