"""Folders for several things with names. No bpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def folder_for_each(names: Sequence[str], out: Path) -> list[Path]:
    """A folder in `out` for each name; equal names are numbered."""
    folders: list[Path] = []
    for name in names:
        folder, number = out / name, 2
        while folder in folders:
            folder, number = out / f"{name}_{number}", number + 1
        folders.append(folder)
    return folders
