"""Metadata that appears in several places is the same in all of them, and the package's programs work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from motionbooth.cli.app import app
from motionbooth_protocol.limits import PROTOCOL_VERSION
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
MANIFEST = tomllib.loads((ROOT / "blender_addon" / "motionbooth_addon" / "blender_manifest.toml").read_text())
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPLOY = ROOT / "backend" / "deploy"


def test_the_version_comes_from_the_manifest() -> None:
    assert "version" not in PYPROJECT["project"]
    assert version("motionbooth") == MANIFEST["version"]
    assert CliRunner().invoke(app, ["--version"]).output == f"motionbooth {MANIFEST['version']}\n"
    newest = re.search(r"^## (\S+)", (ROOT / "docs" / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == MANIFEST["version"]


def test_the_protocol_version_matches_its_description() -> None:
    description = (ROOT / "shared" / "motionbooth_protocol" / "README.md").read_text()
    assert f"version {PROTOCOL_VERSION}\n" in description


def test_the_projects_address_is_the_same_everywhere() -> None:
    project = PYPROJECT["project"]["urls"]["Homepage"]
    path = project.removeprefix("https://github.com/")
    assert MANIFEST["website"] == project
    assert all(address.startswith(project) for address in PYPROJECT["project"]["urls"].values())
    for rule in PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        assert f"/{path}/" in rule["replacement"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_the_commands(shell: str) -> None:
    environment = {"COMP_WORDS": "motionbooth tr", "COMP_CWORD": "1", "_TYPER_COMPLETE_ARGS": "motionbooth tr"}
    environment |= {"_TYPER_COMPLETE_FISH_ACTION": "get-args", "_MOTIONBOOTH_COMPLETE": f"complete_{shell}"}
    output = CliRunner().invoke(app, [], env=environment, prog_name="motionbooth").output
    assert "train" in output
    assert "serve" not in output


def test_bench_works_without_the_laboratory_and_has_more_commands_with_it() -> None:
    script = "import sys; sys.path = [path for path in sys.path if not path.rstrip('/').endswith('/lab')]\n"
    script += "from motionbooth.cli.app import app; app()"
    shown = {}
    for name, code in {"wheel": script, "checkout": "from motionbooth.cli.app import app; app()"}.items():
        command = [sys.executable, "-c", code, "bench", "--help"]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
        assert done.returncode == 0, done.stderr
        shown[name] = done.stdout
    assert "real-size" in shown["wheel"]
    assert "ablation" not in shown["wheel"]
    assert "ablation" in shown["checkout"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = (DEPLOY / "motionbooth.service").read_text()
    program = re.search(r"^ExecStart=(\S+)", unit, re.MULTILINE)
    assert program is not None
    (tmp_path / "motionbooth.service").write_text(unit.replace(program[1], "/bin/true"))
    checked = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "motionbooth.service")], capture_output=True, text=True
    )
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_unit_and_the_container_use_valid_arguments(tmp_path: Path) -> None:
    unit = (DEPLOY / "motionbooth.service").read_text().replace("\\\n", " ")
    of_unit = re.findall(r"^ExecStart=\S+ (.*)$", unit, re.MULTILINE)[0].split()
    container = re.findall(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)[0]
    program, *of_container = re.findall(r'"([^"]*)"', container)
    assert program == "motionbooth"
    for arguments in (of_unit, of_container):
        # An invalid port: the arguments are accepted up to the address, and nothing is started.
        arguments[arguments.index("--home") + 1] = str(tmp_path / "home")
        command = [sys.executable, "-m", "motionbooth.cli", *arguments, "--address", "tcp://127.0.0.1:99999"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert result.returncode == 2
        assert "up to 65535" in result.stderr
