"""Checks of the backend's folder: readable secrets, a corrupt store, and corrupt, missing or orphaned files."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from motionbooth_protocol.errors import Conflict, MotionBoothError

from motionbooth.doctor.finding import Finding, State
from motionbooth.server.blobs import Blobs
from motionbooth.server.keys import is_key
from motionbooth.server.store import Store

_FIX = "run this command again with --fix"


def examine_folder(home: Path, fix: bool) -> Iterator[Finding]:
    """All checks of the folder `home`. `fix`: repair what can be repaired without losing anything."""
    if home.exists() and not home.is_dir():
        yield Finding("folder", "fault", f"{home} is a file", "name the folder of a backend")
        return
    if not home.is_dir():
        yield Finding("folder", "warning", f"{home} does not exist", "motionbooth serve creates it at its first start")
        return
    yield from _secrets(home, fix)
    yield from _authorized(home)
    if not (home / "jobs.sqlite").exists():
        yield Finding("store", "ok", "no jobs yet")
        return
    try:
        store = Store(home / "jobs.sqlite")
    except Conflict:
        yield Finding("store", "ok", "a backend is running on it", "stop it to check store and files")
        return
    except MotionBoothError as error:
        yield Finding("store", "fault", str(error))
        return
    try:
        if faults := store.database.integrity_faults():  # it cannot be trusted to know who owns which file
            advice = "restore jobs.sqlite from a copy, or move it away"
            yield Finding("store", "fault", "; ".join(faults[:3]), advice)
            return
        counts = ", ".join(f"{count} {state}" for state, count in sorted(store.queries.counts().items()))
        yield Finding("store", "ok", f"sound; jobs: {counts or 'none'}")
        yield from _files(home, store, fix)
        yield from _scratch(home, store, fix)
    except MotionBoothError as error:
        yield Finding("store", "fault", str(error))
    finally:
        store.close()


def _secrets(home: Path, fix: bool) -> Iterator[Finding]:
    """Files that only their owner may read. Not on Windows, whose permissions are different."""
    if os.name == "nt":
        return
    secrets = [*(home / "keys").glob("*.secret"), home / "connection.json", *home.glob("jobs.sqlite*"), home]
    readable = [path for path in secrets if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    if not readable:
        yield Finding("secrets", "ok", "readable by their owner only")
        return
    names = ", ".join(str(path.relative_to(home.parent)) for path in readable)
    if fix:
        for path in readable:
            path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)
        yield Finding(
            "secrets", "fixed", f"others could read {names}", "if other people use this machine, make new keys"
        )
    else:
        yield Finding("secrets", "fault", f"others can read {names}", _FIX)


def _authorized(home: Path) -> Iterator[Finding]:
    files = sorted((home / "authorized").glob("*.pub"))
    words = {path.stem: path.read_text("ascii", errors="replace").split() for path in files}
    corrupt = [name for name, found in words.items() if not found or not is_key(found[0])]
    if corrupt:
        advice = "authorize those users again, or delete the files"
        yield Finding("keys", "warning", f"no valid keys in the files of {', '.join(corrupt)}", advice)
    else:
        yield Finding("keys", "ok", f"{len(words)} authorized: {', '.join(words) or 'none'}")


def _files(home: Path, store: Store, fix: bool) -> Iterator[Finding]:
    blobs = Blobs(home)
    found = {path.name: path for path in (home / "blobs").glob("??/*") if path.is_file()}
    corrupt = [sha256 for sha256, path in found.items() if _sha256(path) != sha256]
    if corrupt and fix:
        (home / "corrupt").mkdir(exist_ok=True)
        for sha256 in corrupt:
            found.pop(sha256).replace(home / "corrupt" / sha256)
    advice = "upload or generate them again; the old ones are in the folder corrupt" if fix else _FIX
    if corrupt:
        yield Finding("files", "fixed" if fix else "fault", f"{len(corrupt)} corrupt", advice)
    else:
        size = sum(path.stat().st_size for path in found.values())
        yield Finding("files", "ok", f"{len(found)} with the right sha256, {size / 1e9:.2f} GB")
    yield from _missing(store, set(found))
    orphans = [sha256 for sha256 in found if not store.ownership.is_owned(sha256) and sha256 not in corrupt]
    if orphans and fix:
        for sha256 in orphans:
            blobs.remove(sha256)
    if orphans:
        state: State = "fixed" if fix else "warning"
        yield Finding("files", state, f"{len(orphans)} without an owner", "" if fix else _FIX)


def _missing(store: Store, found: set[str]) -> Iterator[Finding]:
    needed = store.database.rows(
        "SELECT DISTINCT id, sha256 FROM inputs JOIN jobs ON number = job WHERE state IN ('queued', 'running')"
    )
    waiting = sorted({job for job, sha256 in needed if sha256 not in found})
    if waiting:
        advice = "cancel these jobs, and submit them again from Blender"
        yield Finding("jobs", "fault", f"files are missing for {', '.join(waiting[:5])}", advice)
    results = store.database.rows("SELECT DISTINCT id, sha256 FROM results JOIN jobs ON number = job")
    lost = sorted({job for job, sha256 in results if sha256 not in found})
    if lost:
        advice = "generate those again that were not downloaded yet"
        yield Finding("jobs", "warning", f"results are missing for {len(lost)}, e.g. {', '.join(lost[:3])}", advice)


def _scratch(home: Path, store: Store, fix: bool) -> Iterator[Finding]:
    unfinished = {
        str(number) for (number,) in store.database.rows("SELECT number FROM jobs WHERE state IN ('queued', 'running')")
    }
    stale = [path for path in (home / "scratch").glob("*") if path.name not in unfinished]
    if not stale:
        return
    if fix:
        for path in stale:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    state: State = "fixed" if fix else "warning"
    yield Finding("scratch", state, f"unfinished files of {len(stale)} ended jobs", "" if fix else _FIX)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
