"""The zip as a stranger's Blender gets it: built, opened, installed and used in a process that knows nothing else."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest
from this_machine import blender_platform

pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

ROOT = Path(__file__).parents[2]

SCRIPT = Path(__file__).with_name("install_and_generate.py")
# Releases of Blender and the Python that each is made for. Kept between runs, 1 GB each.
RELEASES = [("4.2.23", "3.11"), ("4.5.15", "3.11"), ("5.2.3", "3.13")]
RELEASES_FOLDER = Path(os.environ.get("MOTIONBOOTH_BLENDERS", Path.home() / ".cache" / "motionbooth-blenders"))


@pytest.fixture(scope="module")
def build_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_extension", ROOT / "blender_addon" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def archive(build_module: ModuleType) -> Path:
    return build_module.build(blender_platform(), ROOT / "dist")


def test_the_zip_contains_the_contract_and_the_wheels_for_each_python(archive: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        names = set(content.namelist())
    contract = {f"_protocol/{file.name}" for file in (ROOT / "shared" / "motionbooth_protocol").glob("*.py")}
    assert {"__init__.py", "blender_manifest.toml", "registration.py", "capture/reader.py", *contract} <= names
    wheels = sorted(name.removeprefix("wheels/").split("-")[0::2][:2] for name in names if name.endswith(".whl"))
    assert wheels == [["msgspec", "cp311"], ["msgspec", "cp313"], ["pyzmq", "cp311"], ["pyzmq", "cp313"]]
    assert not [name for name in names if "__pycache__" in name or name.endswith(".blend")]


TAGS = {
    "linux-x64": ("manylinux", "x86_64"),
    "macos-x64": ("macosx", "x86_64", "universal2"),
    "macos-arm64": ("macosx", "arm64", "universal2"),
    "windows-x64": ("win", "amd64"),
}


@pytest.mark.parametrize("platform", TAGS)
def test_each_platform_gets_its_own_wheels(platform: str, build_module: ModuleType) -> None:
    system, *processors = TAGS[platform]
    with zipfile.ZipFile(build_module.build(platform, ROOT / "dist")) as content:
        wheels = [name for name in content.namelist() if name.endswith(".whl")]
        manifest = tomllib.loads(content.read("blender_manifest.toml").decode())
    assert len(wheels) == 4
    assert all(system in wheel and any(name in wheel for name in processors) for wheel in wheels)
    assert manifest["platforms"] == [platform]
    assert sorted(manifest["wheels"]) == sorted(f"./{wheel}" for wheel in wheels)


def test_the_zip_contains_both_licenses_and_the_maintainer(archive: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        assert content.read("LICENSE") == (ROOT / "blender_addon" / "LICENSE").read_bytes()
        assert content.read("_protocol/LICENSE") == (ROOT / "LICENSE").read_bytes()
        manifest = tomllib.loads(content.read("blender_manifest.toml").decode())
    assert manifest["license"] == ["SPDX:GPL-3.0-or-later", "SPDX:Apache-2.0"]
    assert manifest["copyright"]


def as_version(archive: Path, version: str, folder: Path) -> Path:
    """The same extension under another version, as an earlier or later build would be."""
    now = tomllib.loads((ROOT / "blender_addon" / "motionbooth_addon" / "blender_manifest.toml").read_text())["version"]
    made = folder / archive.name.replace(now, version)
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "blender_manifest.toml":
                data = data.replace(f'\nversion = "{now}"'.encode(), f'\nversion = "{version}"'.encode())
            new.writestr(name, data)
    return made


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder on a web server of loopback; its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_blender_installs_and_updates_from_the_repository(
    archive: Path, build_module: ModuleType, tmp_path: Path
) -> None:
    repository, installed = tmp_path / "a repository", tmp_path / "extensions"
    repository.mkdir()
    installed.mkdir()
    older = as_version(archive, "0.0.1", repository)
    build_module.packager("server-generate", "--repo-dir", str(repository))

    def update(address: str) -> str:
        """The version that Blender's own client then has."""
        remote = ["--remote-url", f"{address}/index.json", "--local-dir", str(installed)]
        build_module.packager("sync", *remote)
        python = ".".join(map(str, sys.version_info[:3]))
        build_module.packager(
            "install", *remote, "--blender-version=4.2.0", f"--python-version={python}", "motionbooth"
        )
        return tomllib.loads((installed / "motionbooth" / "blender_manifest.toml").read_text())["version"]

    with served(repository) as address:
        assert update(address) == "0.0.1"
        shutil.copy(archive, repository)
        index = build_module.list_repository(repository)
        assert not older.exists()
        (offered,) = json.loads(index.read_text())["data"]
        assert offered["website"].startswith("https://")
        assert update(address) == offered["version"] != "0.0.1"


# As `blender --command extension remove` does it.
REMOVE = """
import bpy
repos = [repo.module for repo in bpy.context.preferences.extensions.repos]
bpy.ops.extensions.package_uninstall(repo_index=repos.index("user_default"), pkg_id="motionbooth")
"""


def install_and_generate(python: Path, archive: Path, connection_file: Path, tmp_path: Path) -> tuple[str, Path]:
    """Blender's version, and where the extension was found."""
    out = tmp_path / "out"
    out.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BLENDER"))}
    env = {
        **clean,
        "BLENDER_USER_RESOURCES": str(tmp_path / "resources"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
    }
    result = subprocess.run(
        [str(python), str(SCRIPT), str(archive), str(connection_file), str(out), str(ROOT)],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert (out / "passed").exists(), result.stderr + result.stdout
    assert result.returncode == 0, result.stderr + result.stdout
    version, _, file = (out / "passed").read_text().rpartition(" ")
    work = {path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert [path for path in work if path.name == "old.mp4"], "what an earlier version kept was not taken over"
    subprocess.run([str(python), "-c", REMOVE], env=env, cwd=tmp_path, check=True, timeout=120)
    assert not Path(file).exists(), "still installed"
    assert {path: path.read_bytes() for path in work} == work, "a user's work was removed with the extension"
    return version, Path(file)


def test_the_zip_installs_generates_a_clip_and_uninstalls_cleanly(
    archive: Path, connection_file: Path, tmp_path: Path
) -> None:
    _, file = install_and_generate(Path(sys.executable), archive, connection_file, tmp_path)
    assert file.is_relative_to(tmp_path / "resources")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("release", "python"), RELEASES)
def test_the_same_zip_works_with_other_blender_releases(
    release: str, python: str, archive: Path, connection_file: Path, tmp_path: Path
) -> None:
    version, _ = install_and_generate(blender_module(release, python), archive, connection_file, tmp_path)
    assert version.startswith(release)


def blender_module(release: str, python: str) -> Path:
    """The Python of an environment with this release of the bpy module and nothing else; made where it is not there."""
    folder = RELEASES_FOLDER / f"bpy-{release}"
    ready = folder / ".ready"
    if not ready.exists():
        found = find_python(python)
        if found is None:
            pytest.skip(f"needs Python {python}, on the PATH or by pyenv")
        subprocess.run([found, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-q", f"bpy=={release}"], check=True)
        ready.touch()
    return folder / "bin" / "python"


def find_python(version: str) -> str | None:
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    beside = sorted(pyenv.glob(f"versions/{version}*/bin/python"))
    return str(beside[-1]) if beside else shutil.which(f"python{version}")
