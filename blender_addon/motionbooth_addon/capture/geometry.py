"""Projects the evaluated geometry of objects onto a camera's frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from .._protocol.motion import Box
from . import projection
from .projection import Array, Edges, View

# The corners of a cube from -1 to 1, and its edges: pairs of corners that differ in one coordinate.
CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], dtype=float)
CUBE_EDGES = np.array([(a, b) for a in range(8) for b in (a + 1, a + 2, a + 4) if b < 8 and bin(a ^ b).count("1") == 1])
NO_EDGES = CUBE_EDGES[:0]

MESH_TYPES = {"MESH", "CURVE", "SURFACE", "FONT", "META"}
TYPES_WITHOUT_SURFACE = {"CAMERA", "LIGHT", "LIGHT_PROBE", "SPEAKER"}
NOT_RENDERED = TYPES_WITHOUT_SURFACE | {"EMPTY", "ARMATURE", "LATTICE"}


@dataclass(frozen=True)
class Projection:
    """A subject's projection onto the frame at one moment.

    box: the visible box; None if the subject is outside the frame or behind the camera.
    behind: whether all of the subject is behind the camera.
    """

    box: Box | None
    behind: bool = False


NOT_VISIBLE = Projection(None)


def is_deleted(subject: bpy.types.PropertyGroup) -> bool:
    """Whether the user has deleted the subject's proxy object. It stays in the file as long as a subject uses it."""
    return subject.object is not None and not subject.object.users_collection


def objects_with_surface(proxy: bpy.types.Object) -> list[bpy.types.Object]:
    """The object itself, or the children of an empty or armature, which has no surface of its own.

    Children that are hidden in renders are helpers, unless all are.
    """
    if proxy.type != "ARMATURE" and (proxy.type != "EMPTY" or proxy.instance_type == "COLLECTION"):
        return [proxy]  # to find children, Blender looks at all objects of the file
    return rendered_of(child for child in proxy.children_recursive if child.type not in NOT_RENDERED) or [proxy]


def rendered_of(parts: Iterable[bpy.types.Object]) -> list[bpy.types.Object]:
    """Those that are not hidden in renders; all if all are hidden."""
    found = list(parts)
    return [part for part in found if not part.hide_render] or found


def with_instanced_children(parts: set[bpy.types.Object]) -> set[bpy.types.Object]:
    """The objects and, for those that instance on vertices or faces, the children that are instanced."""
    instancers = [part for part in parts if part.instance_type in {"VERTS", "FACES"}]
    return parts.union(child for part in instancers for child in part.children_recursive)


def project_objects(parts: set[bpy.types.Object], depsgraph: bpy.types.Depsgraph, view: View) -> Projection:
    """Project the evaluated geometry of `parts`, instances included, onto the frame of `view`."""
    outlines = []
    for instance in depsgraph.object_instances:
        owner = instance.parent if instance.is_instance else instance.object
        if owner is not None and owner.original in parts:
            outlines.append((*_points_and_edges(instance.object), np.array(instance.matrix_world)))
    return _project(outlines, view)


def project_bounds(proxy: bpy.types.Object, depsgraph: bpy.types.Depsgraph, view: View) -> Box | None:
    """The visible box of an object from bounding boxes alone: exact for a rectangle, too large for round shapes."""
    evaluated = [part.evaluated_get(depsgraph) for part in objects_with_surface(proxy)]
    return _project([(*_bounding_box(part), np.array(part.matrix_world)) for part in evaluated], view).box


def is_rectangle(proxy: bpy.types.Object) -> bool:
    """Whether it is a flat mesh with one face, so that its bounding box is its outline."""
    return proxy.type == "MESH" and len(proxy.data.polygons) == 1 and not proxy.modifiers


