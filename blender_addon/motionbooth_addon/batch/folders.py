"""A folder for each of several things that have names. Free of bpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def folder_for_each(names: Sequence[str], out: Path) -> list[Path]:
    """Named like it, in `out`; numbered where two have one name."""
    folders: list[Path] = []
    for name in names:
        folder, number = out / name, 2
        while folder in folders:
            folder, number = out / f"{name}_{number}", number + 1
        folders.append(folder)
    return folders
