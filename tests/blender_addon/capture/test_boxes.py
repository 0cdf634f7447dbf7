"""Boxes read from scenes, checked against Blender's own world_to_camera_view on a full evaluation of the scene."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from animating import animate, new_object, rectangle_on_camera  # noqa: E402
from bpy_extras.object_utils import world_to_camera_view  # noqa: E402
from mathutils import Vector  # noqa: E402
from motionbooth_addon._protocol.motion import scene_times  # noqa: E402
from motionbooth_addon.capture import shots  # noqa: E402

FRAMES = 8


def evaluated_points(thing: Any, depsgraph: Any) -> list[Vector]:
    """World positions of all vertices of an object and of its instances."""
    points = []
    for instance in depsgraph.object_instances:
        owner = instance.parent if instance.is_instance else instance.object
        if owner and owner.original == thing and instance.object.type != "EMPTY":
            mesh = instance.object.to_mesh()
            points += [instance.matrix_world @ vertex.co for vertex in mesh.vertices]
            instance.object.to_mesh_clear()
    return points


def slow_boxes(scene: Any, thing: Any) -> list[tuple[float, ...]]:
    """Boxes by evaluating the whole scene and Blender's own projection of every vertex."""
    boxes = []
    for moment in scene_times(scene.frame_start, scene.frame_end, FRAMES):
        scene.frame_set(math.floor(moment), subframe=moment % 1)
        depsgraph = bpy.context.evaluated_depsgraph_get()
        camera = scene.camera.evaluated_get(depsgraph)
        seen = np.array([world_to_camera_view(scene, camera, p) for p in evaluated_points(thing, depsgraph)])
        (x1, y1), (x2, y2) = seen[:, :2].min(axis=0), seen[:, :2].max(axis=0)
        boxes.append((x1, 1 - y2, x2, 1 - y1))
    scene.frame_set(scene.frame_start)
    return boxes


def read_boxes(scene: Any) -> list[tuple[float, ...] | None]:
    reading = shots.read_shot(scene, FRAMES)
    return [box.as_tuple() if box else None for box in reading.shot.subjects[0].boxes]


def check(scene: Any, thing: Any) -> None:
    expected = slow_boxes(scene, thing)
    assert np.ptp(np.array(expected), axis=0).max() > 0.01, "nothing moves in this test"
    assert np.array(read_boxes(scene)) == pytest.approx(np.array(expected), abs=1e-5)


def modified_mesh(scene: Any, add_cube: Callable[..., Any]) -> Any:
    cube = add_cube(scene)
    cube.modifiers.new("Subdivision", "SUBSURF").levels = 2
    bend = cube.modifiers.new("Bend", "SIMPLE_DEFORM")
    bend.deform_method = "BEND"
    bend.angle = 0.2
    bend.keyframe_insert("angle", frame=1)
    bend.angle = 1.5
    bend.keyframe_insert("angle", frame=24)
    return cube


def text(scene: Any, add_cube: Callable[..., Any]) -> Any:
    body = bpy.data.curves.new("Text", "FONT")
    body.body = "imp"
    body.extrude = 0.1
    thing = new_object(scene, "Text", body)
    animate(thing, "rotation_euler", (0, 0, 0), (1.2, 0.4, 0.8))
    return thing


def bevelled_curve(scene: Any, add_cube: Callable[..., Any]) -> Any:
    curve = bpy.data.curves.new("Curve", "CURVE")
    curve.dimensions = "3D"
    spline = curve.splines.new("BEZIER")
    spline.bezier_points.add(2)
    for number, point in enumerate(spline.bezier_points):
        point.co = (number - 1, 0, number % 2)
        point.handle_left_type = point.handle_right_type = "AUTO"
    thing = new_object(scene, "Curve", curve)
    curve.bevel_depth = 0.05
    curve.keyframe_insert("bevel_depth", frame=1)
    curve.bevel_depth = 0.4
    curve.keyframe_insert("bevel_depth", frame=24)
    return thing


