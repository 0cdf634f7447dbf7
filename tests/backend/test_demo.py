"""The demo's own backend. The demo as a whole: tests/end_to_end/test_demo.py."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
from motionbooth import demo
from motionbooth.demo import local_backend, run_demo
from motionbooth_protocol.client import Client
from motionbooth_protocol.connection import Connection
from motionbooth_protocol.errors import InvalidInput, Unreachable
from refused import refused
from rich.console import Console


def test_a_second_demo_in_the_same_folder_says_so_and_leaves_the_first_alone(tmp_path: Path) -> None:
    (tmp_path / "connection.json").write_text("of a backend that was killed")
    with local_backend(tmp_path) as connection_file:
        with refused(Unreachable, reason=..., log=...), local_backend(tmp_path):
            pass
        with Client(Connection.read(connection_file)) as client:
            assert client.ping() < 5


def test_a_file_with_several_shots_is_refused_with_where_their_clips_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "local_backend", nullcontext)
    monkeypatch.setattr(demo, "generate", lambda *arguments: {"shots": [{}, {}]})
    with refused(InvalidInput, count=2, out=str(tmp_path), scene="two.blend"):
        run_demo(Path("two.blend"), tmp_path, [], Console())