def _project(outlines: list[tuple[Array, Edges, Array]], view: View) -> Projection:
    """Project outlines, each with its points (N, 3), edges (E, 2) and world matrix (4, 4), as one shape."""
    points, edges, count = [], [], 0
    for local, joints, world in outlines:
        points.append(local @ world[:3, :3].T + world[:3, 3])
        edges.append(joints + count)
        count += len(local)
    if not count:
        return NOT_VISIBLE
    box = projection.screen_box(np.concatenate(points), np.concatenate(edges), view)
    return Projection(box, box is None and projection.is_behind(np.concatenate(points), view))


def _points_and_edges(shape: bpy.types.Object) -> tuple[Array, Edges]:
    """An evaluated object's points (N, 3) in object space and the edges (E, 2) between them.

    Meshes, and objects that can be converted to one: all vertices. Grease pencil, point clouds and hair curves: all
    points, without their radius. Empties: their display size. Everything else (volumes, lattices, armatures): the
    bounding box.
    """
    match shape.type:
        case "EMPTY":
            instancer = shape.instance_type == "COLLECTION"
            return (CUBE[:0], NO_EDGES) if instancer else (CUBE * shape.empty_display_size, CUBE_EDGES)
        case "GREASEPENCIL":
            return _joined(_strokes(shape)), NO_EDGES
        case "GPENCIL":  # before 4.3
            return _joined(_old_strokes(shape)), NO_EDGES
        case "POINTCLOUD" | "CURVES":
            return _positions(shape.data), NO_EDGES
        case kind if kind in MESH_TYPES:
            return _mesh(shape)
    return _bounding_box(shape)


def _bounding_box(shape: bpy.types.Object) -> tuple[Array, Edges]:
    corners = np.array(shape.bound_box)
    low, high = corners.min(axis=0), corners.max(axis=0)
    return (low + high) / 2 + CUBE * (high - low) / 2, CUBE_EDGES


def _mesh(shape: bpy.types.Object) -> tuple[Array, Edges]:
    mesh = shape.to_mesh()
    if mesh is None:  # a curve without splines
        return CUBE[:0], NO_EDGES
    joints = np.empty(2 * len(mesh.edges), dtype=np.int32)
    corners = _read(mesh.vertices, "co")
    mesh.edges.foreach_get("vertices", joints)
    shape.to_mesh_clear()
    return corners, joints.reshape(-1, 2)


def _strokes(shape: bpy.types.Object) -> Iterator[Array]:
    """The points of each visible grease pencil layer, in object space."""
    into_object = np.linalg.inv(np.array(shape.matrix_world))
    for layer in shape.data.layers:
        frame = None if layer.hide else layer.current_frame()
        if frame is None:
            continue
        placed = np.array(layer.matrix_local)
        if layer.parent is not None:
            placed = into_object @ _parent_of(layer) @ placed
        yield _positions(frame.drawing) @ placed[:3, :3].T + placed[:3, 3]


def _parent_of(layer: Any) -> Array:
    world = layer.parent.matrix_world
    bone = layer.parent.pose.bones.get(layer.parent_bone) if layer.parent_bone and layer.parent.pose else None
    return np.array((world @ bone.matrix if bone else world) @ layer.matrix_parent_inverse)


def _old_strokes(shape: bpy.types.Object) -> Iterator[Array]:
    """The same before Blender 4.3."""
    for layer in shape.data.layers:
        strokes = [] if layer.hide or layer.active_frame is None else layer.active_frame.strokes
        placed = np.array(layer.matrix_layer)
        for stroke in strokes:
            yield _read(stroke.points, "co") @ placed[:3, :3].T + placed[:3, 3]


def _positions(data: Any) -> Array:
    """The points (N, 3) of a data-block that stores them in its attribute `position`."""
    attribute = data.attributes.get("position")
    return CUBE[:0] if attribute is None else _read(attribute.data, "vector")


def _read(points: Any, name: str) -> Array:
    found = np.empty(3 * len(points), dtype=np.float32)
    points.foreach_get(name, found)
    return found.reshape(-1, 3).astype(float)


def _joined(parts: Iterator[Array]) -> Array:
    return np.concatenate([CUBE[:0], *parts])
