"""The machine: what it computes on, its memory, disk, port and models."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from motionbooth_protocol.connection import host_and_port
from motionbooth_protocol.errors import MotionBoothError

from motionbooth.doctor.finding import Finding
from motionbooth.models.sources import models_folder, sources
from motionbooth.server.devices import nvidia_gpus

_GB = 1e9
_LITTLE_MEMORY = 8 * _GB
_LITTLE_DISK, _NO_DISK = 10 * _GB, 1 * _GB
_FILES_WANTED = 1024  # open at once: a few hundred clients, and what a worker loads


def examine_machine(home: Path, address: str) -> Iterator[Finding]:
    """`address` is where the backend listens or shall listen, as `motionbooth serve` takes it."""
    yield from _gpus()
    yield from _memory()
    yield from _disk(home)
    yield from _open_files()
    yield from _port(home, address)
    yield from _models()


def _gpus() -> Iterator[Finding]:
    gpus = nvidia_gpus()
    if not gpus:
        yield Finding("GPU", "warning", "none that we know of: the CPU computes, slowly for film models")
        return
    import torch

    names = ", ".join(title for _, _, title in gpus)
    if torch.cuda.is_available():
        yield Finding("GPU", "ok", names)
    else:
        advice = "install the PyTorch build for this driver: https://pytorch.org/get-started/locally"
        yield Finding("GPU", "fault", f"{names}, but PyTorch {torch.__version__} cannot use it", advice)


def _memory() -> Iterator[Finding]:
    if not hasattr(os, "sysconf"):  # Windows
        return
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if total < _LITTLE_MEMORY:
        yield Finding("memory", "warning", f"{total / _GB:.1f} GB", "film models want 16 GB or more")
    else:
        yield Finding("memory", "ok", f"{total / _GB:.1f} GB")


def _disk(home: Path) -> Iterator[Finding]:
    there = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(there).free
    seen = f"{free / _GB:.1f} GB free at {home}"
    advice = "free some space, or serve with --keep-days or --quota-gb"
    if free < _NO_DISK:
        yield Finding("disk", "fault", seen, advice)
    elif free < _LITTLE_DISK:
        yield Finding("disk", "warning", seen, advice)
    else:
        yield Finding("disk", "ok", seen)


def _open_files() -> Iterator[Finding]:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)  # the server raises its own to this one
    if limit != resource.RLIM_INFINITY and limit < _FILES_WANTED:
        advice = f"ulimit -Hn {_FILES_WANTED}, or LimitNOFILE={_FILES_WANTED} in its unit, for many clients"
        yield Finding("open files", "warning", f"at most {limit}", advice)
    else:
        yield Finding("open files", "ok", "enough")


def _port(home: Path, address: str) -> Iterator[Finding]:
    if (home / "connection.json").exists():
        yield Finding("port", "ok", "a backend of this folder listens, or was killed")
        return
    host, port = host_and_port(address)
    if port == "*":
        return
    try:
        with socket.create_server((host.strip("[]") if host != "*" else "", int(port))):
            yield Finding("port", "ok", f"{address} is free")
    except OSError as error:
        advice = "stop the other program, or serve with another --address"
        yield Finding("port", "fault", f"{address} cannot be had ({error.strerror})", advice)


def _models() -> Iterator[Finding]:
    found, spoilt = [], []
    for source in sources().values():
        try:
            found.append(source.info.name)
        except MotionBoothError as error:
            spoilt.append(str(error))
    for sentence in spoilt:
        yield Finding("models", "fault", sentence)
    advice = "" if len(found) > 1 else f"film models go into {models_folder()}"
    yield Finding("models", "ok" if found else "fault", ", ".join(found) or "none", advice)
