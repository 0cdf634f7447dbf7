"""This machine in Blender's terms."""

from __future__ import annotations

import platform


def blender_platform() -> str:
    """The platform of the extension's zip for this machine, such as linux-x64."""
    system = {"Linux": "linux", "Windows": "windows", "Darwin": "macos"}[platform.system()]
    return f"{system}-{'arm64' if platform.machine().lower() in {'arm64', 'aarch64'} else 'x64'}"
