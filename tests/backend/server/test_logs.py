"""The files of the logs."""

from __future__ import annotations

import errno
import logging
import shutil
from pathlib import Path

import pytest
from motionbooth.server.logs import LogRotation, logging_to, rotate


def test_a_full_disk_loses_no_log_and_stops_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "logs" / "worker.log"
    log.parent.mkdir()
    log.write_bytes(bytes(6 << 20))
    for number in (1, 2, 3):
        log.with_name(f"worker.log.{number}").write_text(str(number))

    def fill(source: Path, target: Path) -> None:
        target.write_bytes(b"a part")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", fill)
    rotation = LogRotation(tmp_path)
    with pytest.raises(OSError, match="No space"):
        rotation.tick()
    assert [log.with_name(f"worker.log.{number}").read_text() for number in (1, 2, 3)] == ["1", "2", "3"]
    assert sorted(path.name for path in log.parent.iterdir()) == ["worker.log", *(f"worker.log.{n}" for n in (1, 2, 3))]
    monkeypatch.undo()
    rotate(log)
    assert log.stat().st_size == 0
    assert [log.with_name(f"worker.log.{number}").stat().st_size for number in (1, 2, 3)] == [6 << 20, 1, 1]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_log_has_every_name_whatever_the_systems_encoding_is(
    tmp_path: Path, log_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not into pytest's own log, which pytest-xdist could not send.
    monkeypatch.setattr(logging.getLogger("motionbooth"), "propagate", False)
    with logging_to(tmp_path / "server.log", log_format):
        logging.getLogger("motionbooth.test").info("subject %s %s", "日本", "\udcff")
    assert "subject 日本 \\udcff" in (tmp_path / "server.log").read_text("utf-8")
