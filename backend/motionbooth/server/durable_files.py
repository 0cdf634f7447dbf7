"""What the blob store asks of the disk: that files are there, after a power cut too, and whose they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from motionbooth_protocol.errors import OutOfSpace, is_disk_full


@contextmanager
def space_checked() -> Iterator[None]:
    """Raises OutOfSpace if the block finds the disk full."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise OutOfSpace(
            "The backend's disk is full: free some space there and send again; the bytes received so far are kept."
        ) from error


def sync(file: Path) -> None:
    """Wait until the file is on the disk, and make it private."""
    file.chmod(0o600)
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def give_to_owner_of(folder: Path, path: Path) -> None:
    """If we are root: the folder may be that of workers with a user of their own, who must read what is in it."""
    if os.name == "posix" and os.geteuid() == 0:
        owner = folder.stat()
        if path.stat().st_uid != owner.st_uid:
            os.chown(path, owner.st_uid, owner.st_gid)


def sync_folder(folder: Path) -> None:
    """Wait until the names of the files in the folder are on the disk."""
    if os.name == "nt":  # Windows cannot open a folder, and needs no sync
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
