"""The user's files are in the user's data folder, which the extension and the backend's commands share."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

import platformdirs.macos
import platformdirs.unix
import platformdirs.windows
import pytest
from motionbooth.cli.home import DEFAULT_HOME
from motionbooth_addon import user_data


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
