"""Uploads and downloads of files, and the quota of each key."""

from __future__ import annotations

from contextlib import suppress

from motionbooth_protocol import messages
from motionbooth_protocol.errors import Malformed, OutOfSpace, OverLimit

from motionbooth.server.blobs import Blobs
from motionbooth.server.disk_space import DiskSpace
from motionbooth.server.file_ownership import FileOwnership
from motionbooth.server.retention import Retention


class Transfers:
    """`quota`: bytes of the files of one owner (a public key); 0: no limit."""

    def __init__(
        self, blobs: Blobs, ownership: FileOwnership, retention: Retention, disk: DiskSpace, quota: int
    ) -> None:
        self._blobs = blobs
        self._ownership = ownership
        self._retention = retention
        self._disk = disk
        self._quota = quota

    def put(self, owner: str, request: messages.Put) -> messages.PutHave:
        if not self._blobs.is_sound(owner, request.sha256):
            counted = self._ownership.owns(owner, request.sha256)  # one that is damaged
            self.check_space(owner, 0 if counted else request.size, request.sha256)
        offset = self._blobs.begin(owner, request.sha256, request.size)
        return self._received(owner, request, offset)

    def put_chunk(self, owner: str, request: messages.PutChunk, payload: bytes | None) -> messages.PutHave:
        if not payload:
            raise Malformed("PutChunk needs its bytes as payload.")
        self._disk.check()
        return self._received(owner, request, self._blobs.append(owner, request.sha256, request.offset, payload))

    def fetch(self, owner: str, request: messages.Fetch) -> tuple[messages.Chunk, bytes]:
        data, eof = self._blobs.read(owner, request.sha256, request.offset, request.length)
        if eof:
            with suppress(OutOfSpace):  # on a full disk, a file can be fetched, too; it counts as not downloaded
                self._ownership.mark_downloaded(owner, request.sha256)
        return messages.Chunk(re=request.id, sha256=request.sha256, offset=request.offset, eof=eof), data

    def check_space(self, owner: str, size: int = 0, sha256: str = "") -> None:
        """Make room for `size` more bytes of the owner, of the file `sha256` or of the spec of a job.

        Raises OutOfSpace while the disk is full, OverLimit above the owner's quota.
        """
        self._disk.check()
        if not self._quota:
            return
        used = self._used(owner, sha256)
        if used + size > self._quota:
            self._retention.make_room(owner, used + size - self._quota)
            used = self._used(owner, sha256)
        if used + size > self._quota:
            raise OverLimit(
                "Your files and jobs on the backend take {used:.2f} GB of your quota of {quota:.2f} GB, and this needs "
                "{size:.2f} GB more. Remove old jobs, or ask the backend's owner for a larger quota.",
                used=used / 1e9,
                quota=self._quota / 1e9,
                size=size / 1e9,
            )

    def _used(self, owner: str, upload: str) -> int:
        """Bytes of the owner's files, specs and incomplete uploads, without this one."""
        return self._ownership.bytes_of(owner) + self._blobs.incoming(owner, excluding=upload)

    def _received(self, owner: str, request: messages.Put | messages.PutChunk, offset: int) -> messages.PutHave:
        """A complete file gets its owner on disk before the reply says so."""
        if self._blobs.has(request.sha256):
            self._ownership.add_upload(owner, request.sha256, self._blobs.size(request.sha256))
        return messages.PutHave(re=request.id, sha256=request.sha256, offset=offset)
