"""The zip as a stranger's Blender gets it: built, opened, installed and used in a process that knows nothing else."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "blender_addon" / "demo" / "demo.blend"

# Runs in a clean process: the checkout is taken off the path, so that only what the zip holds can be imported.
INSTALL_AND_USE = """
import pathlib, sys
archive, demo, checkout = sys.argv[1:]
sys.path = [entry for entry in sys.path if not entry.startswith(checkout) or "site-packages" in entry]
import bpy
bpy.ops.extensions.package_install_files(filepath=archive, repo="user_default", enable_on_install=True)
assert "bl_ext.user_default.motionbooth" in bpy.context.preferences.addons, "not enabled"
bpy.ops.wm.open_mainfile(filepath=demo)
import bl_ext.user_default.motionbooth as extension
from bl_ext.user_default.motionbooth import capture
reading = capture.read_shot(bpy.context.scene, 8)
assert type(reading.shot).__module__ == "bl_ext.user_default.motionbooth._protocol.motion"
library = pathlib.Path(bpy.utils.user_resource("EXTENSIONS"), ".local", "lib")
wheels = library.glob("python3.*/site-packages/*/__init__.py")
assert {wheel.parent.name for wheel in wheels} >= {"zmq", "msgspec"}, "the wheels are not installed"
preferences = bpy.context.preferences.addons[extension.__name__].preferences
preferences.connection_file = "/somewhere/connection.json"
bpy.ops.preferences.addon_disable(module=extension.__name__)
assert not hasattr(bpy.types.Scene, "motionbooth"), "something stays registered"
assert "motionbooth_addon" not in sys.modules and "motionbooth_protocol" not in sys.modules
print("FRAMES", reading.shot.frames, extension.__file__)
"""


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
    return build_module.build(build_module.this_platform(), ROOT / "dist")


def test_the_zip_holds_the_contract_and_a_wheel_of_each_kind_for_each_python(archive: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        names = set(content.namelist())
    contract = {f"_protocol/{file.name}" for file in (ROOT / "shared" / "motionbooth_protocol").glob("*.py")}
    assert {"__init__.py", "blender_manifest.toml", "registration.py", "capture.py", *contract} <= names
    wheels = sorted(name.removeprefix("wheels/").split("-")[0::2][:2] for name in names if name.endswith(".whl"))
    assert wheels == [["msgspec", "cp311"], ["msgspec", "cp313"], ["pyzmq", "cp311"], ["pyzmq", "cp313"]]
    assert not [name for name in names if "__pycache__" in name or name.endswith(".blend")]


def test_it_installs_enables_reads_a_shot_and_leaves_nothing_behind(archive: Path, tmp_path: Path) -> None:
    script = tmp_path / "install_and_use.py"
    script.write_text(INSTALL_AND_USE)
    result = subprocess.run(
        [sys.executable, str(script), str(archive), str(DEMO), str(ROOT)],
        env={**os.environ, "BLENDER_USER_RESOURCES": str(tmp_path / "resources")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr + result.stdout
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("FRAMES")]
    _, frames, file = line.split()
    assert frames == "8"
    assert Path(file).is_relative_to(tmp_path / "resources")
