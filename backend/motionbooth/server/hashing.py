"""Hashes files in threads, so that the server's loop does not wait for them."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

log = logging.getLogger("motionbooth.blobs")
_THREADS = 2
_READ_BYTES = 1 << 20
_MOST_WAITING = 64  # files of one key
_AT_ONCE_BYTES = 1 << 20  # a file up to this size is hashed at once, which takes about a millisecond


class Version(NamedTuple):
    """Tells the version of a file that was hashed from a later one."""

    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Version:
        return cls(stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


class Hashed(NamedTuple):
    """A file's sha256 object, and how many bytes it has seen of which version."""

    digest: Any
    size: int
    version: Version


Then = Callable[[Hashed], None]


class Hashing:
    """Two threads for all keys, which take turns, so that nobody's files hold up those of others."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="hashing")
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._queues: dict[str, deque[tuple[Path, Then]]] = {}  # by key; each begins with the file that is being hashed
        self._found: queue.SimpleQueue[tuple[Then, Hashed]] = queue.SimpleQueue()

    def start(self, key: str, path: Path, then: Then) -> None:
        """Hash the file, unless that has begun, and let `collect` call `then`; that of a small file is called at once.

        Does nothing if many files of the key wait: call it again later.
        """
        if path.stat().st_size <= _AT_ONCE_BYTES:
            then(hash_stored(path))
            return
        with self._lock:
            waiting = self._queues.get(key)
            if waiting is None:
                self._queues[key] = deque([(path, then)])
                self._pool.submit(self._hash_next, key)
            elif len(waiting) < _MOST_WAITING and all(path != other for other, _ in waiting):
                waiting.append((path, then))

    def collect(self) -> None:
        """Take over the results that are there."""
        with suppress(queue.Empty):
            while True:
                then, hashed = self._found.get_nowait()
                then(hashed)

    def close(self) -> None:
        """Stop hashing."""
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def _hash_next(self, key: str) -> None:
        path, then = self._queues[key][0]
        try:
            hashed = hash_stored(path, self._stop)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):  # removed meanwhile
                log.warning("a file could not be read: %s", error)
        else:
            self._found.put((then, hashed))
        with self._lock:
            self._queues[key].popleft()
            if not self._queues[key]:
                del self._queues[key]
            elif not self._stop.is_set():
                self._pool.submit(self._hash_next, key)


def hash_stored(path: Path, stop: threading.Event | None = None) -> Hashed:
    """As `hash_file`. A file that the disk cannot read any more has the hash of no bytes: it is damaged."""
    try:
        return hash_file(path, stop)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        log.error("the disk cannot read the file %s", path)
        return Hashed(hashlib.sha256(), 0, Version.of(path.stat()))


def hash_file(path: Path, stop: threading.Event | None = None) -> Hashed:
    """Hash the file, as a whole or until `stop` is set."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        version = Version.of(os.fstat(file.fileno()))
        while not (stop and stop.is_set()) and (piece := file.read(_READ_BYTES)):
            digest.update(piece)
            size += len(piece)
    return Hashed(digest, size, version)
