"""The blob store: files named by their sha256, with resumable uploads, and without incomplete files in sight."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

from motionbooth_protocol.errors import (
    Busy,
    Damaged,
    InvalidInput,
    MotionBoothError,
    NoSession,
    NotFound,
    OutOfSpace,
    OverLimit,
)
from motionbooth_protocol.limits import MAX_BLOB_BYTES

from motionbooth.server.durable_files import give_to_owner_of, space_checked, sync, sync_folder
from motionbooth.server.hashing import Hashed, Hashing, Version, hash_stored

log = logging.getLogger("motionbooth.blobs")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OPEN_UPLOADS = 1024
_OPEN_DOWNLOADS = 64
_SECONDS_SOUND = 600.0  # after which a file that is used again is verified again
_MOST_SOUND = 10_000  # files
_MAX_INCOMPLETE = 256  # uploads of one owner


@dataclass
class _Upload:
    """An upload in progress. Its state can be restored from its file."""

    path: Path
    size: int
    offset: int
    digest: Any


@dataclass
class _Download:
    """A complete file that is being fetched."""

    file: FileIO
    size: int


class Blobs:
    """The blob store in the folder `home`: complete files in `blobs/ab/abcd...`, incomplete uploads in `incoming/`.

    A complete file is verified when it is used. One whose bytes have changed is moved to `corrupt/` and counts as
    missing, so that an upload or a job makes it again. `tick` must be called often.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._hashing = Hashing()
        self._sound: OrderedDict[str, tuple[Version, float]] = OrderedDict()  # verified files, and when
        self._uploads: OrderedDict[tuple[str, str], _Upload] = OrderedDict()
        self._downloads: OrderedDict[str, _Download] = OrderedDict()
        self._incomplete: dict[Path, tuple[int, float]] = {}  # uploads: size, and the time since when

    def close(self) -> None:
        """Close all files."""
        self._hashing.close()
        while self._downloads:
            self._downloads.popitem()[1].file.close()

    def tick(self) -> None:
        """Take over what was found in the background."""
        self._hashing.collect()

    def path(self, sha256: str) -> Path:
        """The complete file. Raises NotFound."""
        path = self._path(sha256)
        if not path.is_file():
            raise self._not_found(sha256)
        return path

    def sound_path(self, sha256: str) -> Path:
        """The complete file, verified now. Changes nothing, as a worker may only read. Raises NotFound."""
        path = self.path(sha256)
        if hash_stored(path).digest.hexdigest() != sha256:
            raise _damaged(sha256)
        return path

    def verify_again(self, owner: str, sha256: str) -> None:
        """Begin to verify the file if it is here, however lately that was done."""
        self._sound.pop(sha256, None)
        self.verify(owner, sha256)

    def is_sound(self, owner: str, sha256: str) -> bool:
        """Whether the file is here and was verified lately. Raises Busy while that is being found out."""
        self.verify(owner, sha256)
        if self.has(sha256) and not self._is_verified(sha256):
            raise _checking(sha256)
        return self.has(sha256)

    def verify(self, owner: str, sha256: str) -> None:
        """Begin to verify the file if it is here, unless that was done lately."""
        self.tick()
        if self.has(sha256) and not self._is_verified(sha256):
            self._hashing.start(owner, self.path(sha256), partial(self._checked, sha256))

    def damaged(self) -> list[str]:
        """The files that were moved to `corrupt/`, and not made again since."""
        folder = self._home / "corrupt"
        return [path.name for path in folder.iterdir()] if folder.is_dir() else []

    def has(self, sha256: str) -> bool:
        return self._path(sha256).is_file()

    def size(self, sha256: str) -> int:
        """The size of a complete file in bytes. Raises NotFound."""
        return self.path(sha256).stat().st_size

    def incoming(self, owner: str, excluding: str = "") -> int:
        """Bytes of the owner's incomplete uploads, except of the file `excluding`."""
        folder = self._incoming(owner)
        paths = folder.iterdir() if folder.is_dir() else ()
        return sum(path.stat().st_size for path in paths if path.stem != excluding)

    def remove(self, sha256: str) -> None:
        """Remove a file, if there is one."""
        if sha256 in self._downloads:
            self._downloads.pop(sha256).file.close()
        self._path(sha256).unlink(missing_ok=True)
        self._corrupt(sha256).unlink(missing_ok=True)

    def remove_stale_uploads(self, seconds: float) -> int:
        """Remove the incomplete uploads that have not grown for `seconds`, as seen by this method; returns how many."""
        now, incomplete = time.monotonic(), {}
        for path in (self._home / "incoming").glob("*/*"):
            size = path.stat().st_size
            known, since = self._incomplete.get(path, (size, now))
            incomplete[path] = (size, since if size == known else now)
        stale = [path for path, (_, since) in incomplete.items() if now - since > seconds]
        for path in stale:
            path.unlink()
            del incomplete[path]
        self._uploads = OrderedDict((key, one) for key, one in self._uploads.items() if one.path not in stale)
        self._incomplete = incomplete
        return len(stale)

    def read(self, owner: str, sha256: str, offset: int, length: int) -> tuple[bytes, bool]:
        """The bytes at `offset` (fewer at the end of the file), and whether the file ends with them.

        The file is verified meanwhile, as the reader must do, too.
        """
        download = self._downloads.get(sha256)
        if download is None:
            self.verify(owner, sha256)
            download = self._open_for_reading(sha256)
        self._downloads.move_to_end(sha256)
        download.file.seek(offset)
        data, eof = download.file.read(length), offset + length >= download.size
        if eof:  # the download is most likely complete
            self._downloads.pop(sha256).file.close()
        return data, eof

    def begin(self, owner: str, sha256: str, size: int) -> int:
        """Announce an upload. Returns how many bytes the store has already: `size` if the file is complete.

        Raises Busy while the bytes are verified or hashed that the store has.
        """
        if self.is_sound(owner, sha256):
            return size
        if size > MAX_BLOB_BYTES:
            raise InvalidInput(
                "A file can have at most {most} bytes; this one has {size}.", most=MAX_BLOB_BYTES, size=size
            )
        upload = self._known(owner, sha256, size) or self._open(owner, sha256, size)
        return self._publish(owner, upload, sha256) if upload.offset == size else upload.offset

    def append(self, owner: str, sha256: str, offset: int, data: bytes) -> int:
        """Append a chunk; returns the number of bytes now. A chunk at another offset than the end is ignored.

        Raises Damaged if the complete file has another sha256, OutOfSpace, and NoSession before `begin`.
        """
        upload = self._uploads.get((owner, sha256))
        if upload is None:
            if self.has(sha256):
                return self.path(sha256).stat().st_size
            raise NoSession(
                "The upload of {sha256}... was not announced since the backend started.", sha256=sha256[:12]
            )
        self._uploads.move_to_end((owner, sha256))
        if offset != upload.offset:
            return upload.offset
        if upload.offset + len(data) > upload.size:
            raise InvalidInput(
                "The upload of {sha256}... is longer than the {size} bytes announced.",
                sha256=sha256[:12],
                size=upload.size,
            )
        self._write(upload, data)
        return self._publish(owner, upload, sha256) if upload.offset == upload.size else upload.offset

    def take(self, file: Path, sha256: str) -> bool:
        """Move a worker's file into the store. Returns whether the store has it, from now or before.

        Anything but a file is removed: by a link, a worker could reach what it cannot read. The file may have other
        bytes, as any file of the store may; they are found when it is used. Raises OutOfSpace, and leaves the file.
        """
        if not self.has(sha256):
            taken = self._home / "incoming" / "result"  # where the worker cannot exchange it any more
            try:
                with space_checked():
                    taken.parent.mkdir(exist_ok=True)
                    taken.touch()  # which no folder can replace
                    file.replace(taken)
                    if not stat.S_ISREG(taken.lstat().st_mode):
                        raise OSError("it is not a file")
                    self._move_in(taken, sha256)
            except OutOfSpace:
                if not file.exists():
                    taken.replace(file)
                raise
            except OSError as error:
                log.warning("the result %s cannot be taken: %s", file, error)
            taken.unlink(missing_ok=True)
        return self.has(sha256)

    def _path(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise InvalidInput(
                "A file is named by its sha256, 64 hexadecimal digits; got {sha256}.", sha256=repr(sha256)
            )
        return self._home / "blobs" / sha256[:2] / sha256

    def _corrupt(self, sha256: str) -> Path:
        return self._home / "corrupt" / sha256

    def _not_found(self, sha256: str) -> MotionBoothError:
        if self._corrupt(sha256).exists():
            return _damaged(sha256)
        return NotFound("The backend has no file {sha256}...; upload it first.", sha256=sha256[:12])

    def _is_verified(self, sha256: str) -> bool:
        version, at = self._sound.get(sha256, (None, 0.0))
        return time.monotonic() - at < _SECONDS_SOUND and version == Version.of(self.path(sha256).stat())

    def _checked(self, sha256: str, found: Hashed) -> None:
        """Remember a sound file; set a damaged one aside, unless it was replaced meanwhile."""
        if found.digest.hexdigest() == sha256:
            self._remember(sha256, found.version)
            return
        with suppress(FileNotFoundError):
            path = self._path(sha256)
            if Version.of(path.stat()) != found.version:
                return
            log.error("the file %s is damaged and is moved to the folder corrupt", sha256)
            if sha256 in self._downloads:
                self._downloads.pop(sha256).file.close()
            self._corrupt(sha256).parent.mkdir(exist_ok=True)
            path.replace(self._corrupt(sha256))

    def _remember(self, sha256: str, sound: Version) -> None:
        self._sound[sha256] = (sound, time.monotonic())
        self._sound.move_to_end(sha256)
        if len(self._sound) > _MOST_SOUND:
            self._sound.popitem(last=False)

    def _incoming(self, owner: str) -> Path:
        """Each owner has a folder, so that no one can corrupt another's upload."""
        return self._home / "incoming" / hashlib.sha256(owner.encode()).hexdigest()[:16]

    def _open_for_reading(self, sha256: str) -> _Download:
        path = self.path(sha256)
        download = self._downloads[sha256] = _Download(path.open("rb", buffering=0), path.stat().st_size)
        if len(self._downloads) > _OPEN_DOWNLOADS:
            self._downloads.popitem(last=False)[1].file.close()
        return download

    def _known(self, owner: str, sha256: str, size: int) -> _Upload | None:
        """The upload that is in memory, if its file is as it was left."""
        upload = self._uploads.get((owner, sha256))
        if upload is None or upload.size != size or not upload.path.exists():
            return None
        return upload if upload.path.stat().st_size == upload.offset else None

    def _open(self, owner: str, sha256: str, size: int) -> _Upload:
        """The upload of which only the file is known. Raises Busy while that is hashed."""
        folder = self._incoming(owner)
        path = folder / f"{sha256}.{size}"
        if not path.exists() and folder.is_dir() and len(os.listdir(folder)) >= _MAX_INCOMPLETE:
            raise OverLimit(
                "You have {count} incomplete uploads, which is the limit. Complete some; one that does not progress "
                "is removed after a day.",
                count=_MAX_INCOMPLETE,
            )
        with space_checked():
            folder.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
        self._hashing.start(owner, path, partial(self._resume, owner, sha256, size, path))
        upload = self._known(owner, sha256, size)
        if upload is None:
            raise _checking(sha256)
        return upload

    def _resume(self, owner: str, sha256: str, size: int, path: Path, found: Hashed) -> None:
        self._uploads[owner, sha256] = _Upload(path, size, found.size, found.digest)
        if len(self._uploads) > _OPEN_UPLOADS:
            self._uploads.popitem(last=False)

    def _write(self, upload: _Upload, data: bytes) -> None:
        with upload.path.open("r+b", buffering=0) as file:
            file.seek(upload.offset)
            try:
                with space_checked():
                    left = memoryview(data)
                    while left:
                        left = left[file.write(left) :]
            except OutOfSpace:
                file.truncate(upload.offset)
                raise
        upload.offset += len(data)
        upload.digest.update(data)

    def _publish(self, owner: str, upload: _Upload, sha256: str) -> int:
        del self._uploads[owner, sha256]
        if upload.digest.hexdigest() != sha256:
            upload.path.unlink(missing_ok=True)
            raise Damaged(
                "The bytes received are not the file {sha256}...; it may have changed during the upload. Send it "
                "again.",
                sha256=sha256[:12],
            )
        self._move_in(upload.path, sha256)
        self._remember(sha256, Version.of(self.path(sha256).stat()))
        return upload.size

    def _move_in(self, file: Path, sha256: str) -> None:
        """Sync before renaming: after a power cut the file is complete or absent."""
        path = self._path(sha256)
        with space_checked():
            path.parent.mkdir(parents=True, exist_ok=True)
            sync(file)
            for one in (path.parent, file):
                give_to_owner_of(self._home / "blobs", one)
            self.publish(file, path)
            sync_folder(path.parent)
        self._corrupt(sha256).unlink(missing_ok=True)

    def publish(self, file: Path, path: Path) -> None:
        """Make a complete file visible, by renaming it."""
        file.replace(path)


def _damaged(sha256: str) -> NotFound:
    return NotFound(
        "The backend's file {sha256}... was damaged on its disk and is set aside. Upload it again, or run its "
        "job again.",
        code="damaged",
        sha256=sha256[:12],
    )


def _checking(sha256: str) -> Busy:
    return Busy(
        "The backend is still checking the bytes that it has of the file {sha256}...; try again in a moment.",
        sha256=sha256[:12],
    )
