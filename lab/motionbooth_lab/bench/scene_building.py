"""Building blocks of the scenes in `scene_kinds`. Needs bpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import bpy

LAST, MODEL_FRAMES, EVERY = 22, 8, 3  # the model has every third frame of the scene
BACKGROUND = 10.0

KINDS: dict[str, Callable[[Any], Any]] = {}


def kind(build: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Register a function that fills an empty scene and returns the subject's object."""
    KINDS[build.__name__] = build
    return build


def new_scene(name: str) -> Any:
    """A new scene of this kind with its subject, at its first frame."""
    bpy.app.handlers.frame_change_pre[:] = [h for h in bpy.app.handlers.frame_change_pre if h.__name__ != "move_thing"]
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, LAST
    scene.render.resolution_x, scene.render.resolution_y = 960, 640
    scene.motionbooth.background_distance = BACKGROUND
    scene.camera = camera(scene, "Camera")
    thing = KINDS[name](scene)
    subject = scene.motionbooth.subjects.add()
    subject.name, subject.class_word, subject.object = "Imp", "toy", thing
    scene.frame_set(1)
    return scene


def camera(scene: Any, name: str, location: tuple[float, float, float] = (0, -10, 0)) -> Any:
    """A camera that looks along +y."""
    made = add(scene, name, bpy.data.cameras.new(name), location)
    made.rotation_euler.x = math.pi / 2
    return made


def add(scene: Any, name: str, data: Any, location: tuple[float, float, float] = (0, 0, 0)) -> Any:
    thing = bpy.data.objects.new(name, data)
    thing.location = location
    scene.collection.objects.link(thing)
    return thing


def cube(scene: Any, location: tuple[float, float, float] = (0, 0, 0), size: float = 1.0, name: str = "Cube") -> Any:
    bpy.ops.mesh.primitive_cube_add(size=size, location=location)
    bpy.context.object.name = name
    return bpy.context.object


def grid(size: float = 2.0, cells: int = 8, location: tuple[float, float, float] = (0, 0, 1)) -> Any:
    bpy.ops.mesh.primitive_grid_add(size=size, x_subdivisions=cells, y_subdivisions=cells, location=location)
    return bpy.context.object


def key(thing: Any, path: str, first: Any, last: Any) -> Any:
    for frame, value in ((1, first), (LAST, last)):
        setattr(thing, path, value)
        thing.keyframe_insert(path, frame=frame)
    return thing


def walking(scene: Any) -> Any:
    return key(cube(scene), "location", (-2, 0, -0.5), (2, 1, 0.7))


def driver(owner: Any, path: str, index: int, expression: str, **targets: tuple[Any, str]) -> Any:
    """Add a driver to a channel. `targets`: the data-block and data path of each variable."""
    made = owner.driver_add(path, index).driver
    made.expression = expression
    for name, (block, data_path) in targets.items():
        variable = made.variables.new()
        variable.name = name
        target = variable.targets[0]
        target.id_type = {"Scene": "SCENE"}.get(type(block).__name__, "OBJECT")
        target.id, target.data_path = block, data_path
    return made
