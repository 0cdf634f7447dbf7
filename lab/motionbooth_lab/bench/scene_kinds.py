"""Many kinds of scenes, each with a subject that is animated in another way. Needs bpy.

`error_of` reads a scene as the extension does and compares it with the truth: the scene, built again, played from its
first frame, with every point projected by Blender's `world_to_camera_view`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import bpy
import numpy as np
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector
from numpy.typing import NDArray

from motionbooth_lab.bench import animated_scenes, simulated_scenes  # noqa: F401  (they register their scenes)
from motionbooth_lab.bench.scene_building import BACKGROUND, EVERY, KINDS, LAST, MODEL_FRAMES, new_scene

EXACT = 1e-5  # as a share of the frame: points are float32 of up to 10 units
Array = NDArray[np.float64]


def error_of(name: str) -> float | str:
    """The largest error of a box side or camera offset as a share of the frame, or the message that rejects it."""
    from motionbooth_addon._protocol.errors import InvalidInput
    from motionbooth_addon.capture import shots

    try:
        shot = shots.read_shot(new_scene(name), MODEL_FRAMES).shot
    except InvalidInput as refusal:
        return str(refusal)
    read = [box.as_tuple() if box else (math.nan,) * 4 for box in shot.subjects[0].boxes]
    path = [(offset.dx, offset.dy) for offset in shot.camera.offsets]
    boxes, offsets = truth(new_scene(name))
    return float(max(_difference(np.array(read), boxes), _difference(np.array(path), offsets)))


def scene_kinds_exact() -> float:
    """The share of kinds that are read with an error below EXACT or rejected with a message."""
    errors = {name: error_of(name) for name in KINDS}
    return sum(isinstance(error, str) or error <= EXACT for error in errors.values()) / len(errors)


def _difference(one: Array, other: Array) -> float:
    """The largest difference; infinite where only one of them is NaN."""
    if (np.isnan(one) != np.isnan(other)).any():
        return math.inf
    return float(np.nan_to_num(np.abs(one - other)).max())


# The truth


def truth(scene: Any) -> tuple[Array, Array]:
    """Boxes (F, 4) at the model's frames, NaN where nothing is visible, and camera offsets (F, 2)."""
    thing = scene.motionbooth.subjects[0].object
    boxes, travel = [], [np.zeros(2)]
    before, reference = "", Vector()
    for frame in range(1, LAST + 1):
        scene.frame_set(frame)
        depsgraph = bpy.context.evaluated_depsgraph_get()
        seen = scene.camera.evaluated_get(depsgraph)
        if frame > 1:
            middle = world_to_camera_view(scene, seen, reference)
            step = (0.5 - middle.x, middle.y - 0.5) if seen.name == before else (0, 0)
            travel.append(travel[-1] + step)
        before, reference = seen.name, seen.matrix_world.normalized() @ _middle(scene, seen)
        if (frame - 1) % EVERY == 0:
            points = [world_to_camera_view(scene, seen, point) for point in evaluated_points(thing, depsgraph)]
            boxes.append(_bounds(np.array(points)))
    return np.array(boxes), np.array(travel)[::EVERY]


def _middle(scene: Any, camera: Any) -> Vector:
    """The point in the middle of the frame at background distance, in camera space."""
    corners = camera.data.view_frame(scene=scene)
    middle = (corners[0] + corners[2]) / 2
    if camera.data.type == "ORTHO":
        return Vector((middle.x, middle.y, -BACKGROUND))
    return Vector(middle * (BACKGROUND / -middle.z))


def _bounds(seen: Array) -> tuple[float, ...]:
    (x1, y1), (x2, y2) = seen[:, :2].min(axis=0), seen[:, :2].max(axis=0)
    inside = x1 < 1 and x2 > 0 and y1 < 1 and y2 > 0
    return (x1, 1 - y2, x2, 1 - y1) if inside else (math.nan,) * 4


def evaluated_points(thing: Any, depsgraph: Any) -> Iterator[Vector]:
    """World positions of all points of an object, of the meshes of an armature, and of its instances."""
    parts = {thing} if thing.type != "ARMATURE" else set(thing.children_recursive)
    for instance in depsgraph.object_instances:
        owner = instance.parent if instance.is_instance else instance.object
        if owner is None or owner.original not in parts or instance.object.type == "EMPTY":
            continue
        for point in _local_points(instance.object):
            yield instance.matrix_world @ point


def _local_points(shape: Any) -> Iterator[Vector]:
    if shape.type == "GREASEPENCIL":
        for layer in shape.data.layers:
            for stroke in layer.current_frame().drawing.strokes:
                for point in stroke.points:
                    yield layer.matrix_local @ point.position
    elif shape.type == "GPENCIL":
        for layer in shape.data.layers:
            for stroke in layer.active_frame.strokes:
                for point in stroke.points:
                    yield layer.matrix_layer @ point.co
    elif shape.type in {"POINTCLOUD", "CURVES"}:
        for value in shape.data.attributes["position"].data:
            yield value.vector.copy()
    else:
        mesh = shape.to_mesh()
        yield from [vertex.co.copy() for vertex in mesh.vertices]
        shape.to_mesh_clear()
