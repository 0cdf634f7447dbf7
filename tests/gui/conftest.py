"""A desktop Blender in a window, on the screen that there is or on a virtual one. Skipped, saying why, where that is
not to be had. BLENDER names the program; else `blender` on the PATH. GUI_PICTURES names a folder for the pictures,
GUI_CONNECTION the connection file of a backend to take them with, instead of the one that only draws.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from drawing_backend import DRAWING_SERVER, drawing_backend
from this_machine import blender_platform

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
SIZE = ("1600", "900")


@pytest.fixture(scope="session")
def blender() -> str:
    program = os.environ.get("BLENDER") or shutil.which("blender")
    if program is None:
        pytest.skip("no desktop Blender: set BLENDER to its program, or have `blender` on the PATH")
    return program


@pytest.fixture(scope="session")
def display() -> Iterator[str]:
    if "DISPLAY" in os.environ:
        yield os.environ["DISPLAY"]
        return
    if shutil.which("Xvfb") is None:
        pytest.skip("no screen: neither DISPLAY is set nor is Xvfb installed")
    number = f":{random.randrange(100, 1000)}"
    screen = subprocess.Popen(
        ["Xvfb", number, "-screen", "0", f"{SIZE[0]}x{SIZE[1]}x24"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(1)
    yield number
    screen.terminate()
    screen.wait(10)


@pytest.fixture(scope="session")
def environment(blender: str, display: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With a user's folder of the tests' own, and NumPy for a distribution's Blender that comes without."""
    folder = tmp_path_factory.mktemp("user")
    environment = {
        **os.environ,
        "DISPLAY": display,
        "BLENDER_USER_RESOURCES": str(folder / "resources"),
        "XDG_DATA_HOME": str(folder / "data"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # where `motionbooth` is found
        "BLENDER_BINDS": os.environ.get("BLENDER_BINDS", sys.base_prefix),  # what a Blender in a container has to see
    }
    asked = subprocess.run(
        [blender, "--background", "--factory-startup", "--python-expr", ASK], capture_output=True, text=True, cwd=ROOT,
        env=environment, timeout=120, check=True,
    )  # fmt: skip
    answer = next(line for line in asked.stdout.splitlines() if line.startswith("python "))
    _, version, has_numpy = answer.split()
    if has_numpy == "no":
        platform = ["--platform=manylinux_2_28_x86_64", "--platform=manylinux2014_x86_64"]
        install = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--only-binary=:all:",
            f"--python-version={version}",
        ]
        subprocess.run([*install, *platform, f"--target={folder / 'python'}", "numpy>=1.26"], check=True)
        environment["PYTHONPATH"] = str(folder / "python")
    return environment


ASK = (
    "import sys, importlib.util as u;"
    "print('python', '%d.%d' % sys.version_info[:2], 'yes' if u.find_spec('numpy') else 'no')"
)


@pytest.fixture(scope="session")
def extension_zip() -> Path:
    """For this machine's platform."""
    code = "import build, pathlib, sys; print(build.build(sys.argv[1], pathlib.Path(sys.argv[2])))"
    command = [sys.executable, "-c", code, blender_platform(), str(ROOT / "dist")]
    built = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT / "blender_addon")
    return Path(built.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="session")
def connection_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of a backend whose model only draws."""
    with drawing_backend(tmp_path_factory.mktemp("drawing") / "home") as file:
        yield file


@pytest.fixture
def act(
    blender: str, environment: dict[str, str], extension_zip: Path, connection_file: Path, tmp_path: Path
) -> Callable[[str], dict[str, Any]]:
    """Have a scenario of this folder acted out in a window; what was seen."""

    def act(scenario: str) -> dict[str, Any]:
        connection = os.environ.get("GUI_CONNECTION", connection_file)
        wheel = tmp_path / "motionbooth-0-py3-none-any.whl"
        wheel.write_bytes(b"")  # of an installation that is canceled before it is opened
        task = {"zip": str(extension_zip), "connection": str(connection), "drawing_backend": program(tmp_path)}
        task["wheel"] = str(wheel)
        (tmp_path / "task.json").write_text(json.dumps(task))
        command = [blender, "--factory-startup", "--enable-event-simulate", "--python-use-system-env"]
        window = ["--window-geometry", "0", "0", *SIZE]
        script = ["--python", str(HERE / scenario), "--", str(tmp_path)]
        done = subprocess.run(
            [*command, *window, *script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
        )
        _keep_pictures(tmp_path)
        assert (tmp_path / "seen.json").exists(), done.stdout + done.stderr
        seen = json.loads((tmp_path / "seen.json").read_text())
        assert "error" not in seen, seen["error"] + done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr, "a panel or handler failed: " + done.stdout + done.stderr
        return seen

    return act


def program(folder: Path) -> str:
    """Of a backend that draws, as Blender starts its local one: PROGRAM serve --home HOME."""
    file = folder / "drawing_motionbooth"  # beside the .blend, `motionbooth` is the folder of clips
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{DRAWING_SERVER}" "$3"\n')
    file.chmod(0o755)
    return str(file)


def _keep_pictures(folder: Path) -> None:
    if "GUI_PICTURES" in os.environ:
        kept = Path(os.environ["GUI_PICTURES"])
        kept.mkdir(parents=True, exist_ok=True)
        for picture in folder.glob("*.png"):
            shutil.copy(picture, kept)
