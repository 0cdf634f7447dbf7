"""Helpers for tests in Blender: animated objects. Needs bpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bpy


def animate(thing: Any, path: str, first: Any, last: Any, frames: tuple[int, int] = (1, 24)) -> None:
    for frame, value in zip(frames, (first, last), strict=True):
        setattr(thing, path, value)
        thing.keyframe_insert(path, frame=frame)


def new_object(scene: Any, name: str, data: Any, location: tuple[float, float, float] = (0, 10, 0)) -> Any:
    thing = bpy.data.objects.new(name, data)
    thing.location = location
    scene.collection.objects.link(thing)
    return thing


def rectangle_on_camera(scene: Any, add_cube: Callable[..., Any]) -> Any:
    mesh = bpy.data.meshes.new("Rectangle")
    mesh.from_pydata([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], [], [(0, 1, 2, 3)])
    thing = new_object(scene, "Rectangle", mesh)
    thing.parent = scene.camera
    thing.hide_render = True
    animate(thing, "location", (-1.5, 0, -8), (1.5, 1, -8))
    animate(scene.camera, "location", (0, 0, 0), (9, 3, 1))
    return thing
