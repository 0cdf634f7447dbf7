"""An empty scene with the extension registered, for the tests that need Blender (the bpy module)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from drawing_backend import drawing_backend

NO_BPY = "needs the bpy module, which exists for Python 3.11 and 3.13"


@pytest.fixture(scope="session")
def registered() -> Iterator[Any]:
    """The bpy module with the extension registered in it."""
    bpy = pytest.importorskip("bpy", reason=NO_BPY)
    import motionbooth_addon

    motionbooth_addon.register()
    yield bpy
    motionbooth_addon.unregister()


@pytest.fixture
def scene(registered: Any) -> Any:
    """An empty scene of 24 frames at 24 fps, 960 x 640, with a camera at the origin that looks along +y."""
    bpy = registered
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, 24
    scene.render.resolution_x, scene.render.resolution_y = 960, 640
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    camera.data.lens, camera.data.sensor_width = 35, 36
    camera.rotation_euler = (1.5707963267948966, 0, 0)
    scene.collection.objects.link(camera)
    scene.camera = camera
    return scene


@pytest.fixture
def add_subject(registered: Any) -> Callable[..., Any]:
    """Make an object the subject of a scene."""

    def add(scene: Any, thing: Any, name: str = "Imp") -> Any:
        subject = scene.motionbooth.subjects.add()
        subject.name, subject.class_word, subject.object = name, "toy", thing
        scene.motionbooth.prompt = "a sks toy on the grass"
        return subject

    return add


@pytest.fixture
def add_cube(registered: Any) -> Callable[..., Any]:
    """A cube of 2 units to a side (or another mesh) in a scene."""
    bpy = registered

    def add(scene: Any, location: tuple[float, float, float] = (0, 10, 0), name: str = "Cube") -> Any:
        corners = [(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
        faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
        mesh = bpy.data.meshes.new(name)
        mesh.from_pydata(corners, [], faces)
        cube = bpy.data.objects.new(name, mesh)
        cube.location = location
        scene.collection.objects.link(cube)
        return cube

    return add


@pytest.fixture
def at_work(scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The job controller with a data folder and preferences of this test; the saved scene is open."""
    import bpy
    from motionbooth_addon import user_data
    from motionbooth_addon.jobs import controller

    monkeypatch.setenv("XDG_DATA_HOME" if sys.platform != "win32" else "LOCALAPPDATA", str(tmp_path / "user"))
    entry = bpy.context.preferences.addons.new()
    entry.module = "motionbooth_addon"
    controller._controller = controller.JobController(user_data.data_folder())
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    yield controller._controller
    controller._controller.backend.local.stop()
    controller._controller.close()
    controller._controller.ui.clear()
    controller._controller = None


@pytest.fixture
def pump(at_work: Any) -> Callable[..., None]:
    """Call the controller's timer until something is true."""

    def pump(until: Callable[[], object], seconds: float = 40) -> None:
        deadline = time.monotonic() + seconds
        while not until():
            assert time.monotonic() < deadline, "it does not happen"
            time.sleep(min(0.02, at_work.tick()))

    return pump


@pytest.fixture(scope="module")
def connection_file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The connection file of the module's backend, whose model only draws."""
    with drawing_backend(tmp_path_factory.mktemp("drawing") / "home") as file:
        yield file


@pytest.fixture(scope="session")
def drawing_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a running backend whose model only draws."""
    home = tmp_path_factory.mktemp("drawing") / "home"
    with drawing_backend(home):
        yield home


@pytest.fixture
def connected(at_work: Any, drawing_home: Path, pump: Callable[..., None]) -> Any:
    """The controller, connected to the backend of `drawing_home`."""
    from motionbooth_addon.preferences import preferences
    from motionbooth_addon.ui_state import state

    preferences().connection_file = str(drawing_home / "connection.json")
    pump(lambda: state().connection == "CONNECTED")
    return at_work
