from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from motionbooth.server.blobs import Blobs
from motionbooth_protocol.errors import Busy, Damaged, InvalidInput, NoSession, NotFound, OutOfSpace
from motionbooth_protocol.jobs import Blob
from refused import refused
from running_backend import stored, wait_until

Answer = TypeVar("Answer")

DATA = os.urandom(700_000)
SHA = hashlib.sha256(DATA).hexdigest()
SIZE = len(DATA)
CHUNK = 256 << 10


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[Blobs]:
    blobs = Blobs(tmp_path)
    yield blobs
    blobs.close()


def visible(home: Path) -> list[str]:
    return [path.name for path in (home / "blobs").rglob("*") if path.is_file()]


def test_a_file_arrives_in_chunks_and_is_visible_only_when_complete(blobs: Blobs, tmp_path: Path) -> None:
    offset = blobs.begin("ann", SHA, SIZE)
    while offset < SIZE:
        assert visible(tmp_path) == []
        assert not blobs.has(SHA)
        offset = blobs.append("ann", SHA, offset, DATA[offset : offset + CHUNK])
    assert visible(tmp_path) == [SHA]
    assert blobs.path(SHA).read_bytes() == DATA
    assert stat.S_IMODE(blobs.path(SHA).stat().st_mode) == 0o600
    assert blobs.begin("bob", SHA, SIZE) == SIZE


def test_an_upload_is_resumed_after_a_restart(blobs: Blobs, tmp_path: Path) -> None:
    blobs.begin("ann", SHA, SIZE)
    blobs.append("ann", SHA, 0, DATA[:CHUNK])
    again = Blobs(tmp_path)
    assert again.begin("ann", SHA, SIZE) == CHUNK
    assert again.append("ann", SHA, CHUNK, DATA[CHUNK:]) == SIZE
    assert again.path(SHA).read_bytes() == DATA


def test_a_chunk_at_the_wrong_offset_is_ignored_and_the_right_offset_returned(blobs: Blobs) -> None:
    blobs.begin("ann", SHA, SIZE)
    assert blobs.append("ann", SHA, CHUNK, DATA[CHUNK : 2 * CHUNK]) == 0
    assert blobs.append("ann", SHA, 0, DATA[:CHUNK]) == CHUNK
    assert blobs.append("ann", SHA, 0, DATA[:CHUNK]) == CHUNK


def test_wrong_bytes_are_discarded_and_can_be_sent_again(blobs: Blobs, tmp_path: Path) -> None:
    blobs.begin("ann", SHA, SIZE)
    with pytest.raises(Damaged):
        blobs.append("ann", SHA, 0, bytes(SIZE))
    assert visible(tmp_path) == []
    assert blobs.begin("ann", SHA, SIZE) == 0
    assert blobs.append("ann", SHA, 0, DATA) == SIZE


def test_an_incomplete_file_that_a_power_cut_corrupted_is_detected(blobs: Blobs, tmp_path: Path) -> None:
    blobs.begin("ann", SHA, SIZE)
    blobs.append("ann", SHA, 0, DATA[:CHUNK])
    (half,) = (path for path in (tmp_path / "incoming").rglob("*") if path.is_file())
    half.write_bytes(bytes(CHUNK))
    again = Blobs(tmp_path)
    assert again.begin("ann", SHA, SIZE) == CHUNK
    with pytest.raises(Damaged):
        again.append("ann", SHA, CHUNK, DATA[CHUNK:])
    assert visible(tmp_path) == []


def test_no_owner_can_corrupt_the_upload_of_another(blobs: Blobs) -> None:
    blobs.begin("ann", SHA, SIZE)
    blobs.append("ann", SHA, 0, DATA[:CHUNK])
    assert blobs.begin("eve", SHA, SIZE) == 0
    blobs.append("eve", SHA, 0, bytes(CHUNK))
    assert blobs.append("ann", SHA, CHUNK, DATA[CHUNK:]) == SIZE


def test_more_bytes_than_announced_are_refused(blobs: Blobs) -> None:
    blobs.begin("ann", SHA, 100)
    with refused(InvalidInput, size=100):
        blobs.append("ann", SHA, 0, DATA[:101])


def test_a_chunk_without_an_announcement_is_refused(blobs: Blobs) -> None:
    with pytest.raises(NoSession):
        blobs.append("ann", SHA, 0, DATA)


@pytest.mark.parametrize("name", ["../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n", ""])
def test_a_name_that_is_not_a_sha256_reaches_no_file(blobs: Blobs, name: str) -> None:
    for look in (blobs.path, blobs.has, lambda sha: blobs.begin("ann", sha, 1)):
        with refused(InvalidInput, sha256=...):
            look(name)


def test_chunks_are_read_from_any_offset_and_the_end_is_reported(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "result").write_bytes(DATA)
    assert stored(blobs, tmp_path / "result") == Blob("clip", SHA, SIZE)
    assert not (tmp_path / "result").exists()
    assert blobs.read("ann", SHA, 0, CHUNK) == (DATA[:CHUNK], False)
    assert blobs.read("ann", SHA, SIZE - 10, CHUNK) == (DATA[-10:], True)
    assert blobs.read("ann", SHA, SIZE + 10, CHUNK) == (b"", True)
    with pytest.raises(NotFound):
        blobs.read("ann", "0" * 64, 0, CHUNK)


