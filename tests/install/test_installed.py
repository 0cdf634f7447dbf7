"""The wheel, built from the sdist and installed in an environment with nothing but its dependencies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.install, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
MANIFEST = tomllib.loads((ROOT / "blender_addon" / "motionbooth_addon" / "blender_manifest.toml").read_text())
VERSION = MANIFEST["version"]
HAS_BPY = sys.version_info[:2] in {(3, 11), (3, 13)}


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("built here") / "dist"
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)], check=True)
    return out


@pytest.fixture(scope="session")
def wheel(dist: Path) -> Path:
    return dist / f"motionbooth-{VERSION}-py3-none-any.whl"


@pytest.fixture(scope="session")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs folder of an environment in which pip installed the wheel."""
    environment = tmp_path_factory.mktemp("installed here") / "an environment"
    venv.create(environment, with_pip=True)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    requirement = f"{wheel}[blender]" if HAS_BPY else str(wheel)
    subprocess.run([environment / "bin" / "python", "-m", "pip", "install", "-q", requirement], env=outside, check=True)
    return environment / "bin"


@pytest.fixture
def away(tmp_path: Path) -> Path:
    (tmp_path / "far away").mkdir()
    return tmp_path / "far away"


def environment(away: Path) -> dict[str, str]:
    return {"HOME": str(away / "home"), "PATH": "/usr/bin:/bin", "COLUMNS": "300"}


def motionbooth(programs: Path, away: Path, *arguments: str, timeout: float = 60) -> str:
    """The output of the command, which must succeed."""
    done = subprocess.run(
        [programs / "motionbooth", *arguments],
        cwd=away,
        env=environment(away),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_sdist_has_the_sources_of_the_wheel_and_the_tests(dist: Path) -> None:
    with tarfile.open(dist / f"motionbooth-{VERSION}.tar.gz") as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    packages = {
        str(file.relative_to(ROOT))
        for folder in ("shared/motionbooth_protocol", "backend/motionbooth", "blender_addon/motionbooth_addon", "tests")
        for file in (ROOT / folder).rglob("*.py")
    }
    assert packages - names == set()
    assert {"Makefile", "LICENSE", "blender_addon/LICENSE", "backend/motionbooth/cli/demo.blend"} <= names


def test_the_wheel_has_both_licenses_and_absolute_links(wheel: Path) -> None:
    info = f"motionbooth-{VERSION}.dist-info"
    with zipfile.ZipFile(wheel) as content:
        metadata = content.read(f"{info}/METADATA").decode()
        for license_file in ("LICENSE", "blender_addon/LICENSE"):
            assert content.read(f"{info}/licenses/{license_file}") == (ROOT / license_file).read_bytes()
    headers, _, readme = metadata.partition("\n\n")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Homepage"]
    assert f"Version: {VERSION}" in headers
    assert f"Project-URL: Homepage, {project}" in headers
    links = [link.partition(")")[0] for link in readme.split("](")[1:]]
    assert len(links) > 10
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_the_wheel_has_no_laboratory(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        names = content.namelist()
    assert "motionbooth/cli/bench.py" in names
    assert [name for name in names if "motionbooth_lab" in name or name.startswith(("lab/", "tests/"))] == []


def test_bench_works_without_the_laboratory(programs: Path, away: Path) -> None:
    shown = motionbooth(programs, away, "bench", "--help")
    assert "real-size" in shown
    assert "ablation" not in shown


def test_it_prints_its_version(programs: Path, away: Path) -> None:
    assert motionbooth(programs, away, "--version") == f"motionbooth {VERSION}\n"


def test_its_dependencies_are_compatible(programs: Path) -> None:
    subprocess.run([programs / "python", "-m", "pip", "check"], check=True)


@pytest.mark.skipif(not HAS_BPY, reason="the demo needs the bpy module, which exists for Python 3.11 and 3.13")
def test_the_demo_runs(programs: Path, away: Path) -> None:
    few_steps = ["--training-steps", "2", "--sampling-steps", "4"]
    output = motionbooth(programs, away, "demo", "--out", "the demo", *few_steps, timeout=900)
    made = {path.name for path in (away / "the demo").iterdir()}
    assert {"clip.mp4", "shot.blend", "report.json", "contact_sheet.png"} <= made, output


def test_a_backend_runs_and_reports_its_status(programs: Path, away: Path) -> None:
    arguments = ["serve", "--home", "a backend", "--address", "tcp://127.0.0.1:*"]
    server = subprocess.Popen([programs / "motionbooth", *arguments], cwd=away, env=environment(away))
    try:
        connection = away / "a backend" / "connection.json"
        deadline = time.monotonic() + 60
        while not connection.exists() and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert f"MotionBooth {VERSION}" in motionbooth(programs, away, "status", "--connection", str(connection))
    finally:
        server.send_signal(signal.SIGINT)
        status = server.wait(30)
    assert status == 0
