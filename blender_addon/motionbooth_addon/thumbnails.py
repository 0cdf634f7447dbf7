"""Image files as icons: thumbnails, which Blender loads when they are drawn, and large icons in full resolution."""

from __future__ import annotations

from pathlib import Path

import bpy
import bpy.utils.previews
import numpy as np

MAX_PIXELS = 1024  # of the longer side of a large icon

_icons: bpy.utils.previews.ImagePreviewCollection | None = None
_large: dict[tuple[str, float], list[int]] = {}  # by the file's key and the frames' aspect ratio
_shown: dict[str, list[int]] = {}  # by slot in a panel: the icons that were loaded last
_pending: dict[str, tuple[str, float]] = {}  # by slot: what was requested and is not loaded yet


def icon(path: str) -> int:
    """The icon ID of an image file for `template_icon`; 0 if there is no such file. A changed file is loaded again."""
    key = _key(path)
    if _icons is None or not key:
        return 0
    if key not in _icons:
        _icons.load(key, path, "IMAGE")
    return _icons[key].icon_id


def large_icons(slot: str, path: str, aspect: float = 0.0) -> list[int]:
    """Icon IDs of an image in full resolution, or of each frame in a row of frames of `aspect` (width / height).

    Images cannot be created while a panel is drawn. Until `load_pending` has loaded the file, the slot keeps its icons.
    """
    key = _key(path), aspect
    if key in _large:
        _shown[slot] = _large[key]
    elif key[0]:
        _pending[slot] = path, aspect
    return _shown.get(slot, [])


def load_pending() -> bool:
    """Load one requested image, outside of drawing code; returns whether there was one."""
    if not _pending or _icons is None:
        return False
    slot = next(iter(_pending))
    load_large(slot, *_pending.pop(slot))
    return True


def load_large(slot: str, path: str, aspect: float = 0.0) -> list[int]:
    """Like `large_icons`, but loads the file at once. What no slot shows any more is freed."""
    key = _key(path), aspect
    if _icons is None or not key[0]:
        return []
    if key not in _large:
        _large[key] = [_add(_name(key, n), frame) for n, frame in enumerate(_frames(path, aspect))]
    _shown[slot] = _large[key]
    for old, icons in list(_large.items()):
        if not any(icons is shown for shown in _shown.values()):
            del _large[old]
            for n in range(len(icons)):
                del _icons[_name(old, n)]
    return _large[key]


def _name(key: tuple[str, float], frame: int) -> str:
    return f"{key[0]}@{key[1]}@{frame}"


def _frames(path: str, aspect: float) -> list[np.ndarray]:
    """The frames as RGBA (H, W, 4), bottom row first; empty if the file is no image."""
    try:
        image = bpy.data.images.load(path)
    except RuntimeError:
        return []
    try:
        width, height = image.size
        if not width or not height:
            return []
        if (longer := max(width, height)) > MAX_PIXELS and not aspect:
            image.scale(max(1, width * MAX_PIXELS // longer), max(1, height * MAX_PIXELS // longer))
            width, height = image.size
        pixels = np.empty(width * height * 4, np.float32)
        image.pixels.foreach_get(pixels)
    finally:
        bpy.data.images.remove(image)
    count = max(1, round(width / height / aspect)) if aspect else 1
    return [np.ascontiguousarray(part) for part in np.array_split(pixels.reshape(height, width, 4), count, axis=1)]


def _add(name: str, pixels: np.ndarray) -> int:
    assert _icons is not None
    added = _icons.new(name)
    added.image_size = (pixels.shape[1], pixels.shape[0])
    added.image_pixels_float.foreach_set(pixels.ravel())
    return int(added.icon_id)


def _key(path: str) -> str:
    """A key that changes when the file is written; "" if there is no file."""
    if not path:
        return ""
    try:
        return f"{path}@{Path(path).stat().st_mtime_ns}"
    except OSError:
        return ""


def register() -> None:
    global _icons
    _icons = bpy.utils.previews.new()


def unregister() -> None:
    global _icons
    bpy.utils.previews.remove(_icons)
    _icons = None
    _large.clear()
    _shown.clear()
    _pending.clear()
