from __future__ import annotations

import stat
from pathlib import Path

import pytest
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.errors import InvalidInput, NotFound
from refused import refused

CONNECTION = Connection("tcp://127.0.0.1:5599", "a" * 40, "b" * 40, "c" * 40)


def test_a_connection_file_is_read_as_written_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "connection.json"
    CONNECTION.write(path)
    assert Connection.read(path) == CONNECTION
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["connection.json"]


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with refused(NotFound, path=str(tmp_path / "connection.json")):
        Connection.read(tmp_path / "connection.json")


@pytest.mark.parametrize("data", [b"", b"{", b"{}", b'{"address": 5}', b"\x00\xff", b'{"address": "\xff"}'])
def test_a_corrupt_file_is_reported_with_a_sentence(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "connection.json").write_bytes(data)
    with refused(InvalidInput, path=str(tmp_path / "connection.json")):
        Connection.read(tmp_path / "connection.json")