def armature_driven(scene: Any, add_cube: Callable[..., Any]) -> Any:
    rig = new_object(scene, "Rig", bpy.data.armatures.new("Rig"))
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    bone = rig.data.edit_bones.new("Bone")
    bone.head, bone.tail = (0, 0, -1), (0, 0, 1)
    bpy.ops.object.mode_set(mode="OBJECT")
    cube = add_cube(scene)
    cube.vertex_groups.new(name="Bone").add(range(8), 1.0, "REPLACE")
    cube.modifiers.new("Armature", "ARMATURE").object = rig
    pose = rig.pose.bones["Bone"]
    pose.rotation_mode = "XYZ"
    animate(pose, "rotation_euler", (0, 0, 0), (0, 0.3, 0.9))
    return cube


def parented_constrained_driven(scene: Any, add_cube: Callable[..., Any]) -> Any:
    """Its parent and its constraint's target are not subjects, so they are not in the temporary scene."""
    carrier = new_object(scene, "Carrier", None, (0, 0, 0))
    animate(carrier, "location", (-2, 0, 0), (2, 1, 0))
    target = new_object(scene, "Target", None, (5, 5, 5))
    animate(target, "rotation_euler", (0, 0, 0), (0, 1.0, 0))
    cube = add_cube(scene)
    cube.parent = carrier
    follow = cube.constraints.new("COPY_ROTATION")
    follow.target = target
    driver = cube.driver_add("scale", 2).driver
    variable = driver.variables.new()
    variable.name = "x"
    variable.type = "TRANSFORMS"
    variable.targets[0].id = carrier
    variable.targets[0].transform_type = "LOC_X"
    driver.expression = "1 + x / 4"
    return cube


def collection_instance(scene: Any, add_cube: Callable[..., Any]) -> Any:
    cube = add_cube(scene, (1, 0, 0))
    collection = bpy.data.collections.new("Props")
    collection.objects.link(cube)
    scene.collection.objects.unlink(cube)
    thing = new_object(scene, "Instance", None)
    thing.instance_type, thing.instance_collection = "COLLECTION", collection
    animate(thing, "rotation_euler", (0, 0, 0), (0, 0, 2))
    return thing


def vertex_instances(scene: Any, add_cube: Callable[..., Any]) -> Any:
    thing = add_cube(scene)
    child = add_cube(scene, (0, 0, 0), "Child")
    child.scale = (0.2, 0.2, 0.2)
    child.parent = thing
    thing.instance_type = "VERTS"
    animate(thing, "location", (0, 10, 0), (1, 14, 1))
    return thing


@pytest.mark.parametrize(
    "make",
    [
        modified_mesh,
        text,
        bevelled_curve,
        armature_driven,
        parented_constrained_driven,
        collection_instance,
        vertex_instances,
        rectangle_on_camera,
    ],
)
def test_any_object_has_the_box_of_its_evaluated_vertices(
    make: Callable[..., Any], scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]
) -> None:
    thing = make(scene, add_cube)
    add_subject(scene, thing)
    check(scene, thing)


def test_geometry_nodes_instances_are_part_of_the_box(
    scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]
) -> None:
    nodes = bpy.data.node_groups.new("Copies", "GeometryNodeTree")
    nodes.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    nodes.interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
    start, end = nodes.nodes.new("NodeGroupInput"), nodes.nodes.new("NodeGroupOutput")
    scatter = nodes.nodes.new("GeometryNodeInstanceOnPoints")
    shape = nodes.nodes.new("GeometryNodeMeshCube")
    nodes.links.new(start.outputs[0], scatter.inputs["Points"])
    nodes.links.new(shape.outputs[0], scatter.inputs["Instance"])
    nodes.links.new(scatter.outputs[0], end.inputs[0])
    cube = add_cube(scene)
    cube.modifiers.new("Copies", "NODES").node_group = nodes
    animate(cube, "location", (-1, 12, 0), (1, 12, 0))
    add_subject(scene, cube)
    check(scene, cube)


