"""Wrong input on the command line gives a message and an exit status, never a traceback."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer
from motionbooth.cli.app import app
from motionbooth_protocol.errors import Conflict, OutOfSpace, Unreachable
from PIL import Image
from refused import refused_by_command
from rich.text import Text as RichText
from typer.testing import CliRunner

PUBLIC = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a file, a folder and invalid scripts."""
    (tmp_path / "file").write_text("not a data folder")
    (tmp_path / "folder").mkdir()
    (tmp_path / "far.json").write_text('{"prompt": "a dog", "camera_speed": [1e308, 0]}')
    (tmp_path / "nameless.json").write_text('{"prompt": "a dog", "phrases": [""], "bbox": [[[0, 0, 1, 1]]]}')
    (tmp_path / "s.json").write_text('{"prompt": "a dog"}')
    (tmp_path / "short.json").write_text('{"prompt": "a dog", "phrases": ["a dog"], "bbox": [[[0, 0, 1]]]}')
    (tmp_path / "pictures").mkdir()
    Image.new("RGBA", (64, 64), (200, 0, 0, 255)).save(tmp_path / "pictures" / "a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


NEW_KEY = ["keys", "new", "ann", "--address", "tcp://box:5599", "--server", PUBLIC, "--out"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["keys", "list", "--home", "file"], "'file' is a file"),
        (["doctor", "--home", "file"], "'file' is a file"),
        (["keys", "list", "--home", "typo"], "There is no backend in typo"),
        (["keys", "revoke", "ann", "--home", "typo"], "There is no backend in typo"),
        (["status", "--connection", "typo.json"], "no connection file at typo.json"),
        ([*NEW_KEY, "file/c.json"], "file cannot be used"),
        ([*NEW_KEY, "folder"], "is a directory"),
        (["keys", "new", "../ann", *NEW_KEY[3:], "c.json"], "A name starts with a letter or digit"),
        (["keys", "new", "ann", "--address", "box", *NEW_KEY[5:], "c.json"], "tcp://render-box:5599"),
        ([*NEW_KEY, "ann.pub"], "ann.pub is the file of the public key"),
        (["keys", "add", "ann", "--address", "tcp://box:99999", "--out", "c.json", "--home", "h"], "up to 65535"),
        (["keys", "authorize", "folder", "--home", "h"], "folder cannot be used"),
        (["status", "--connection", "file"], "cannot be read"),
        (["serve", "--home", "h", "--web-port", "99999"], "65535"),
        (["serve", "--home", "h", "--quota-gb", "inf"], "1000000"),
        (["doctor", "--home", "h", "--address", "tcp://127.0.0.1:99999"], "up to 65535"),
        (["generate", "far.json", "--out", "c.mp4"], "far.json cannot be used"),
        (["generate", "nameless.json", "--out", "c.mp4"], "nameless.json cannot be used"),
        (["generate", "s.json", "--out", "folder"], "is a directory"),
        (["generate", "s.json", "--out", "c.avi"], "must end in .mp4"),
        (["generate", "s.json", "--out", "c.mp4", "--seed", "9" * 30], "2147483647"),
        (["train", "folder", "--class", "dog", "--out", "folder"], "is a directory"),
        (["train", "folder", "--class", "dog", "--out", "x.safetensors", "--method", "half"], "'lora', 'full'"),
        (["train", "folder", "--class", "dog", "--out", "x.safetensors", "--steps", "9" * 30], "10000"),
        (["train", "folder", "--class", " ", "--out", "x.safetensors"], "'--class'"),
        (["train", "folder", "--class", "42", "--out", "x.safetensors"], 'toy car, not "42".'),
        (["train", "folder", "--class", "dog; cat", "--out", "x.safetensors"], "'--class'"),
        (["train", "folder", "--class", "dog", "--token", "a b", "--out", "x.safetensors"], "'--token'"),
        (["train", "folder", "--class", "dog", "--token", "", "--out", "x.safetensors"], "'--token'"),
        (
            ["train", "pictures", "--class", "dog", "--learning-rate", "0", "--out", "x.safetensors"],
            "--learning-rate must",
        ),
        (["train", "pictures", "--class", "dog", "--model", "", "--out", "x.safetensors"], "--model is empty"),
        (["train", "pictures", "--class", "dog", "--model", "typo", "--out", "x.safetensors"], 'no base model "typo"'),
        (["generate", "s.json", "--out", "c.mp4", "--model", "typo"], 'no base model "typo"'),
        (["generate", "short.json", "--out", "c.mp4"], "bbox[0][0] must have 4 entries"),
        (["generate", "typo.json", "--out", "c.mp4"], "typo.json cannot be used: No such file"),
        (["demo", "--out", "file"], "check the path and its permissions"),
        (["bench", "scheduler", "--folder", "nowhere"], "does not exist"),
        (["bench", "control", "--json", "folder"], "is a directory"),
    ],
)
def test_wrong_input_is_reported_in_a_message(folder: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
    assert result.exit_code == 2, result.output
    assert message in result.output
    assert not any(sign in result.output for sign in ("Traceback", "$.", "`str`", "Errno"))
    assert not [path for path in folder.iterdir() if path.name.startswith("typo")], (
        "a command that only reads creates nothing"
    )
    assert isinstance(result.exception, SystemExit)


def test_a_full_disk_is_reported_and_is_not_wrong_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "c.json")

    monkeypatch.setattr("motionbooth_protocol.connection.os.open", full)
    refused_by_command([*NEW_KEY, "c.json"], OutOfSpace, path="c.json")


def test_a_key_that_is_in_use_is_never_overwritten(folder: Path) -> None:
    assert CliRunner().invoke(app, [*NEW_KEY, "c.json"]).exit_code == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert "ann.pub" in before
    refused_by_command([*NEW_KEY, "c.json"], Conflict, file=...)
    add = ["keys", "add", "bob", "--address", "tcp://box:5599", "--home", "h", "--out", "c.json"]
    refused_by_command(add, Conflict, file="c.json")
    assert "bob" not in CliRunner().invoke(app, ["keys", "list", "--home", "h"]).output
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_no_key_is_authorized_if_its_connection_file_could_not_be_written(folder: Path) -> None:
    add = ["keys", "add", "bob", "--address", "tcp://box:5599", "--home", "h", "--out"]
    assert CliRunner().invoke(app, [*add, "file/bob.json"]).exit_code == 2
    assert "bob" not in CliRunner().invoke(app, ["keys", "list", "--home", "h"]).output
    assert CliRunner().invoke(app, [*add, "bob.json"]).exit_code == 0


def test_a_backend_that_is_not_running_is_not_wrong_input(folder: Path) -> None:
    for command in ("status", "jobs"):
        refused_by_command([command, "--home", "folder"], Unreachable, path=...)
    assert list((folder / "folder").iterdir()) == []


def _commands(command: click.Command, name: str = "motionbooth") -> Iterator[tuple[str, click.Command]]:
    yield name, command
    for part, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, f"{name} {part}")


def test_no_help_text_loses_words_in_brackets() -> None:
    """Typer takes [words] for the markup of rich, which it does not show."""
    texts = [
        (name, text)
        for name, command in _commands(typer.main.get_command(app))
        for text in (command.help, *(getattr(option, "help", "") for option in command.params))
        if text
    ]
    assert len(texts) > 50
    for name, text in texts:
        assert RichText.from_markup(text).plain == text.replace("\\[", "["), name
