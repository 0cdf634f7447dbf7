"""Moves the files of earlier versions out of the extension's folder, which Blender deletes with the extension. No bpy.

At any moment, each file is complete in its old folder or in its new one, so that the next start resumes an interrupted
migration. Existing files are never replaced.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from contextlib import suppress
from pathlib import Path

from ._protocol.text import Text
from .local_backend.process import STORE, is_home_in_use

_OWN = ("clips", "connections", "jobs", "keys", "trained", "training")


def migrate(old: Path, data: Path, release: str) -> Text | None:
    """Move the files in `old` to the data folder; returns where they are now, or None if there are none.

    release: the version of this Blender, such as "5.0".

    Raises OSError; the next call continues.
    """
    if not old.is_dir() or not any(old.iterdir()):
        return None
    own = data / "blender"
    own.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in _OWN:
        _move_into(old / name, own / name)
    home = old / "backend"
    if is_home_in_use(home):
        return Text.of(
            "The local backend of an earlier version is still running in {home}; stop it and start Blender again, and "
            "its jobs and subjects are moved to {data}.",
            home=home,
            data=data,
        )
    kept = data if _is_free(home, data) else home_of(data, release, new=True)
    _move_home(home, kept)
    _remove_empty(old)
    if kept != data and kept.is_dir():
        return Text.of(
            "Your MotionBooth files are in {data} now. It already has another backend, so this Blender's "
            "backend is in {home}.",
            data=data,
            home=kept,
        )
    return Text.of(
        "Your MotionBooth files are in {data} now, where they stay when the extension is removed.", data=data
    )


def home_of(data: Path, release: str, new: bool = False) -> Path:
    """The local backend's home: the data folder, or a folder in it if this Blender had another backend before."""
    own = data / f"backend_of_blender_{release}"
    return own if new or own.is_dir() else data


def _is_free(home: Path, data: Path) -> bool:
    """Whether `data` has no other backend than this one, a part of which may have been moved before."""
    marks = [(home / mark, data / mark) for mark in (STORE, Path("keys", "server.secret"))]
    return not any(
        ours.exists() and theirs.exists() and not filecmp.cmp(ours, theirs, shallow=False) for ours, theirs in marks
    )


def _move_home(home: Path, kept: Path) -> None:
    if not home.is_dir():
        return
    kept.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("backend.pid", "connection.json"):  # of a process that has ended
        (home / name).unlink(missing_ok=True)
    # The store makes a folder a backend's home, so it is moved last, after its journals (jobs.sqlite-wal).
    for entry in sorted(home.iterdir(), key=lambda entry: (entry.name.startswith(STORE), entry.name == STORE)):
        _move(entry, kept / entry.name)


def _move_into(folder: Path, target: Path) -> None:
    """Move each entry of a folder into another one."""
    if not folder.is_dir():
        return
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    for entry in folder.iterdir():
        _move(entry, target / entry.name)


def _move(source: Path, target: Path) -> None:
    """Move a file or folder, under another name if the target is another file."""
    if target.is_dir() and source.is_dir():
        _move_into(source, target)
        source.rmdir()
        return
    if target.exists() and target.is_file() and source.is_file() and filecmp.cmp(source, target, shallow=False):
        source.unlink()
        return
    number = 2
    free = target
    while free.exists():
        free, number = target.with_name(f"{target.stem}_{number}{target.suffix}"), number + 1
    try:
        source.rename(free)
    except OSError:  # on another file system
        if source.is_dir():
            _move_into(source, free)
            source.rmdir()
        else:
            _copy(source, free)
            source.unlink()


def _copy(source: Path, target: Path) -> None:
    part = target.with_name(f".{target.name}.part")
    shutil.copy2(source, part)
    with part.open("rb+") as copied:
        os.fsync(copied.fileno())
    part.replace(target)


def _remove_empty(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # not empty: it has files that are not ours
            os.rmdir(path)
