"""Checks of the machine: GPUs, memory, disk, open files, port and models."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from motionbooth_protocol.connection import host_and_port
from motionbooth_protocol.errors import MotionBoothError

from motionbooth.doctor.finding import Finding
from motionbooth.models.sources import model_folders, models_folder, sources
from motionbooth.server.devices import nvidia_gpus
from motionbooth.server.sandbox import USER, own_user_problem, sandbox_problem

_GB = 1e9
_LITTLE_MEMORY = 8 * _GB
_LITTLE_DISK, _NO_DISK = 10 * _GB, 1 * _GB
_FILES_WANTED = 1024  # for a few hundred clients and the files of a model


def examine_machine(home: Path, address: str) -> Iterator[Finding]:
    """All checks of the machine. `address`: that of the backend, as for `motionbooth serve`."""
    yield from _gpus()
    yield from _memory()
    yield from _disk(home)
    yield from _open_files()
    yield from _port(home, address)
    yield from _models()
    yield from _sandbox()


def _sandbox() -> Iterator[Finding]:
    """Nothing on systems that have none."""
    if sys.platform != "linux":
        return
    if (missing := sandbox_problem()) is not None:
        advice = "without one, workers can do what the backend's user can"
        yield Finding("sandbox", "warning", str(missing), advice)
        return
    found = "workers have no network, and write only their own files"
    if os.geteuid() != 0:
        yield Finding("sandbox", "ok", f"{found}; they read what this user can")
    elif (problem := own_user_problem(model_folders())) is None:
        yield Finding("sandbox", "ok", f"{found}; started as root, they have a user of their own ({USER})")
    else:
        advice = "make it readable for others (chmod -R o+rX), or start the backend as another user than root"
        yield Finding("sandbox", "warning", f"{found}, but read what root can: {problem}", advice)


def _gpus() -> Iterator[Finding]:
    import torch

    from motionbooth.models.memory.device import default_device

    gpus = nvidia_gpus()
    if not gpus:
        kind = default_device()  # ROCm's and Intel's are torch's to find
        if kind == "cpu":
            yield Finding("GPU", "warning", "none found; the CPU is slow for real models")
        else:
            yield Finding("GPU", "ok", torch.get_device_module(kind).get_device_name())
        return
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
        yield Finding("memory", "warning", f"{total / _GB:.1f} GB", "real models need 16 GB or more")
    else:
        yield Finding("memory", "ok", f"{total / _GB:.1f} GB")


def _disk(home: Path) -> Iterator[Finding]:
    existing = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    found = f"{free / _GB:.1f} GB free at {home}"
    advice = "free some space, or serve with --keep-days or --quota-gb"
    if free < _NO_DISK:
        yield Finding("disk", "fault", found, advice)
    elif free < _LITTLE_DISK:
        yield Finding("disk", "warning", found, advice)
    else:
        yield Finding("disk", "ok", found)


def _open_files() -> Iterator[Finding]:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)  # to which the server raises its own
    if limit != resource.RLIM_INFINITY and limit < _FILES_WANTED:
        advice = f"for many clients: ulimit -Hn {_FILES_WANTED}, or LimitNOFILE={_FILES_WANTED} in the systemd unit"
        yield Finding("open files", "warning", f"at most {limit}", advice)
    else:
        yield Finding("open files", "ok", "enough")


def _port(home: Path, address: str) -> Iterator[Finding]:
    if (home / "connection.json").exists():
        yield Finding("port", "ok", "the backend of this folder listens, or was killed")
        return
    host, port = host_and_port(address)
    if port == "*":
        return
    try:
        with socket.create_server((host.strip("[]") if host != "*" else "", int(port))):
            yield Finding("port", "ok", f"{address} is free")
    except OSError as error:
        advice = "stop the other program, or serve with another --address"
        yield Finding("port", "fault", f"{address} cannot be bound ({error.strerror})", advice)


def _models() -> Iterator[Finding]:
    found, faults = [], []
    for source in sources().values():
        try:
            found.append(source.info.name)
        except MotionBoothError as error:
            faults.append(str(error))
    for sentence in faults:
        yield Finding("models", "fault", sentence)
    advice = "" if len(found) > 1 else f"real models go into {models_folder()}"
    yield Finding("models", "ok" if found else "fault", ", ".join(found) or "none", advice)
