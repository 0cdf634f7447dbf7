"""`motionbooth bench extension`: speed of the extension in Blender and accuracy of reading a shot. Needs bpy.

Each measure runs in a separate process, so that nothing else is loaded: `python -m motionbooth_lab.bench.extension
MEASURE` prints its figures as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth_protocol.errors import InvalidInput, JobFailed
from numpy.typing import NDArray

from motionbooth_lab.bench.ticks import measure_ticks

if TYPE_CHECKING:
    import bpy

FRAMES = 250
HEAVY_GRID, HEAVY_LEVELS = 353, 2  # a grid of 353 x 353 faces, subdivided twice: 2 million vertices
HEAVY_VERTICES = 1_950_000  # at least
LONG_SHOT = 10_000  # frames
FRAME_SET_SAMPLE = 25  # frames of the plain loop that are timed; the other 225 take as long
BACKGROUND = 12.0
LENS, SENSOR, SIZE, ASPECT = 35.0, 36.0, (960, 640), 1.25
Array = NDArray[np.float64]

UNITS = {
    "tick_p99_ms": "ms",
    "heavy_scene_ratio": "x",
    "frame_set_ratio": "x",
    "register_ms": "ms",
    "projection_error": "frame",
    "framing_error": "width",
    "scene_kinds_exact": "share",
    "reading_10000_ms": "ms",
}


def bench_extension() -> BenchResult:
    """Everything that can be measured without a window. Raises InvalidInput if bpy is not installed."""
    check_bpy()
    found: dict[str, float] = {}
    for measure in MEASURES:
        found |= in_own_process(__name__, measure)
    return BenchResult("extension", [Measure(name, found[name], unit) for name, unit in UNITS.items()])


def check_bpy() -> None:
    """Raises InvalidInput if bpy is not installed."""
    if importlib.util.find_spec("bpy") is None:
        raise InvalidInput("This bench needs Blender's Python module. Install it with: pip install -e '.[blender]'")


def in_own_process(module: str, measure: str, *arguments: str) -> Any:
    """What `python -m module measure ...` prints as JSON in its last line. Raises JobFailed with its last error."""
    command = [sys.executable, "-m", module, measure, *arguments]
    process = subprocess.run(command, capture_output=True, text=True)
    if process.returncode != 0:
        last_words = process.stderr.strip().splitlines()[-1:] or ["no output"]
        raise JobFailed('Measuring "{measure}" in Blender failed: {reason}', measure=measure, reason=last_words[0])
    return json.loads(process.stdout.splitlines()[-1])


def measure_registering() -> dict[str, float]:
    """Time to import and register the extension after bpy is imported: how much it delays the start of Blender.

    The first run compiles the extension's sources, as happens once after the installation, and is not counted. Raises
    JobFailed if the extension loads torch or sockets.
    """
    took = []
    with TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(REGISTERINGS + 1):
            process = subprocess.run([sys.executable, "-c", REGISTER], capture_output=True, text=True, env=environment)
            if process.returncode != 0:
                raise JobFailed(
                    "Registering the extension failed: {reason}", reason=process.stderr.strip().splitlines()[-1]
                )
            took.append(float(process.stdout.splitlines()[-1]))
    return {"register_ms": 1000 * statistics.median(took[1:])}


REGISTERINGS = 5
REGISTER = """
import sys, time, bpy
began = time.perf_counter()
import motionbooth_addon
motionbooth_addon.register()
took = time.perf_counter() - began
assert not {"torch", "zmq"} & set(sys.modules), "it loads torch or sockets"
print(took)
"""


def measure_reading() -> dict[str, float]:
    """Read 250 frames of a shot in an empty scene and in one with 2 million vertices under modifiers."""
    from motionbooth_addon.capture import shots

    scene = _new_shot()
    empty = _median_seconds(lambda: shots.read_shot(scene, FRAMES))
    _add_heavy_mesh(scene)
    heavy = _median_seconds(lambda: shots.read_shot(scene, FRAMES))
    began = time.perf_counter()
    for frame in range(2, 2 + FRAME_SET_SAMPLE):
        scene.frame_set(frame)
    plain = (time.perf_counter() - began) * FRAMES / FRAME_SET_SAMPLE
    return {"heavy_scene_ratio": heavy / empty, "frame_set_ratio": heavy / plain}


def measure_projection() -> dict[str, float]:
    """The largest deviation of a box side or camera offset from a pinhole camera in NumPy, as a share of the frame."""
    from motionbooth_addon.capture import shots

    scene = _new_shot()
    shot = shots.read_shot(scene, FRAMES).shot
    things = [subject.object for subject in scene.motionbooth.subjects]
    expected: list[Array] = []
    cameras: list[Array] = []
    for frame in range(1, FRAMES + 1):
        scene.frame_set(frame)
        cameras.append(np.array(scene.camera.matrix_world))
        expected.append(np.array([_pinhole_box(thing, cameras[-1]) for thing in things]))
    boxes = np.array([[box.as_tuple() for box in track.boxes if box] for track in shot.subjects])
    offsets = np.array([(offset.dx, offset.dy) for offset in shot.camera.offsets])
    error_of_boxes = np.abs(boxes.transpose(1, 0, 2) - np.array(expected)).max()
    error_of_camera = np.abs(offsets - _pinhole_travel(cameras)).max()
    return {"projection_error": float(max(error_of_boxes, error_of_camera))}


def measure_framing() -> dict[str, float]:
    """Requested versus displayed position for four aspect ratios and every known base model: see framing.py."""
    import motionbooth_addon

    from motionbooth_lab.bench.framing import framing_error

    motionbooth_addon.register()
    return {"framing_error": framing_error()}


def measure_scene_kinds() -> dict[str, float]:
    """The share of scene kinds that are read exactly or rejected with a message: see scene_kinds.py."""
    import motionbooth_addon

    from motionbooth_lab.bench.scene_kinds import scene_kinds_exact

    motionbooth_addon.register()
    return {"scene_kinds_exact": scene_kinds_exact()}


def measure_long_reading() -> dict[str, float]:
    """The longest tick on the main thread, including Blender's update, while 10,000 frames are read for the overlay.

    Raises JobFailed if the shot is not read completely.
    """
    import bpy
    from motionbooth_addon.capture import shot_cache

    scene = _new_shot(LONG_SHOT)
    bpy.context.view_layer.update()
    shot_cache.get(scene)
    holds = []
    until = time.monotonic() + LONGEST_WAIT
    while shot_cache.get(scene).outdated and time.monotonic() < until:
        began = time.perf_counter()
        pause = shot_cache.tick() or 0.0
        bpy.context.view_layer.update()
        holds.append(time.perf_counter() - began)
        time.sleep(pause)
    if (motion := shot_cache.get(scene).motion) is None or motion.moments[-1] != LONG_SHOT:
        raise JobFailed("{frames} frames were not read in {seconds} seconds.", frames=LONG_SHOT, seconds=LONGEST_WAIT)
    return {"reading_10000_ms": 1000 * max(holds)}


LONGEST_WAIT = 120.0  # seconds


def _median_seconds(action: Callable[[], object], times: int = 5) -> float:
    action()  # warm up
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


# The shot


def _new_shot(frames: int = FRAMES) -> bpy.types.Scene:
    """A keyframed camera, with a keyframed rectangle in front of it and a keyframed ball farther away."""
    import bpy
    import motionbooth_addon

    motionbooth_addon.register()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, frames
    scene.render.resolution_x, scene.render.resolution_y = SIZE
    scene.render.pixel_aspect_x = ASPECT
    scene.motionbooth.background_distance = BACKGROUND
    camera = _add(scene, "Camera", bpy.data.cameras.new("Camera"))
    camera.data.lens, camera.data.sensor_width = LENS, SENSOR
    camera.data.shift_x, camera.data.shift_y = 0.05, -0.02
    scene.camera = camera
    _key(camera, "location", (0, -12, 1.6), (1.5, -12, 1.2), frames)
    _key(camera, "rotation_euler", (1.5, 0.02, 0.1), (1.6, -0.02, -0.1), frames)
    flat = [(-0.5, -0.5, 0), (0.5, -0.5, 0), (0.5, 0.5, 0), (-0.5, 0.5, 0)]
    rectangle = _add(scene, "Rectangle", _mesh("Rectangle", flat, [(0, 1, 2, 3)]))
    rectangle.parent = camera
    _key(rectangle, "location", (-0.9, 0.2, -4), (0.9, -0.3, -4), frames)
    cone = [(0, 0, 1), (0.5, 0, 0), (-0.4, 0.5, 0), (-0.4, -0.5, 0)]
    blockout = _add(scene, "Blockout", _mesh("Blockout", cone, [(0, 1, 2), (0, 2, 3), (0, 3, 1), (1, 2, 3)]))
    _key(blockout, "location", (2, 0, 0.5), (-1, 3, 1.5), frames)
    _key(blockout, "rotation_euler", (0, 0, 0), (1, 2, 5), frames)
    for thing in (rectangle, blockout):
        subject = scene.motionbooth.subjects.add()
        subject.name, subject.class_word, subject.object = thing.name, "toy", thing
    return scene


def _add(scene: bpy.types.Scene, name: str, data: Any) -> bpy.types.Object:
    import bpy

    thing = bpy.data.objects.new(name, data)
    scene.collection.objects.link(thing)
    return thing


def _mesh(name: str, corners: Sequence[Sequence[float]], faces: Sequence[Sequence[int]]) -> bpy.types.Mesh:
    import bpy

    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(corners, [], faces)
    return mesh


def _key(thing: bpy.types.Object, path: str, first: tuple[float, ...], last: tuple[float, ...], end: int) -> None:
    for frame, value in ((1, first), (end, last)):
        setattr(thing, path, value)
        thing.keyframe_insert(path, frame=frame)


def _add_heavy_mesh(scene: bpy.types.Scene) -> None:
    """2 million vertices that move in every frame."""
    import bpy

    side = np.linspace(-50, 50, HEAVY_GRID + 1)
    corners = np.stack([*np.meshgrid(side, side, indexing="ij"), np.zeros((len(side), len(side)))], axis=-1)
    low = np.arange(HEAVY_GRID)[:, None] * len(side) + np.arange(HEAVY_GRID)
    faces = np.stack([low, low + 1, low + len(side) + 1, low + len(side)], axis=-1)
    heavy = _add(scene, "Sea", _mesh("Sea", corners.reshape(-1, 3).tolist(), faces.reshape(-1, 4).tolist()))
    heavy.modifiers.new("Subdivision", "SUBSURF").levels = HEAVY_LEVELS
    heavy.modifiers.new("Wave", "WAVE")
    depsgraph = bpy.context.evaluated_depsgraph_get()
    count = len(heavy.evaluated_get(depsgraph).data.vertices)
    if count < HEAVY_VERTICES:
        raise RuntimeError(f"the heavy scene has {count} vertices")


# The reference: a pinhole camera from world matrices and the lens


def _pinhole(points: Array, camera: Array) -> Array:
    """Project world points (N, 3) to shares of the frame (N, 2) by similar triangles.

    The sensor width spans the longer side of the displayed frame (with pixels of aspect `ASPECT`), which is also the
    unit of the lens shift.
    """
    local = (points - camera[:3, 3]) @ camera[:3, :3]
    across, up = local[:, 0] / -local[:, 2] * LENS / SENSOR, local[:, 1] / -local[:, 2] * LENS / SENSOR
    height = SIZE[1] / (SIZE[0] * ASPECT)
    return np.stack([0.5 + across - 0.05, 0.5 - (up + 0.02) / height], axis=1)


def _pinhole_box(thing: bpy.types.Object, camera: Array) -> Array:
    """Bounds (x1, y1, x2, y2) of a mesh without modifiers."""
    world = np.array(thing.matrix_world)
    corners = np.array([vertex.co for vertex in thing.data.vertices])
    seen = _pinhole(corners @ world[:3, :3].T + world[:3, 3], camera)
    return np.concatenate([seen.min(axis=0), seen.max(axis=0)])


def _pinhole_travel(cameras: list[Array]) -> Array:
    """(F, 2): accumulated motion of the point that was in the middle of the previous frame, at background distance."""
    middle = BACKGROUND * np.array([0.05 * SENSOR / LENS, -0.02 * SENSOR / LENS, -1])  # moved by the lens shift
    steps = [_pinhole((before[:3, :3] @ middle + before[:3, 3])[None], after)[0] for before, after in pairwise(cameras)]
    return np.concatenate([np.zeros((1, 2)), np.cumsum(0.5 - np.array(steps), axis=0)])


MEASURES: dict[str, Callable[[], dict[str, float]]] = {
    "ticks": measure_ticks,
    "registering": measure_registering,
    "reading": measure_reading,
    "projection": measure_projection,
    "framing": measure_framing,
    "scene kinds": measure_scene_kinds,
    "long reading": measure_long_reading,
}

if __name__ == "__main__":
    print(json.dumps(MEASURES[sys.argv[1]]()))
