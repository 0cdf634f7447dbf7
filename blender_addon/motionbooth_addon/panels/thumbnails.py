"""Picture files as icons. Blender reads each once, when it is first drawn."""

from __future__ import annotations

from pathlib import Path

import bpy
import bpy.utils.previews

_icons: bpy.utils.previews.ImagePreviewCollection | None = None


def icon(path: str) -> int:
    """An icon's number for `template_icon`; 0 where there is no such file. One that was written anew is read anew."""
    if _icons is None or not path:
        return 0
    try:
        key = f"{path}@{Path(path).stat().st_mtime_ns}"
    except OSError:
        return 0
    if key not in _icons:
        _icons.load(key, path, "IMAGE")
    return _icons[key].icon_id


def register() -> None:
    global _icons
    _icons = bpy.utils.previews.new()


def unregister() -> None:
    global _icons
    bpy.utils.previews.remove(_icons)
    _icons = None
