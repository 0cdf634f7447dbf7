"""A server's options in motionbooth.toml: read by the real command, printed by it, refused in one sentence."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from motionbooth.cli.app import app
from motionbooth.cli.config import toml_value
from motionbooth_protocol.connection import Connection
from running_backend import free_port, wait_until
from typer.testing import CliRunner


def print_config(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["serve", *map(str, arguments), "--print-config"])
    assert result.exit_code == 0, result.output
    return result.output


@contextmanager
def served(home: Path, *arguments: str) -> Iterator[Connection]:
    """The connection to a real server of this home."""
    command = [sys.executable, "-m", "motionbooth.cli", "serve", "--home", str(home), *arguments]
    with (home / "printed.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_until((home / "connection.json").exists)
            yield Connection.read(home / "connection.json")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def test_a_server_uses_the_file_in_its_home_and_the_command_line_wins(tmp_path: Path) -> None:
    home, port, other = tmp_path / "a home", free_port(), free_port()
    home.mkdir()
    (home / "motionbooth.toml").write_text(f'address = "tcp://127.0.0.1:{port}"\nlog_format = "json"\nworkers = 1\n')
    with served(home, "--address", f"tcp://127.0.0.1:{other}") as connection:
        assert connection.address == f"tcp://127.0.0.1:{other}"
        log = home / "logs" / "server.log"
        wait_until(lambda: log.read_text().endswith("\n"))
        assert all(json.loads(line) for line in log.read_text().splitlines())


def test_the_printed_file_is_every_option_with_its_value_and_gives_itself_again(tmp_path: Path) -> None:
    text = print_config("--home", tmp_path, "--keep-days", "60", "--no-sandbox", "--quota-gb", "0.5")
    values = tomllib.loads(text)
    assert (values["home"], values["keep_days"], values["sandbox"]) == (str(tmp_path), 60, False)
    assert "# Number of workers (default: one per GPU). A whole number, at least 1.\n# workers =\n" in text
    assert '# Log file format. One of "json", "text".\nlog_format = "text"\n' in text
    options = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "300"}).output
    names = {line.split()[1].removeprefix("--") for line in options.splitlines() if line.startswith("│ --")}
    own = names - {"help", "config", "print-config"}
    assert len(own) > 10
    assert all(f"\n{name} =" in text.replace("# ", "") for name in (each.replace("-", "_") for each in own))
    (tmp_path / "motionbooth.toml").write_text(text, encoding="utf-8")
    assert print_config("--home", tmp_path) == text
    assert "keep_days = 7.0\n" in print_config("--home", tmp_path, "--keep-days", "7")


def test_a_named_file_comes_before_the_one_in_the_home_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "motionbooth.toml").write_text("keep_days = 1")
    (tmp_path / "studio.toml").write_text('home = "home"\nkeep_days = 2')
    values = tomllib.loads(print_config("--config", tmp_path / "studio.toml"))
    assert (values["home"], values["keep_days"]) == (str(tmp_path / "home"), 2)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("keep-days = 3", '"keep-days" in {file} is no setting of motionbooth serve. Did you mean "keep_days"?'),
        ('secret = "x"', '"secret" in {file} is no setting of motionbooth serve. Its settings are: address, '),
        ('workers = "2"', '"workers" in {file} is "2", but must be a whole number, at least 1.'),
        ("workers = 0", '"workers" in {file} is 0, but must be a whole number, at least 1.'),
        ("workers = true", '"workers" in {file} is true, but must be a whole number, at least 1.'),
        ("keep_days = nan", '"keep_days" in {file} is nan, but must be a number, at least 0.'),
        ("metrics_port = 70000", "but must be a whole number, at least 1, at most 65535."),
        ("sandbox = 'yes'", '"sandbox" in {file} is "yes", but must be true or false.'),
        ("log_format = 'xml'", '"log_format" in {file} is "xml", but must be one of "json", "text".'),
        ("address = 5599", '"address" in {file} is 5599, but must be text in quotes.'),
        ("[workers]\ncount = 2", '"workers" in {file} is a table, but must be a whole number'),
        ("keep_days 3", "{file} is not in TOML: Expected '=' after a key"),
    ],
)
def test_a_wrong_file_is_one_sentence_and_no_server_starts(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "motionbooth.toml"
    file.write_text(content)
    result = CliRunner().invoke(app, ["serve", "--home", str(tmp_path)])
    assert result.exit_code == 2
    assert sentence.format(file=file) in result.output
    assert "Traceback" not in result.output
    assert CliRunner().invoke(app, ["serve", "--home", str(tmp_path), "--help"]).exit_code == 0


def test_a_file_of_windows_editor_is_read(tmp_path: Path) -> None:
    (tmp_path / "motionbooth.toml").write_text("keep_days = 3\n", encoding="utf-8-sig")
    assert "keep_days = 3.0" in print_config("--home", tmp_path)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"address = '\xe9'")
    faults = ("typo.toml", "No such file"), ("latin.toml", "it is not text in UTF-8"), (".", "cannot be used")
    for name, sentence in faults:
        result = CliRunner().invoke(app, ["serve", "--config", str(tmp_path / name)], env={"COLUMNS": "300"})
        assert result.exit_code == 2
        assert sentence in result.output


_texts = st.text(st.characters(exclude_categories=["Cs"]))
_values = _texts | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.lists(_texts)


@given(_values)
def test_every_value_is_read_as_it_was_written(value: object) -> None:
    assert tomllib.loads(f"key = {toml_value(value)}")["key"] == value
