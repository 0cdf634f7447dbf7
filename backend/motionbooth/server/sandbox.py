"""Workers in a sandbox on Linux, made by bubblewrap: no network, and nothing writable but their scratch files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from motionbooth_protocol.errors import InvalidInput

_PACKAGES = {"bwrap": "bubblewrap", "prlimit": "util-linux"}
_SECONDS = 20.0
_DEVICES = Path("/dev")
_GPUS = ("nvidia*", "dri", "kfd", "dxg")
_WITH_SOCKETS = (Path("/run"), Path("/tmp"))  # of other programs, which a read-only mount does not close
_NOBODY = "65534"
# Private memory includes files that are mapped, such as weights, which need not fit into the machine's.
_MEMORIES = 2


def sandboxed(command: list[str], home: Path, readable: Iterable[Path], writable: Iterable[Path]) -> list[str]:
    """The command of a worker, in a sandbox.

    Of the backend's folder it sees the complete files, which it can read, and the scratch folders, which it can write;
    not the keys, and not the job store. Elsewhere it can read what the backend can, except in /tmp and /run, and write
    only the folders `writable`. `readable`: what it needs in /tmp, /run or the backend's folder, besides this Python.
    It sees GPUs and no other devices. It cannot allocate more than twice the machine's memory.
    Raises InvalidInput if bubblewrap does not work here.
    """
    if (problem := sandbox_problem()) is not None:
        raise InvalidInput("The workers cannot run in a sandbox: {problem}.", problem=problem)
    home, writable = home.resolve(), [path.resolve() for path in writable]
    for folder in (home / "blobs", home / "scratch", *writable):
        folder.mkdir(parents=True, exist_ok=True)
    needed = {Path(path).resolve() for path in (sys.prefix, sys.base_prefix, *sys.path, *map(str, readable))}
    return [
        "prlimit", f"--data={_most_memory()}", *_BWRAP, *gpus(),
        *_mounted("--ro-bind", (path for path in needed if _is_in(path, _WITH_SOCKETS))),
        "--tmpfs", str(home),
        *_mounted("--ro-bind", [*(path for path in needed if _is_in(path, [home])), home / "blobs"]),
        *_mounted("--bind", [home / "scratch", *writable]),
        "--", *command,
    ]  # fmt: skip


def sandbox_problem() -> str | None:
    """Why there can be no sandbox on this machine; None if there can."""
    if sys.platform != "linux":
        return "there is none for this system"
    for program, package in _PACKAGES.items():
        if shutil.which(program) is None:
            return f"{package} is not installed (on Debian and Ubuntu: apt install {package})"
    try:
        tried = subprocess.run([*_BWRAP, "--", "true"], capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        return f"bubblewrap cannot be run ({error})"
    if tried.returncode != 0:
        return f"bubblewrap does not work here ({tried.stderr.strip()}); the system may forbid user namespaces"
    return None


def _most_memory() -> int:
    import resource  # Windows has none

    most = _MEMORIES * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    return most if hard == resource.RLIM_INFINITY else min(most, hard)


def gpus(devices: Path = _DEVICES) -> list[str]:
    """The arguments by which a sandbox has the GPUs in /dev."""
    # The driver's setuid program, which makes this device with the first use of CUDA, cannot do it in a sandbox.
    if shutil.which("nvidia-modprobe") and not (devices / "nvidia-uvm").exists():
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["nvidia-modprobe", "-u", "-c", "0"], capture_output=True, timeout=_SECONDS)
    return _mounted("--dev-bind", (path for name in _GPUS for path in devices.glob(name)))


def _is_in(path: Path, folders: Iterable[Path]) -> bool:
    return path.exists() and any(folder in path.parents for folder in folders)


def _mounted(how: str, paths: Iterable[Path]) -> list[str]:
    """Outer folders first: a later mount hides earlier ones inside it."""
    return [word for path in sorted({str(path) for path in paths}) for word in (how, path, path)]


_BWRAP = [
    "bwrap", "--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY, "--cap-drop", "ALL",
    "--unshare-net", "--unshare-pid", "--unshare-ipc", "--die-with-parent",
    "--setenv", "TMPDIR", "/tmp", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc",
    *(word for folder in _WITH_SOCKETS for word in ("--tmpfs", str(folder))),
]  # fmt: skip
