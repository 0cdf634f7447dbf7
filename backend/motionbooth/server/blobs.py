"""The blob store: files named by their sha256, with resumable uploads, and without incomplete files in sight."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from motionbooth_protocol.errors import Damaged, InvalidInput, NoSession, NotFound, OutOfSpace, OverLimit, is_disk_full
from motionbooth_protocol.limits import MAX_BLOB_BYTES

_SHA256 = re.compile(r"[0-9a-f]{64}")
_READ_BYTES = 1 << 20
_OPEN_UPLOADS = 64
_OPEN_DOWNLOADS = 64
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
    """The blob store in the folder `home`: complete files in `blobs/ab/abcd...`, incomplete uploads in `incoming/`."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._uploads: OrderedDict[tuple[str, str], _Upload] = OrderedDict()
        self._downloads: OrderedDict[str, _Download] = OrderedDict()
        self._incomplete: dict[Path, tuple[int, float]] = {}  # uploads: size, and the time since when

    def close(self) -> None:
        """Close all files."""
        while self._downloads:
            self._downloads.popitem()[1].file.close()

    def path(self, sha256: str) -> Path:
        """The complete file. Raises NotFound."""
        path = self._path(sha256)
        if not path.is_file():
            raise NotFound("The backend has no file {sha256}...; upload it first.", sha256=sha256[:12])
        return path

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

    def read(self, sha256: str, offset: int, length: int) -> tuple[bytes, bool]:
        """The bytes at `offset` (fewer at the end of the file), and whether the file ends with them."""
        download = self._downloads.get(sha256) or self._open_for_reading(sha256)
        self._downloads.move_to_end(sha256)
        download.file.seek(offset)
        data, eof = download.file.read(length), offset + length >= download.size
        if eof:  # the download is most likely complete
            self._downloads.pop(sha256).file.close()
        return data, eof

    def begin(self, owner: str, sha256: str, size: int) -> int:
        """Announce an upload. Returns how many bytes the store has already: `size` if the file is complete."""
        if self.has(sha256):
            return size
        if size > MAX_BLOB_BYTES:
            raise InvalidInput(
                "A file can have at most {most} bytes; this one has {size}.", most=MAX_BLOB_BYTES, size=size
            )
        upload = self._open(owner, sha256, size)
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

    def adopt(self, file: Path) -> tuple[str, int]:
        """Move a file of the same disk into the store; returns its sha256 and size."""
        digest, size = hashlib.sha256(), 0
        for piece in _pieces(file):
            digest.update(piece)
            size += len(piece)
        sha256 = digest.hexdigest()
        self._move_in(file, sha256)
        return sha256, size

    def _path(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise InvalidInput(
                "A file is named by its sha256, 64 hexadecimal digits; got {sha256}.", sha256=repr(sha256)
            )
        return self._home / "blobs" / sha256[:2] / sha256

    def _incoming(self, owner: str) -> Path:
        """Each owner has a folder, so that no one can corrupt another's upload."""
        return self._home / "incoming" / hashlib.sha256(owner.encode()).hexdigest()[:16]

    def _open_for_reading(self, sha256: str) -> _Download:
        path = self.path(sha256)
        download = self._downloads[sha256] = _Download(path.open("rb", buffering=0), path.stat().st_size)
        if len(self._downloads) > _OPEN_DOWNLOADS:
            self._downloads.popitem(last=False)[1].file.close()
        return download

    def _open(self, owner: str, sha256: str, size: int) -> _Upload:
        folder = self._incoming(owner)
        path = folder / f"{sha256}.{size}"
        if not path.exists() and folder.is_dir() and len(os.listdir(folder)) >= _MAX_INCOMPLETE:
            raise OverLimit(
                "You have {count} incomplete uploads, which is the limit. Complete some; one that does not progress "
                "is removed after a day.",
                count=_MAX_INCOMPLETE,
            )
        with _space_checked():
            folder.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
        digest, offset = hashlib.sha256(), 0
        for piece in _pieces(path):
            digest.update(piece)
            offset += len(piece)
        upload = self._uploads[owner, sha256] = _Upload(path, size, offset, digest)
        if len(self._uploads) > _OPEN_UPLOADS:
            self._uploads.popitem(last=False)
        return upload

    def _write(self, upload: _Upload, data: bytes) -> None:
        with upload.path.open("r+b", buffering=0) as file:
            file.seek(upload.offset)
            try:
                with _space_checked():
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
        return upload.size

    def _move_in(self, file: Path, sha256: str) -> None:
        """Sync before renaming: after a power cut the file is complete or absent."""
        path = self._path(sha256)
        with _space_checked():
            path.parent.mkdir(parents=True, exist_ok=True)
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
            file.chmod(0o600)
            self.publish(file, path)
            _sync_folder(path.parent)

    def publish(self, file: Path, path: Path) -> None:
        """Make a complete file visible, by renaming it."""
        file.replace(path)


@contextmanager
def _space_checked() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise OutOfSpace(
            "The backend's disk is full: free some space there and send again; the bytes received so far are kept."
        ) from error


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            yield piece


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder, and needs no sync
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
