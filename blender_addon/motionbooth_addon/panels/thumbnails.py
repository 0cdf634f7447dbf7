"""Picture files as icons: small ones, which Blender reads when they are first drawn, and large ones with all pixels."""

from __future__ import annotations

from pathlib import Path

import bpy
import bpy.utils.previews
import numpy as np

MOST_PIXELS = 1024  # of a large icon's longer side

_icons: bpy.utils.previews.ImagePreviewCollection | None = None
_large: dict[tuple[str, float], list[int]] = {}  # by the file's key and the frames' shape
_shown: dict[str, list[int]] = {}  # by their place in a panel: the latest that were read
_wanted: dict[str, tuple[str, float]] = {}  # by its place, what was drawn and is not read yet


def icon(path: str) -> int:
    """An icon's number for `template_icon`; 0 where there is no such file. One that was written anew is read anew."""
    key = _key(path)
    if _icons is None or not key:
        return 0
    if key not in _icons:
        _icons.load(key, path, "IMAGE")
    return _icons[key].icon_id


def large_icons(place: str, path: str, shape: float = 0.0) -> list[int]:
    """Icons with all pixels of a picture; of a strip of frames of `shape` (width / height), one for each frame.

    A panel that is drawn may not make images: until `read_wanted` has read it, there is what was in this place before.
    """
    key = _key(path), shape
    if key in _large:
        _shown[place] = _large[key]
    elif key[0]:
        _wanted[place] = path, shape
    return _shown.get(place, [])


def read_wanted() -> bool:
    """Read one picture that a panel wants to show large, when Blender's data may be changed; whether there was one."""
    if not _wanted or _icons is None:
        return False
    place = next(iter(_wanted))
    _shown[place] = read_large(*_wanted.pop(place))
    return True


def read_large(path: str, shape: float = 0.0) -> list[int]:
    """`large_icons`, read now where they were not yet."""
    key = _key(path), shape
    if _icons is None or not key[0]:
        return []
    if key not in _large:
        _large[key] = [_add(f"{key[0]}@{shape}@{n}", frame) for n, frame in enumerate(_frames(path, shape))]
    return _large[key]


def _frames(path: str, shape: float) -> list[np.ndarray]:
    """RGBA (H, W, 4), the lowest row first; none where the file is no picture."""
    try:
        image = bpy.data.images.load(path)
    except RuntimeError:
        return []
    try:
        width, height = image.size
        if not width or not height:
            return []
        if (longer := max(width, height)) > MOST_PIXELS and not shape:
            image.scale(max(1, width * MOST_PIXELS // longer), max(1, height * MOST_PIXELS // longer))
            width, height = image.size
        pixels = np.empty(width * height * 4, np.float32)
        image.pixels.foreach_get(pixels)
    finally:
        bpy.data.images.remove(image)
    count = max(1, round(width / height / shape)) if shape else 1
    return [np.ascontiguousarray(part) for part in np.array_split(pixels.reshape(height, width, 4), count, axis=1)]


def _add(name: str, pixels: np.ndarray) -> int:
    assert _icons is not None
    added = _icons.new(name)
    added.image_size = (pixels.shape[1], pixels.shape[0])
    added.image_pixels_float.foreach_set(pixels.ravel())
    return int(added.icon_id)


def _key(path: str) -> str:
    """Another one for a file that was written anew; "" where there is none."""
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
    _wanted.clear()
