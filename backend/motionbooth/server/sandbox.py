"""Workers in a sandbox on Linux, made by bubblewrap: no network, and nothing writable but their scratch files."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.text import Text

log = logging.getLogger("motionbooth.sandbox")
USER = 65520  # its id, and that of its group: neither Debian nor systemd gives it to anyone
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
    not the keys, and not the job store. Elsewhere it can read what its user can, except in /tmp and /run, and write
    only the folders `writable`. `readable`: what it needs in /tmp, /run or the backend's folder, besides this Python.
    It sees GPUs and no other devices. It cannot allocate more than twice the machine's memory.

    Its user is that of the backend, or USER if that is root and `own_user_problem` finds none: then the files and
    folders that it sees of the backend, and `writable`, become that user's.
    Raises InvalidInput if bubblewrap does not work here.
    """
    if (problem := sandbox_problem()) is not None:
        raise InvalidInput("The workers cannot run in a sandbox: {problem}.", problem=problem)
    home, readable, blobs = home.resolve(), list(readable), home.resolve() / "blobs"
    written = [home / "scratch", *(path.resolve() for path in writable)]
    for folder in (blobs, *written):
        folder.mkdir(parents=True, exist_ok=True)
    own_user = os.geteuid() == 0 and _give_to_own_user([blobs, *written], readable)
    mounted = {home: "--tmpfs", blobs: "--ro-bind"} | dict.fromkeys(written, "--bind")
    return [*_sandbox(own_user, _needed(readable), mounted), *command]


def sandbox_problem() -> Text | None:
    """Why there can be no sandbox on this machine; None if there can."""
    if sys.platform != "linux":
        return Text("there is none for this system")
    for program, package in _PACKAGES.items():
        if shutil.which(program) is None:
            return Text.of("{package} is not installed (on Debian and Ubuntu: apt install {package})", package=package)
    problem = _failure([*_sandbox(False, [], {}), "true"])
    if problem is None or (os.geteuid() == 0 and _failure([*_sandbox(True, [], {}), "true"]) is None):
        return None
    return Text.of("bubblewrap does not work here ({reason}); the system may forbid user namespaces", reason=problem)


def own_user_problem(readable: Iterable[Path]) -> str | None:
    """Why the workers of a backend that was started as root cannot have a user of their own; None if they can.

    `readable` as in `sandboxed`.
    """
    return _failure([*_sandbox(True, _needed(readable), {}), sys.executable, "-c", _CHECK, *map(str, readable)])


def _give_to_own_user(folders: Iterable[Path], readable: Iterable[Path]) -> bool:
    """Whether workers have a user of their own. If not, the folders must be root's, whose capabilities they lack."""
    try:
        problem = own_user_problem(readable)
        for folder in folders:
            _give(folder, USER if problem is None else 0)
    except OSError as error:  # such as on a network's disk
        problem = str(error)
    if problem is not None:
        log.warning("workers have the user root: %s", problem)
    return problem is None


def _give(folder: Path, user: int) -> None:
    """Make the folder, and all in it, a user's. Safe from a worker that exchanges what is in it meanwhile."""
    for _, folders, files, opened in os.fwalk(folder):
        os.fchown(opened, user, user)
        for name in (*folders, *files):
            with suppress(FileNotFoundError):
                if os.stat(name, dir_fd=opened, follow_symlinks=False).st_uid != user:
                    os.chown(name, user, user, dir_fd=opened, follow_symlinks=False)


def _failure(command: list[str]) -> str | None:
    """What a command says that fails; None if it succeeds."""
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    said = tried.stderr.strip().splitlines() or [f"status {tried.returncode}"]
    return said[-1] if tried.returncode else None


def _needed(readable: Iterable[Path]) -> set[Path]:
    """With this Python; a link by its own path and by the one that it leads to."""
    paths = [Path(path).absolute() for path in (sys.prefix, sys.base_prefix, *sys.path, *map(str, readable))]
    places = {place for path in paths for place in (path.parent.resolve() / path.name, path.resolve())}
    return {place for place in places if place.exists()}


def _sandbox(own_user: bool, needed: Iterable[Path], mounted: Mapping[Path, str]) -> list[str]:
    """All before the command in the sandbox. `mounted`: how paths are mounted there, besides the `needed` ones."""
    hidden = {*_WITH_SOCKETS, *(path for path, how in mounted.items() if how == "--tmpfs")}
    if own_user:
        hidden |= {folder for path in (*needed, *mounted) if (folder := _locked(path)) is not None}
    in_hidden = [path for path in (*needed, *mounted) if any(folder in path.parents for folder in hidden)]
    between = {folder for path in in_hidden for folder in path.parents if any(one in folder.parents for one in hidden)}
    how = dict.fromkeys(between, "--dir") | dict.fromkeys(in_hidden, "--ro-bind") | dict.fromkeys(hidden, "--tmpfs")
    how |= mounted
    arguments: list[str] = []
    for path in sorted(how):  # outer folders first: a later mount hides earlier ones inside it
        source = [str(path)] if "bind" in how[path] else []
        open_to_all = ["--perms", "1777"] if own_user and path in _WITH_SOCKETS else []
        arguments += [*open_to_all, how[path], *source, str(path)]
    own = [*_OWN_USER, "--setenv", "HOME", str(Path.home())] if own_user else _USER_OF_BACKEND
    user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", *gpu_groups(), "--inh-caps=-all"] if own_user else []
    return ["prlimit", f"--data={_most_memory()}", "bwrap", *_ANY_USER, *own, *gpus(), *arguments, "--", *user]


def _locked(path: Path) -> Path | None:
    """The outermost folder above the path into which the workers' own user cannot go."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & stat.S_IXOTH), None)


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
    paths = sorted(str(path) for name in _GPUS for path in devices.glob(name))
    return [word for path in paths for word in ("--dev-bind", path, path)]


def gpu_groups(devices: Path = _DEVICES) -> list[str]:
    """The arguments by which the workers' own user has the groups that may use the GPUs in /dev."""
    paths = (path for name in _GPUS for found in devices.glob(name) for path in (found, *found.glob("*")))
    states = [path.stat() for path in paths]
    groups = {str(state.st_gid) for state in states if stat.S_ISCHR(state.st_mode) and state.st_mode & stat.S_IWGRP}
    groups.discard("0")
    return [f"--groups={','.join(sorted(groups))}"] if groups else ["--clear-groups"]


_ANY_USER = [
    "--cap-drop", "ALL", "--unshare-net", "--unshare-pid", "--unshare-ipc", "--die-with-parent",
    "--setenv", "TMPDIR", "/tmp", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc",
]  # fmt: skip
_USER_OF_BACKEND = ["--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY]
_OWN_USER = [
    "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID",  # until setpriv has used them
    "--perms", "1777", "--tmpfs", "/dev/shm",
    "--setenv", "USER", "motionbooth", "--setenv", "LOGNAME", "motionbooth",  # for programs that ask for its name
]  # fmt: skip
# A Python program: can the user who runs it read these files and folders, and the worker's own code?
_CHECK = """
import os, sys
import motionbooth.server.worker
for top in sys.argv[1:]:
    for path in (top, *(os.path.join(at, name) for at, *names in os.walk(top) for name in sum(names, []))):
        if os.path.exists(path) and not os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)):
            sys.exit(path + " is not readable for others")
"""
