"""Scenes whose subject is animated by keyframes, drivers, constraints, modifiers and instances. Needs bpy."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import bpy
import numpy as np

from motionbooth_lab.bench.scene_building import LAST, add, camera, cube, driver, grid, key, kind, walking


@kind
def keyframed_mesh(scene: Any) -> Any:
    return walking(scene)


@kind
def rectangle_on_the_camera(scene: Any) -> Any:
    thing = grid(cells=1)
    thing.parent = scene.camera
    key(scene.camera, "location", (0, -10, 0), (3, -12, 1))
    return key(thing, "location", (-1, 0.2, -7), (1, -0.3, -7))


@kind
def skinned_mesh(scene: Any) -> Any:
    rig = _rig()
    thing = cube(scene)
    thing.parent = rig
    thing.modifiers.new("Armature", "ARMATURE").object = rig
    group = thing.vertex_groups.new(name="Bone")
    group.add(list(range(len(thing.data.vertices))), 0.7, "REPLACE")
    return thing


@kind
def rig_with_its_mesh(scene: Any) -> Any:
    return skinned_mesh(scene).parent


def _rig() -> Any:
    bpy.ops.object.armature_add(location=(0, 0, 0))
    rig = bpy.context.object
    bone = rig.pose.bones[0]
    bone.name = "Bone"
    for frame, place in ((1, (-1, 0, 0)), (LAST, (1, 0.5, 0.5))):
        bone.location = place
        bone.keyframe_insert("location", frame=frame)
    return rig


@kind
def shape_keys(scene: Any) -> Any:
    thing = cube(scene)
    thing.shape_key_add(name="Basis")
    block = thing.shape_key_add(name="Long")
    for point in block.data:
        point.co.x *= 3
    key(block, "value", 0.0, 1.0)
    return thing


@kind
def driven_by_the_frame(scene: Any) -> Any:
    thing = cube(scene)
    driver(thing, "location", 0, "sin(frame / 5)")
    return thing


@kind
def driven_by_another_object(scene: Any) -> Any:
    thing, other = cube(scene), walking(scene)
    driver(thing, "location", 2, "x / 2", x=(other, "location.x"))
    return thing


@kind
def nla_strips(scene: Any) -> Any:
    thing = walking(scene)
    data = thing.animation_data
    data.nla_tracks.new().strips.new("Walk", 3, data.action)
    data.action = None
    return thing


@kind
def constrained_and_parented(scene: Any) -> Any:
    thing, target = cube(scene), walking(scene)
    copy = thing.constraints.new("COPY_LOCATION")
    copy.target, copy.influence = target, 0.6
    thing.parent = key(add(scene, "Parent", None), "rotation_euler", (0, 0, 0), (0, 0.6, 0.3))
    thing.matrix_parent_inverse = thing.parent.matrix_world.inverted()
    return thing


@kind
def nested_collection_instance(scene: Any) -> Any:
    inner, outer = bpy.data.collections.new("Inner"), bpy.data.collections.new("Outer")
    part = bpy.data.objects.new("Part", cube(scene).data)
    bpy.data.objects.remove(bpy.data.objects["Cube"])
    inner.objects.link(key(part, "location", (0, 0, 0), (0, 0, 1)))
    holder = bpy.data.objects.new("Holder", None)
    holder.instance_type, holder.instance_collection = "COLLECTION", inner
    outer.objects.link(holder)
    thing = add(scene, "Instance", None)
    thing.instance_type, thing.instance_collection = "COLLECTION", outer
    return key(thing, "location", (-2, 0, 0), (2, 0, 0))


@kind
def vertex_instances(scene: Any) -> Any:
    thing = grid(cells=3)
    part = cube(scene, size=0.2)
    part.parent, thing.instance_type = thing, "VERTS"
    return key(thing, "rotation_euler", (1, 0, 0), (1.5, 0.5, 1))


def add_nodes(thing: Any, *names: str) -> list[Any]:
    """Add a geometry node group that passes the geometry through these nodes in order."""
    tree = bpy.data.node_groups.new("Nodes", "GeometryNodeTree")
    for direction in ("INPUT", "OUTPUT"):
        tree.interface.new_socket("Geometry", in_out=direction, socket_type="NodeSocketGeometry")
    nodes = [tree.nodes.new(name) for name in ("NodeGroupInput", *names, "NodeGroupOutput")]
    for one, following in pairwise(nodes):
        tree.links.new(one.outputs[0], following.inputs[0])
    thing.modifiers.new("Nodes", "NODES").node_group = tree
    return nodes[1:-1]


@kind
def geometry_nodes_instances(scene: Any) -> Any:
    thing = key(grid(cells=3), "location", (-2, 0, 0), (2, 0, 0))
    (on_points,) = add_nodes(thing, "GeometryNodeInstanceOnPoints")
    tree = on_points.id_data
    shape = tree.nodes.new("GeometryNodeMeshCube")
    shape.inputs["Size"].default_value = (0.2, 0.3, 0.4)
    tree.links.new(shape.outputs[0], on_points.inputs["Instance"])
    return thing


@kind
def geometry_nodes_points(scene: Any) -> Any:
    thing = key(grid(cells=3), "rotation_euler", (0.2, 0, 0), (1, 0.3, 1))
    add_nodes(thing, "GeometryNodeMeshToPoints")
    return thing


@kind
def simulation_nodes(scene: Any) -> Any:
    """Each frame moves the points a little from where the previous one left them."""
    thing = grid(cells=2, location=(-1, 0, 0))
    tree = add_nodes(thing, "GeometryNodeSetPosition")[0].id_data
    move = next(node for node in tree.nodes if node.bl_idname == "GeometryNodeSetPosition")
    move.inputs["Offset"].default_value = (0.08, 0, 0.02)
    first, last = (tree.nodes.new(f"GeometryNodeSimulation{end}") for end in ("Input", "Output"))
    first.pair_with_output(last)
    begin = next(node for node in tree.nodes if node.bl_idname == "NodeGroupInput")
    end = next(node for node in tree.nodes if node.bl_idname == "NodeGroupOutput")
    tree.links.new(begin.outputs[0], first.inputs[0])
    tree.links.new(first.outputs[1], move.inputs[0])
    tree.links.new(move.outputs[0], last.inputs[1])
    tree.links.new(last.outputs[0], end.inputs[0])
    return thing


@kind
def orthographic_with_shift(scene: Any) -> Any:
    scene.camera.data.type, scene.camera.data.ortho_scale = "ORTHO", 8
    scene.camera.data.shift_x, scene.camera.data.shift_y = 0.1, -0.05
    key(scene.camera, "location", (0, -10, 0), (1, -10, 0.5))
    return walking(scene)


@kind
def pixels_that_are_not_square(scene: Any) -> Any:
    scene.render.pixel_aspect_x = 1.4
    return walking(scene)


@kind
def remapped_time(scene: Any) -> Any:
    scene.render.frame_map_old, scene.render.frame_map_new = 100, 50
    return walking(scene)


@kind
def camera_that_tracks(scene: Any) -> Any:
    thing = walking(scene)
    aim = scene.camera.constraints.new("TRACK_TO")
    aim.target, aim.track_axis, aim.up_axis = thing, "TRACK_NEGATIVE_Z", "UP_Y"
    aim.influence = 0.5
    return thing


@kind
def lattice_and_wave(scene: Any) -> Any:
    thing = grid()
    lattice = add(scene, "Lattice", bpy.data.lattices.new("Lattice"))
    lattice.scale = (3, 3, 3)
    thing.modifiers.new("Lattice", "LATTICE").object = lattice
    thing.modifiers.new("Wave", "WAVE")
    key(lattice, "rotation_euler", (0, 0, 0), (0.3, 0.6, 0))
    return thing


@kind
def text(scene: Any) -> Any:
    curve = bpy.data.curves.new("Text", "FONT")
    curve.body = "Imp"
    return key(add(scene, "Text", curve), "rotation_euler", (1.5, 0, 0), (1.2, 0.5, 0.5))


@kind
def follows_a_path(scene: Any) -> Any:
    bpy.ops.curve.primitive_bezier_circle_add(radius=2)
    path = bpy.context.object
    thing = cube(scene)
    follow = thing.constraints.new("FOLLOW_PATH")
    follow.target, follow.use_fixed_location = path, True
    key(follow, "offset_factor", 0.0, 0.8)
    return thing


@kind
def grease_pencil(scene: Any) -> Any:
    """A slanted rotating stroke: its bounding box is much larger than the stroke."""
    places = [(number / 6 - 1, 0.3 * math.sin(number), number / 6 - 1) for number in range(12)]
    thing = _old_stroke(scene, places) if bpy.app.version < (4, 3, 0) else _stroke(scene, places)
    return key(thing, "rotation_euler", (0, 0.5, 0), (0.3, 1.2, 0.7))


def _stroke(scene: Any, places: list[tuple[float, float, float]]) -> Any:
    blocks = bpy.data.grease_pencils if bpy.app.version >= (5, 0, 0) else bpy.data.grease_pencils_v3
    drawing = blocks.new("Drawing")
    layer = drawing.layers.new("Layer")
    strokes = layer.frames.new(1).drawing
    strokes.add_strokes([len(places)])
    for point, place in zip(strokes.strokes[0].points, places, strict=True):
        point.position, point.radius = place, 0.1
    layer.translation = (0.2, 0, 0.3)
    thing = add(scene, "Drawing", drawing)
    thing.modifiers.new("Offset", "GREASE_PENCIL_OFFSET").location = (0.1, 0, 0.4)
    return thing


def _old_stroke(scene: Any, places: list[tuple[float, float, float]]) -> Any:
    """Grease Pencil before Blender 4.3."""
    drawing = bpy.data.grease_pencils.new("Drawing")
    layer = drawing.layers.new("Layer")
    stroke = layer.frames.new(1).strokes.new()
    stroke.points.add(len(places))
    for point, place in zip(stroke.points, places, strict=True):
        point.co = place
    layer.location = (0.2, 0, 0.3)
    thing = add(scene, "Drawing", drawing)
    thing.grease_pencil_modifiers.new("Offset", "GP_OFFSET").location = (0.1, 0, 0.4)
    return thing


@kind
def point_cloud(scene: Any) -> Any:
    if bpy.app.version < (4, 3, 0):  # only nodes can create one there
        return geometry_nodes_points(scene)
    grid(cells=3)
    bpy.ops.object.convert(target="POINTCLOUD")
    return key(bpy.context.object, "rotation_euler", (0.2, 0, 0), (1, 0.3, 1))


@kind
def hair_curves(scene: Any) -> Any:
    curves = bpy.data.hair_curves.new("Curves")
    curves.add_curves([5, 5])
    places = np.random.default_rng(3).uniform(-1, 1, 30).astype(np.float32)
    curves.attributes["position"].data.foreach_set("vector", places)
    return key(add(scene, "Curves", curves), "rotation_euler", (0.2, 0, 0), (1, 0.3, 1))


@kind
def cut_by_markers(scene: Any) -> Any:
    """A cut to a second camera that looks in the same direction: the cut counts as no travel."""
    thing = walking(scene)
    other = camera(scene, "Other", (1, -9, 0.4))
    key(scene.camera, "location", (0, -10, 0), (0.5, -10, 0))
    for frame, shown in ((1, scene.camera), (10, other)):
        scene.timeline_markers.new("Cut", frame=frame).camera = shown
    return thing
