"""The demo's own backend. The demo as a whole: tests/end_to_end/test_demo.py."""

from __future__ import annotations

from pathlib import Path

from motionbooth.demo import local_backend
from motionbooth_protocol.client import Client
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.errors import Unreachable
from refused import refused


def test_a_second_demo_in_the_same_folder_says_so_and_leaves_the_first_alone(tmp_path: Path) -> None:
    (tmp_path / "connection.json").write_text("of a backend that was killed")
    with local_backend(tmp_path) as connection_file:
        with refused(Unreachable, reason=..., log=...), local_backend(tmp_path):
            pass
        with Client(Connection.read(connection_file)) as client:
            assert client.ping() < 5