def test_an_empty_has_its_display_size(scene: Any, add_subject: Callable[..., Any]) -> None:
    empty = new_object(scene, "Empty", None)
    empty.empty_display_size = 1.0
    add_subject(scene, empty)
    width = 35 / 36 / 9  # the near side of its cube is at distance 9
    assert read_boxes(scene)[0] == pytest.approx(
        (0.5 - width, 0.5 - 1.5 * width, 0.5 + width, 0.5 + 1.5 * width), abs=1e-5
    )


@pytest.mark.parametrize("kind", ["curve without splines", "lattice", "helper"])
def test_what_a_render_does_not_show_of_a_rig_adds_nothing_to_a_box(
    kind: str, scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]
) -> None:
    root, cube = new_object(scene, "Root", None), add_cube(scene)
    add_subject(scene, cube)
    alone = shots.read_shot(scene, FRAMES).shot.subjects[0].boxes
    root.location = (0, 0, 0)
    cube.parent = root
    if kind == "helper":
        further = add_cube(scene)
        further.hide_render = True
    else:
        data = bpy.data.lattices.new("Lattice") if kind == "lattice" else bpy.data.curves.new("Curve", "CURVE")
        further = new_object(scene, "Further", data)
    further.parent, further.location = root, (3, 10, 0)
    scene.motionbooth.subjects[0].object = root
    assert shots.read_shot(scene, FRAMES).shot.subjects[0].boxes == alone


def test_an_empty_with_children_has_their_box(
    scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]
) -> None:
    root = new_object(scene, "Root", None, (0, 10, 0))
    left, right = add_cube(scene, (-2, 0, 0), "Left"), add_cube(scene, (2, 0, 0), "Right")
    left.parent = right.parent = root
    add_subject(scene, root)
    parts = np.array([slow_boxes(scene, left)[0], slow_boxes(scene, right)[0]])
    whole = (*parts[:, :2].min(axis=0), *parts[:, 2:].max(axis=0))
    assert read_boxes(scene)[0] == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("fit", ["AUTO", "HORIZONTAL", "VERTICAL"])
@pytest.mark.parametrize("kind", ["PERSP", "ORTHO"])
@pytest.mark.parametrize("size", [(960, 640), (500, 900)])
def test_every_kind_of_lens_agrees_with_blender(
    fit: str,
    kind: str,
    size: tuple[int, int],
    scene: Any,
    add_cube: Callable[..., Any],
    add_subject: Callable[..., Any],
) -> None:
    scene.render.resolution_x, scene.render.resolution_y = size
    scene.render.pixel_aspect_x, scene.render.pixel_aspect_y = 1.0, 1.25
    lens = scene.camera.data
    lens.type, lens.sensor_fit, lens.sensor_height, lens.ortho_scale = kind, fit, 20.0, 8.0
    lens.shift_x, lens.shift_y = 0.1, -0.07
    scene.camera.scale = (2, 3, 0.5)
    cube = add_cube(scene)
    animate(cube, "location", (-0.5, 11, 0), (0.5, 15, 0.4))
    add_subject(scene, cube)
    check(scene, cube)


def test_boxes_are_read_at_fractions_of_frames(
    scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]
) -> None:
    scene.frame_end = 4  # eight model frames in four scene frames
    cube = add_cube(scene)
    animate(cube, "location", (-2, 10, 0), (2, 10, 0), (1, 4))
    add_subject(scene, cube)
    centers = [(x1 + x2) / 2 for x1, _, x2, _ in read_boxes(scene)]
    assert len(set(centers)) == FRAMES
    check(scene, cube)


def test_a_subject_behind_the_camera_has_no_box_and_a_warning(
    scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]
) -> None:
    cube = add_cube(scene)
    animate(cube, "location", (0, 10, 0), (0, -10, 0))
    add_subject(scene, cube)
    reading = shots.read_shot(scene, FRAMES)
    boxes = reading.shot.subjects[0].boxes
    assert boxes[0] is not None
    assert boxes[-1] is None
    assert reading.warnings[0].sentence.values["name"] == "Imp"
