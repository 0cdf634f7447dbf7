from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from motionbooth.server.blobs import Blobs
from motionbooth_protocol.errors import Damaged, InvalidInput, NoSession, NotFound
from refused import refused

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
        with pytest.raises(InvalidInput, match="64 hexadecimal digits"):
            look(name)


def test_chunks_are_read_from_any_offset_and_the_end_is_reported(blobs: Blobs, tmp_path: Path) -> None:
    (tmp_path / "result").write_bytes(DATA)
    assert blobs.adopt(tmp_path / "result") == (SHA, SIZE)
    assert not (tmp_path / "result").exists()
    assert blobs.read(SHA, 0, CHUNK) == (DATA[:CHUNK], False)
    assert blobs.read(SHA, SIZE - 10, CHUNK) == (DATA[-10:], True)
    assert blobs.read(SHA, SIZE + 10, CHUNK) == (b"", True)
    with pytest.raises(NotFound):
        blobs.read("0" * 64, 0, CHUNK)


def test_an_empty_file_is_a_file(blobs: Blobs) -> None:
    sha256 = hashlib.sha256().hexdigest()
    assert blobs.begin("ann", sha256, 0) == 0
    assert blobs.path(sha256).read_bytes() == b""
