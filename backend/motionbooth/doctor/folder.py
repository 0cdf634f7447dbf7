"""The backend's folder: secrets that others can read, a store that is spoilt, files that are damaged or nobody's."""

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

_FIX = "motionbooth doctor --fix"


def examine_folder(home: Path, fix: bool) -> Iterator[Finding]:
    """Everything under `home`. With `fix`, what can be fixed without losing anything is fixed."""
    if home.exists() and not home.is_dir():
        yield Finding("folder", "fault", f"{home} is a file", "name the folder of a backend")
        return
    if not home.is_dir():
        yield Finding("folder", "warning", f"{home} is not there", "motionbooth serve makes it at its first start")
        return
    yield from _secrets(home, fix)
    yield from _authorized(home)
    if not (home / "jobs.sqlite").exists():
        yield Finding("store", "ok", "no jobs yet")
        return
    try:
        store = Store(home / "jobs.sqlite")
    except Conflict:
        yield Finding("store", "ok", "a backend runs on it", "stop it to have store and files examined")
        return
    except MotionBoothError as error:
        yield Finding("store", "fault", str(error))
        return
    try:
        yield from _store(store)
        yield from _files(home, store, fix)
        yield from _scratch(home, store, fix)
    finally:
        store.close()


def _secrets(home: Path, fix: bool) -> Iterator[Finding]:
    """What only its owner may read. Windows keeps permissions elsewhere."""
    if os.name == "nt":
        return
    secrets = [*(home / "keys").glob("*.secret"), home / "connection.json", *home.glob("jobs.sqlite*"), home]
    open_ones = [path for path in secrets if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    if not open_ones:
        yield Finding("secrets", "ok", "readable by their owner alone")
        return
    names = ", ".join(str(path.relative_to(home.parent)) for path in open_ones)
    if fix:
        for path in open_ones:
            path.chmod(stat.S_IMODE(path.stat().st_mode) & 0o700)
        yield Finding("secrets", "fixed", f"others could read {names}", "if others use this machine: make new keys")
    else:
        yield Finding("secrets", "fault", f"others can read {names}", _FIX)


def _authorized(home: Path) -> Iterator[Finding]:
    files = sorted((home / "authorized").glob("*.pub"))
    words = {path.stem: path.read_text("ascii", errors="replace").split() for path in files}
    spoilt = [name for name, found in words.items() if not found or not is_key(found[0])]
    if spoilt:
        advice = "authorize those people anew, or delete the files"
        yield Finding("keys", "warning", f"no keys in the files of {', '.join(spoilt)}", advice)
    else:
        yield Finding("keys", "ok", f"{len(words)} may enter: {', '.join(words) or 'nobody'}")


def _store(store: Store) -> Iterator[Finding]:
    faults = store.database.faults()
    if faults:
        yield Finding("store", "fault", "; ".join(faults[:3]), "restore jobs.sqlite from a copy, or move it away")
        return
    counts = ", ".join(f"{count} {state}" for state, count in sorted(store.counts().items()))
    yield Finding("store", "ok", f"sound; jobs: {counts or 'none'}")


def _files(home: Path, store: Store, fix: bool) -> Iterator[Finding]:
    blobs = Blobs(home)
    found = {path.name: path for path in (home / "blobs").glob("??/*") if path.is_file()}
    damaged = [sha256 for sha256, path in found.items() if _sha256(path) != sha256]
    if damaged and fix:
        (home / "damaged").mkdir(exist_ok=True)
        for sha256 in damaged:
            found.pop(sha256).replace(home / "damaged" / sha256)
    advice = "send or film those again; what was there is in the folder damaged" if fix else _FIX
    if damaged:
        yield Finding("files", "fixed" if fix else "fault", f"{len(damaged)} damaged", advice)
    else:
        size = sum(path.stat().st_size for path in found.values())
        yield Finding("files", "ok", f"{len(found)} with the right sha256, {size / 1e9:.2f} GB")
    yield from _missing(store, set(found))
    orphans = [sha256 for sha256 in found if not store.holdings.holds(sha256) and sha256 not in damaged]
    if orphans and fix:
        for sha256 in orphans:
            blobs.remove(sha256)
    if orphans:
        state: State = "fixed" if fix else "warning"
        yield Finding("files", state, f"{len(orphans)} that no job and nobody knows of", "" if fix else _FIX)


def _missing(store: Store, found: set[str]) -> Iterator[Finding]:
    needed = store.database.rows(
        "SELECT DISTINCT id, sha256 FROM needs JOIN jobs ON number = job WHERE state IN ('queued', 'running')"
    )
    starving = sorted({job for job, sha256 in needed if sha256 not in found})
    if starving:
        advice = "cancel them, and send them again from Blender"
        yield Finding("jobs", "fault", f"files are missing for {', '.join(starving[:5])}", advice)
    results = store.database.rows("SELECT DISTINCT id, sha256 FROM results JOIN jobs ON number = job")
    lost = sorted({job for job, sha256 in results if sha256 not in found})
    if lost:
        advice = "film them again where they were not fetched yet"
        yield Finding("jobs", "warning", f"results are missing of {len(lost)}, e.g. {', '.join(lost[:3])}", advice)


def _scratch(home: Path, store: Store, fix: bool) -> Iterator[Finding]:
    waiting = {
        str(number) for (number,) in store.database.rows("SELECT number FROM jobs WHERE state IN ('queued', 'running')")
    }
    stale = [path for path in (home / "scratch").glob("*") if path.name not in waiting]
    if not stale:
        return
    if fix:
        for path in stale:
            shutil.rmtree(path)
    state: State = "fixed" if fix else "warning"
    yield Finding("scratch", state, f"half-made files of {len(stale)} ended jobs", "" if fix else _FIX)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
