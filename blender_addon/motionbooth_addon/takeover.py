"""Moves what earlier versions kept in the extension's own folder, which Blender deletes with the extension. No bpy.

Every file is at its old place or whole at its new one at any moment, so that a takeover which was cut short goes on
with the next start. Nothing that is there already is replaced.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

_STORE = "jobs.sqlite"  # makes a folder a backend's home; moved last, so that a home is never half there
_OWN = ("clips", "connections", "jobs", "keys", "trained", "training")


def take_over(old: Path, data: Path, release: str) -> str | None:
    """Move what is in `old` into `data`, see user_data.py; what was done, as a sentence, or None.

    `release`: of this Blender, "5.0". Raises OSError; called again, it goes on.
    """
    if not old.is_dir() or not any(old.iterdir()):
        return None
    own = data / "blender"
    own.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in _OWN:
        _move_into(old / name, own / name)
    for record in (own / "jobs").glob("*.json"):
        _rewrite(record, old, own)
    home = old / "backend"
    if in_use(home):
        return (
            f"The local backend of an earlier version still runs in {home}; stop it and start Blender again, and its "
            f"jobs and subjects are moved to {data}."
        )
    kept = data if _is_free(home, data) else home_of(data, release, new=True)
    _move_home(home, kept)
    _remove_empty(old)
    if kept != data and kept.is_dir():
        return f"Your MotionBooth files are in {data} now. It has another backend already, so this one's is {kept}."
    return f"Your MotionBooth files are in {data} now, where they stay when the extension is removed."


def home_of(data: Path, release: str, new: bool = False) -> Path:
    """The local backend's home: that of the backend's commands; one beside it where this Blender had its own."""
    own = data / f"backend_of_blender_{release}"
    return own if new or own.is_dir() else data


def in_use(home: Path) -> bool:
    """Whether a backend runs on this home, whoever started it: it locks its store."""
    store = home / _STORE
    if not store.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=rw", uri=True, timeout=0)) as database:
            database.execute("SELECT 1 FROM sqlite_master").fetchone()  # and what a killed one left is written home
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    except sqlite3.Error:  # damaged: its doctor's business
        return False
    return False


def _is_free(home: Path, data: Path) -> bool:
    """Whether `data` is no backend's home, or this one's, of which a part was moved before."""
    marks = [(home / mark, data / mark) for mark in (_STORE, Path("keys", "server.secret"))]
    return not any(
        ours.exists() and theirs.exists() and not filecmp.cmp(ours, theirs, shallow=False) for ours, theirs in marks
    )


def _move_home(home: Path, kept: Path) -> None:
    if not home.is_dir():
        return
    kept.mkdir(parents=True, exist_ok=True, mode=0o700)
    for gone in ("backend.pid", "connection.json"):  # of a process that has ended
        (home / gone).unlink(missing_ok=True)
    for entry in sorted(home.iterdir(), key=lambda entry: entry.name.startswith(_STORE)):
        if entry.name != _STORE:
            _move(entry, kept / entry.name)
    if (home / _STORE).exists():
        _move(home / _STORE, kept / _STORE)


def _move_into(folder: Path, target: Path) -> None:
    """Each entry of a folder into another one."""
    if not folder.is_dir():
        return
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    for entry in folder.iterdir():
        _move(entry, target / entry.name)


def _move(source: Path, target: Path) -> None:
    """Whole or not at all; beside what is there already, unless that is the same."""
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


def _rewrite(record: Path, old: Path, new: Path) -> None:
    """A job's file, with the paths in it that have moved."""
    with suppress(ValueError):
        before = json.loads(record.read_bytes())
        after = _moved(before, str(old), str(new))
        if after != before:
            part = record.with_suffix(".part")
            part.write_text(json.dumps(after), encoding="utf-8")
            part.replace(record)


def _moved(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {key: _moved(inner, old, new) for key, inner in value.items()}
    if isinstance(value, list):
        return [_moved(inner, old, new) for inner in value]
    if isinstance(value, str) and value.startswith(old + os.sep):
        return new + value[len(old) :]
    return value


def _remove_empty(folder: Path) -> None:
    for path, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # not empty: something of nobody knows whom
            os.rmdir(path)
