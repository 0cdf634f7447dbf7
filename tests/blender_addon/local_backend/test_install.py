"""The backend is installed from Blender: a real wheel, with a real pip, into a real environment, and is started there.

What the backend needs (torch: gigabytes) is not fetched again: pip is told to leave dependencies alone, by its own
setting PIP_NO_DEPS, and the environment sees those of the tests.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from refused import refused, refused_by_operator

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from motionbooth_addon import user_data  # noqa: E402
from motionbooth_addon._protocol.errors import NotFound, OutOfSpace  # noqa: E402
from motionbooth_addon.local_backend import install  # noqa: E402
from motionbooth_addon.preferences import preferences  # noqa: E402
from motionbooth_addon.ui_state import state  # noqa: E402

ROOT = Path(__file__).parents[3]
Pump = Callable[..., None]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backend's wheel, in a folder with a space in its name."""
    out = tmp_path_factory.mktemp("wheel with a space")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), str(ROOT)], check=True)
    (made,) = out.glob("motionbooth-*.whl")
    return made


@pytest.fixture
def online(at_work: Any) -> Iterator[Any]:
    """The controller, with online access."""
    system = bpy.context.preferences.system
    system.use_online_access = True
    if not bpy.app.online_access:
        pytest.skip("this Blender was started offline")
    yield at_work
    system.use_online_access = False


@pytest.fixture
def without_downloads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every new environment has the packages of the tests, and pip installs only the wheel."""
    monkeypatch.setenv("PIP_NO_DEPS", "1")
    folder, done = user_data.environment_folder, threading.Event()
    packages = "\n".join(entry for entry in sys.path if entry.endswith("site-packages"))

    def lend() -> None:
        lent = set()  # once to each, not to one that is being deleted
        while not done.wait(0.02):
            with contextlib.suppress(OSError):
                made = (folder() / "pyvenv.cfg").stat().st_mtime_ns
                if made not in lent:
                    lent.add(made)
                    (site,) = folder().glob("lib/python3*/site-packages")
                    (site / "lent.pth").write_text(packages)

    thread = threading.Thread(target=lend)
    thread.start()
    yield
    done.set()
    thread.join()


def stop(controller: Any, pump: Pump) -> None:
    """Stop the backend that was started, and wait for its end."""
    process = controller.backend.local._process
    bpy.ops.motionbooth.stop_local_backend()
    pump(lambda: process.poll() is not None)


def ready() -> bool:
    return (user_data.environment_folder() / install.READY).is_file()


def test_one_click_installs_the_backend_and_starts_it(
    online: Any, without_downloads: None, wheel: Path, pump: Pump
) -> None:
    preferences().backend_wheel = str(wheel)
    shown = set()
    bpy.ops.motionbooth.install_backend()
    assert not bpy.ops.motionbooth.install_backend.poll(), "once at a time"

    def connected() -> bool:
        shown.add((state().install_stage, state().install_factor))
        return state().connection == "CONNECTED"

    pump(connected, seconds=150)
    stages = {stage for stage, _ in shown}
    assert {"creating an environment", "downloading", "checking"} <= stages
    assert state().install_stage == "", "the bar is gone"
    command = install.installed_command(user_data.environment_folder())
    assert command is not None
    code = "import motionbooth, sys; print(motionbooth.__file__, sys.prefix)"
    file, prefix = subprocess.check_output([command[0], "-c", code], text=True, cwd="/").split()
    assert Path(file).is_relative_to(user_data.environment_folder())
    assert Path(prefix) == user_data.environment_folder()
    running = Path(f"/proc/{(online.backend.local.home / 'backend.pid').read_text()}/cmdline")
    if running.exists():
        assert command[0].encode() in running.read_bytes(), "this one answers, and no other"
    assert [model.name for model in state().models]
    stop(online, pump)


@pytest.mark.slow
def test_the_next_attempt_completes_a_canceled_and_a_broken_installation(
    online: Any, without_downloads: None, wheel: Path, pump: Pump
) -> None:
    preferences().backend_wheel = str(wheel)
    bpy.ops.motionbooth.install_backend()
    pump(lambda: state().install_stage == "downloading", seconds=60)
    bpy.ops.motionbooth.cancel_installation()
    pump(lambda: online.backend.installation is None)
    assert "canceled" in state().notice
    assert not state().notice_is_error
    assert not ready()
    assert not bpy.ops.motionbooth.cancel_installation.poll()
    # The power fails while pip unpacks: files are missing from a package that it takes for whole.
    installing_now = install.Installation(install.plan(str(wheel), "", user_data.environment_folder(), []), "1")
    installing_now.start()
    pump(lambda: installing_now.ended, seconds=100)
    assert installing_now.error is None
    (cli,) = user_data.environment_folder().glob("lib/python3*/site-packages/motionbooth/cli/app.py")
    cli.unlink()
    (user_data.environment_folder() / install.READY).unlink()
    bpy.ops.motionbooth.install_backend()
    pump(lambda: state().connection == "CONNECTED" or state().notice_is_error, seconds=120)
    assert state().connection == "CONNECTED", state().notice
    assert ready()
    stop(online, pump)


def test_an_index_without_the_backend_is_reported_with_what_to_do(
    online: Any, pump: Pump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "index").as_uri())
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("HOME", str(tmp_path))  # nothing in Downloads
    bpy.ops.motionbooth.install_backend()
    pump(lambda: online.backend.installation is None, seconds=100)
    assert "package index has no motionbooth==" in state().notice
    assert "Name the backend's wheel" in state().notice
    assert not ready()


def test_a_wheel_in_downloads_is_found_and_a_wrong_path_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "environment"
    made = install.plan("", "1.2.3", folder, [tmp_path])
    assert made.source == "motionbooth==1.2.3"
    (tmp_path / "motionbooth-1.2.3-py3-none-any.whl").touch()
    assert install.plan("", "1.2.3", folder, [tmp_path]).source.endswith("motionbooth-1.2.3-py3-none-any.whl")
    with refused(NotFound, wheel=str(tmp_path / "other.whl")):
        install.plan(str(tmp_path / "other.whl"), "1.2.3", folder, [])


def test_a_disk_that_is_too_small_is_reported_before_the_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "INSTALLED", 2**60)
    with refused(OutOfSpace, needed=..., free=...):
        install.plan("", "1", tmp_path / "environment", [])


def test_without_online_access_nothing_is_installed_and_the_user_learns_what_to_do(
    at_work: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if bpy.app.online_access:
        pytest.skip("this Blender may go online")
    monkeypatch.setenv("PATH", str(tmp_path))  # no backend on it
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with refused_by_operator(NotFound):
        bpy.ops.motionbooth.start_local_backend()
    assert not bpy.ops.motionbooth.install_backend.poll()
    assert not user_data.environment_folder().exists()


def test_an_environment_without_its_python_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / install.READY).touch()
    (tmp_path / "bin" / "python").symlink_to(tmp_path / "a Blender that was deleted")
    assert install.installed_command(tmp_path) is None


def test_an_environment_that_cannot_be_created_is_reported_in_venvs_words(tmp_path: Path, pump: Pump) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "environment").write_text("a file where the environment should be")
    made = install.plan("", "1", tmp_path / "data" / "environment", [])
    installation = install.Installation(made, "1").start()
    pump(lambda: installation.ended)
    assert installation.error is not None
    assert installation.error.template.startswith("The backend was not installed: ")
    assert "install.log" in str(installation.error) or "Not a directory" in str(installation.error)
