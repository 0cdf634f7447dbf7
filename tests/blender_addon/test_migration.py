"""The user's files are in the user's data folder, and the files of earlier versions are moved there."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath

import platformdirs.macos
import platformdirs.unix
import platformdirs.windows
import pytest
from motionbooth.cli.home import DEFAULT_HOME
from motionbooth_addon import migration, user_data
from motionbooth_addon.local_backend.process import is_home_in_use
from motionbooth_addon.migration import home_of, migrate
from running_backend import RunningBackend


def test_the_extension_and_the_backends_commands_use_the_same_folder() -> None:
    assert user_data.data_folder() == DEFAULT_HOME


@pytest.mark.parametrize("xdg", [None, "", "relative", "/data"])
def test_the_data_folder_of_every_system_is_that_of_platformdirs(
    xdg: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if xdg is None:
        monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_DATA_HOME", xdg)
    for system, dirs in {"linux": platformdirs.unix.Unix, "darwin": platformdirs.macos.MacOS}.items():
        expected = PurePosixPath(dirs("motionbooth").user_data_dir)
        assert PurePosixPath(user_data._user_data_folder(system, os.environ)) == expected
    monkeypatch.setenv("WIN_PD_OVERRIDE_LOCAL_APPDATA", r"C:\Users\Ann\AppData\Local")
    ours = user_data._user_data_folder("win32", {"LOCALAPPDATA": r"C:\Users\Ann\AppData\Local"})
    theirs = platformdirs.windows.Windows("motionbooth").user_data_dir
    assert str(ours).replace("/", "\\") == theirs.replace("/", "\\")


def fill(old: Path) -> dict[str, bytes]:
    """Create the files of an earlier version; returns their content by the paths that they must have in the end."""
    content = {
        "clips/Hop_12345678.mp4": b"clip",
        "keys/own.secret": b"own",
        "connections/box.json": b"{}",
        "jobs/a.json": b"a job",
        "training/x/o.blend": b"blend",
        "trained/sha.png": b"png",
        "backend/keys/server.secret": b"server",
        "backend/blobs/ab/abcd": b"subject",
        "backend/logs/server.log": b"log",
    }
    for name, data in content.items():
        (old / name).parent.mkdir(parents=True, exist_ok=True)
        (old / name).write_bytes(data)
    with sqlite3.connect(old / "backend" / "jobs.sqlite") as database:
        database.execute("CREATE TABLE jobs (name)")
        database.execute("INSERT INTO jobs VALUES ('kept')")
    database.close()
    return {
        name.removeprefix("backend/") if name.startswith("backend/") else f"blender/{name}": data
        for name, data in content.items()
    }


def check(data: Path, expected: dict[str, bytes], old: Path) -> None:
    for name, content in expected.items():
        assert (data / name).read_bytes() == content, name
    database = sqlite3.connect(data / "jobs.sqlite")
    assert database.execute("SELECT name FROM jobs").fetchall() == [("kept",)]
    database.close()
    assert not old.exists()
    assert not list(data.rglob("*.part"))


def test_everything_is_moved_once_and_reported(tmp_path: Path) -> None:
    old, data = tmp_path / "an old" / "motionbooth", tmp_path / "data"
    expected = fill(old)
    said = migrate(old, data, "5.0")
    assert said is not None
    assert said.values["data"] == str(data)
    check(data, expected, old)
    assert home_of(data, "5.0") == data
    assert migrate(old, data, "5.0") is None, "nothing to say a second time"


# Dies at its N-th system call that changes a file.
DIE = """
import os, sys
from pathlib import Path
sys.path[:0] = sys.argv[5:]
from motionbooth_addon import migration
left = int(sys.argv[3])
def counted(call):
    def act(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return call(*arguments, **options)
    return act
def far(*_):
    raise OSError(18, "on another file system")
Path.rename = far if sys.argv[4] == "far" else counted(Path.rename)
for owner, name in ((Path, "replace"), (Path, "unlink"), (Path, "rmdir"), (migration.shutil, "copy2")):
    setattr(owner, name, counted(getattr(owner, name)))
migration.migrate(Path(sys.argv[1]), Path(sys.argv[2]), "5.0")
"""


@pytest.mark.parametrize("where", ["near", "far"])
def test_a_migration_that_dies_anywhere_is_resumed_by_the_next_start(where: str, tmp_path: Path) -> None:
    old, data = tmp_path / "old", tmp_path / "data"
    expected = fill(old)
    paths = [entry for entry in sys.path if entry]
    for starts in range(200):  # each dies a little later than the one before
        command = [sys.executable, "-S", "-c", DIE, str(old), str(data), str(1 + starts % 7), where, *paths]
        status = subprocess.run(command, timeout=60).returncode
        if status == 0:
            break
        assert status == 9
    assert starts > 1, "it has died on the way"
    check(data, expected, old)


def test_a_second_backend_is_kept_and_used_by_its_own_blender(tmp_path: Path) -> None:
    data = tmp_path / "data"
    fill(tmp_path / "first")
    migrate(tmp_path / "first", data, "4.5")
    fill(tmp_path / "second")
    (tmp_path / "second" / "backend" / "keys" / "server.secret").write_bytes(b"another")
    (tmp_path / "second" / "keys" / "own.secret").write_bytes(b"another own")
    said = migrate(tmp_path / "second", data, "5.0")
    assert home_of(data, "4.5") == data
    own = home_of(data, "5.0")
    assert own != data
    assert said is not None
    assert said.values["home"] == str(own)
    assert (own / "keys" / "server.secret").read_bytes() == b"another"
    assert (own / "blobs" / "ab" / "abcd").read_bytes() == b"subject"
    assert (data / "keys" / "server.secret").read_bytes() == b"server"
    assert (data / "blender" / "keys" / "own.secret").read_bytes() == b"own", "nothing is replaced"
    assert (data / "blender" / "keys" / "own_2.secret").read_bytes() == b"another own"


def test_a_running_backend_is_moved_after_it_has_ended(tmp_path: Path) -> None:
    old, data = tmp_path / "old", tmp_path / "data"
    backend = RunningBackend(old / "backend").start()
    try:
        assert is_home_in_use(old / "backend")
        said = migrate(old, data, "5.0")
        assert said is not None
        assert "still running" in said.template
        with backend.client() as client:
            assert client.jobs() == []
    finally:
        backend.end()
    assert not is_home_in_use(old / "backend")
    public = (old / "backend" / "keys" / "server.secret").read_bytes()
    migrate(old, data, "5.0")
    assert (data / "keys" / "server.secret").read_bytes() == public
    moved = RunningBackend(data).start()
    with moved.client() as client:
        assert client.jobs() == []
    moved.end()


def test_a_killed_backend_is_moved_with_its_journal(tmp_path: Path) -> None:
    old, data = tmp_path / "old", tmp_path / "data"
    backend = RunningBackend(old / "backend").start()
    backend.kill()
    assert (old / "backend" / "jobs.sqlite-wal").exists(), "there is something that is not in the store yet"
    deadline = time.monotonic() + 10
    while is_home_in_use(old / "backend") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert migration.migrate(old, data, "5.0")
    moved = RunningBackend(data).start()
    with moved.client() as client:
        assert client.jobs() == []
    moved.end()
