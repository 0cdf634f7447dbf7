"""Where a user's work is kept, by the rules that the backend's commands follow (platformdirs). No bpy, no package."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_NAME = "motionbooth"


def data_folder() -> Path:
    """The backend's default home. The extension's own files are in its folder `blender`, see files.py."""
    return _user_data_folder(sys.platform, os.environ)


def environment_folder() -> Path:
    """Where the extension installs a backend: a Python environment of its own. Can be deleted and made again."""
    return data_folder() / "environment"


def _user_data_folder(system: str, environment: os._Environ[str] | dict[str, str]) -> Path:
    """What platformdirs.user_data_path("motionbooth") is on that system."""
    if system == "win32":
        local = environment.get("LOCALAPPDATA", "")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / _NAME / _NAME
    chosen = environment.get("XDG_DATA_HOME", "").strip()
    if os.path.isabs(chosen):
        return Path(chosen) / _NAME
    if system == "darwin":
        return Path.home() / "Library" / "Application Support" / _NAME
    return Path.home() / ".local" / "share" / _NAME