def test_a_worker_offers_a_file_and_nothing_else_is_taken(blobs: Blobs, tmp_path: Path) -> None:
    """A link, a folder and a pipe are refused; what a link leads to stays where it is, as it is."""
    secret, offered = tmp_path / "secret", tmp_path / "offered"
    secret.write_bytes(DATA)
    secret.chmod(0o640)
    for make in (lambda: offered.symlink_to(secret), offered.mkdir, lambda: os.mkfifo(offered)):
        make()
        assert not blobs.take(offered, SHA)
        assert not list((tmp_path / "incoming").iterdir())
        if offered.is_dir():
            offered.rmdir()
    assert (secret.read_bytes(), stat.S_IMODE(secret.stat().st_mode)) == (DATA, 0o640)
    assert not blobs.take(offered, SHA), "no file"
    secret.replace(offered)
    offered.chmod(0)
    assert blobs.take(offered, SHA)
    assert (blobs.path(SHA).read_bytes(), offered.exists()) == (DATA, False)
    assert blobs.take(offered, SHA), "it was taken before"


def test_a_result_that_finds_the_disk_full_is_taken_when_there_is_space(tmp_path: Path) -> None:
    class Disk(Blobs):
        is_full = True

        def publish(self, file: Path, path: Path) -> None:
            if self.is_full:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().publish(file, path)

    disk, offered = Disk(tmp_path), tmp_path / "offered"
    offered.write_bytes(DATA)
    for _ in range(2):
        with pytest.raises(OutOfSpace):
            disk.take(offered, SHA)
    disk.is_full = False
    assert disk.take(offered, SHA)
    assert disk.path(SHA).read_bytes() == DATA


def test_an_empty_file_is_a_file(blobs: Blobs) -> None:
    sha256 = hashlib.sha256().hexdigest()
    assert blobs.begin("ann", sha256, 0) == 0
    assert blobs.path(sha256).read_bytes() == b""


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def until_known(ask: Callable[[], Answer]) -> Answer:
    """The answer, asked for until the files it depends on are hashed."""
    answers: list[Answer] = []

    def known() -> bool:
        with contextlib.suppress(Busy):
            answers.append(ask())
        return bool(answers)

    wait_until(known)
    return answers[0]


@pytest.mark.parametrize("size", [1000, 3 << 20], ids=["small", "large"])
def test_a_damaged_file_is_set_aside_when_it_is_used_and_an_upload_replaces_it(
    blobs: Blobs, tmp_path: Path, size: int
) -> None:
    data = os.urandom(size)
    (tmp_path / "made").write_bytes(data)
    sha256 = stored(blobs, tmp_path / "made").sha256
    assert until_known(lambda: blobs.is_sound("ann", sha256))
    flip_a_bit(blobs.path(sha256))
    assert until_known(lambda: blobs.begin("bob", sha256, size)) == 0
    assert blobs.damaged() == [sha256]
    with refused(NotFound, code="damaged", sha256=sha256[:12]):
        blobs.read("ann", sha256, 0, CHUNK)
    for offset in range(0, size, CHUNK):
        blobs.append("bob", sha256, offset, data[offset : offset + CHUNK])
    assert blobs.sound_path(sha256).read_bytes() == data
    assert blobs.damaged() == []


@pytest.mark.parametrize("size", [1000, 3 << 20], ids=["small", "large"])
def test_a_file_that_the_disk_cannot_read_any_more_is_set_aside(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    def fail(path: Path, stop: object = None) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "made").write_bytes(os.urandom(size))
    sha256 = stored(blobs, tmp_path / "made").sha256
    monkeypatch.setattr("motionbooth.server.hashing.hash_file", fail)
    with refused(NotFound, code="damaged", sha256=sha256[:12]):
        blobs.sound_path(sha256)
    assert not until_known(lambda: blobs.is_sound("ann", sha256))
    assert blobs.damaged() == [sha256]


def test_a_download_of_a_damaged_file_ends_when_the_damage_is_found(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(os.urandom(3 << 20))
    sha256 = stored(blobs, tmp_path / "made").sha256
    flip_a_bit(blobs.path(sha256))

    def ends() -> bool:
        blobs.tick()
        try:
            blobs.read("ann", sha256, 0, CHUNK)
        except NotFound as error:
            return error.code == "not_found.damaged"
        return False

    wait_until(ends)


def test_a_worker_does_not_read_a_damaged_file(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(DATA)
    sha256 = stored(blobs, tmp_path / "made").sha256
    assert blobs.sound_path(sha256).read_bytes() == DATA
    flip_a_bit(blobs.path(sha256))
    with refused(NotFound, code="damaged", sha256=sha256[:12]):
        blobs.sound_path(sha256)


def test_an_upload_continues_from_its_running_hash_and_after_a_restart_from_its_file(
    blobs: Blobs, tmp_path: Path
) -> None:
    data = os.urandom(8 * CHUNK)
    sha256 = hashlib.sha256(data).hexdigest()
    blobs.begin("ann", sha256, len(data))
    for offset in range(0, 6 * CHUNK, CHUNK):
        blobs.append("ann", sha256, offset, data[offset : offset + CHUNK])
    assert blobs.begin("ann", sha256, len(data)) == 6 * CHUNK, "at once: nothing is read again"
    again = Blobs(tmp_path)
    with refused(Busy, sha256=sha256[:12]):
        again.begin("ann", sha256, len(data))
    assert until_known(lambda: again.begin("ann", sha256, len(data))) == 6 * CHUNK
    again.append("ann", sha256, 6 * CHUNK, data[6 * CHUNK : 7 * CHUNK])
    assert again.append("ann", sha256, 7 * CHUNK, data[7 * CHUNK :]) == len(data)
    again.close()
