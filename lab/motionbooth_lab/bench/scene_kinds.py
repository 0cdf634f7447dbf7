"""Many kinds of scenes, each with a subject that is animated in another way. Needs bpy.

`error_of` reads a scene as the extension does and compares it with the truth: the scene, built again, played from its
first frame, with every point projected by Blender's `world_to_camera_view`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import bpy
import numpy as np
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector
from numpy.typing import NDArray

LAST, MODEL_FRAMES, EVERY = 22, 8, 3  # the model has every third frame of the scene
BACKGROUND = 10.0
EXACT = 1e-5  # as a share of the frame: points are float32 of up to 10 units
Array = NDArray[np.float64]

KINDS: dict[str, Callable[[Any], Any]] = {}


def kind(build: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Register a function that fills an empty scene and returns the subject's object."""
    KINDS[build.__name__] = build
    return build


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


# Scenes


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


def _nodes(thing: Any, *names: str) -> list[Any]:
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
    (on_points,) = _nodes(thing, "GeometryNodeInstanceOnPoints")
    tree = on_points.id_data
    shape = tree.nodes.new("GeometryNodeMeshCube")
    shape.inputs["Size"].default_value = (0.2, 0.3, 0.4)
    tree.links.new(shape.outputs[0], on_points.inputs["Instance"])
    return thing


@kind
def geometry_nodes_points(scene: Any) -> Any:
    thing = key(grid(cells=3), "rotation_euler", (0.2, 0, 0), (1, 0.3, 1))
    _nodes(thing, "GeometryNodeMeshToPoints")
    return thing


@kind
def simulation_nodes(scene: Any) -> Any:
    """Each frame moves the points a little from where the previous one left them."""
    thing = grid(cells=2, location=(-1, 0, 0))
    tree = _nodes(thing, "GeometryNodeSetPosition")[0].id_data
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


# Scenes that must be played from their first frame


def _body(thing: Any, kind: str = "ACTIVE") -> Any:
    bpy.context.view_layer.objects.active = thing
    bpy.ops.object.select_all(action="DESELECT")
    thing.select_set(True)
    bpy.ops.rigidbody.object_add()
    thing.rigid_body.type = kind
    return thing


@kind
def rigid_body(scene: Any) -> Any:
    """A body that falls onto a slope and rolls."""
    _body(cube(scene, (0.4, 0, -2), 4, "Floor"), "PASSIVE").rotation_euler.y = 0.4
    return _body(cube(scene, (0, 0, 1.6), 0.8))


@kind
def child_of_a_rigid_body(scene: Any) -> Any:
    body = rigid_body(scene)
    thing = cube(scene, (0.5, 0, 0), 0.5, "Child")
    thing.parent = body
    return thing


@kind
def follows_a_rigid_body(scene: Any) -> Any:
    body = rigid_body(scene)
    thing = cube(scene, (1, 0, 0), 0.5, "Follower")
    thing.constraints.new("COPY_LOCATION").target = body
    return thing


@kind
def driven_by_a_rigid_body(scene: Any) -> Any:
    body, thing = rigid_body(scene), cube(scene, (1, 0, 0), 0.5, "Driven")
    made = driver(thing, "scale", 0, "1 + z", z=(body, ""))
    variable = made.variables[0]
    variable.type = "TRANSFORMS"
    variable.targets[0].id, variable.targets[0].transform_type = body, "LOC_Z"
    return thing


@kind
def instances_of_a_rigid_body(scene: Any) -> Any:
    body = rigid_body(scene)
    thing = key(add(scene, "Nodes", bpy.data.meshes.new("Nodes")), "location", (-1, 0, 0), (1, 0, 0))
    _nodes(thing)
    tree = thing.modifiers[0].node_group
    info = tree.nodes.new("GeometryNodeObjectInfo")
    info.inputs["Object"].default_value, info.transform_space = body, "RELATIVE"
    tree.links.new(info.outputs["Geometry"], tree.nodes["Group Output"].inputs[0])
    return thing


@kind
def camera_on_a_rigid_body(scene: Any) -> Any:
    thing = walking(scene)
    scene.camera.parent = _body(cube(scene, (0, -14, 0), 0.5, "Dolly"))
    return thing


@kind
def cloth(scene: Any) -> Any:
    thing = grid()
    thing.modifiers.new("Cloth", "CLOTH")
    return thing


@kind
def pinned_cloth_that_is_subdivided(scene: Any) -> Any:
    thing = key(grid(), "location", (-1, 0, 1), (1, 0, 1))
    group = thing.vertex_groups.new(name="Pin")
    group.add([0, 8], 1.0, "REPLACE")
    thing.modifiers.new("Cloth", "CLOTH").settings.vertex_group_mass = "Pin"
    thing.modifiers.new("Subdivision", "SUBSURF")
    return thing


@kind
def soft_body(scene: Any) -> Any:
    thing = grid(cells=4)
    thing.modifiers.new("Softbody", "SOFT_BODY")
    thing.soft_body.use_goal = False
    return thing


@kind
def particles(scene: Any) -> Any:
    """An emitter of falling cubes."""
    thing = grid(cells=2, location=(0, 0, 1))
    part = cube(scene, (50, 0, 0), 0.2, "Part")
    settings = thing.modifiers.new("Particles", "PARTICLE_SYSTEM").particle_system.settings
    settings.count, settings.frame_end, settings.lifetime = 20, 10, 100
    settings.render_type, settings.instance_object, settings.particle_size = "OBJECT", part, 1.0
    return thing


@kind
def driven_by_the_scenes_frame(scene: Any) -> Any:
    thing = cube(scene)
    driver(thing, "location", 0, "f / 10 - 1", f=(scene, "frame_current"))
    return thing


@kind
def driven_by_a_property_of_the_scene(scene: Any) -> Any:
    scene["walk"] = 0.0
    for frame, value in ((1, -1.5), (LAST, 1.5)):
        scene["walk"] = value
        scene.keyframe_insert('["walk"]', frame=frame)
    thing = cube(scene)
    driver(thing, "location", 0, "w", w=(scene, '["walk"]'))
    return thing


@kind
def driven_through_an_object_by_the_scene(scene: Any) -> Any:
    between, thing = add(scene, "Between", None), cube(scene)
    driver(between, "location", 2, "f / 20", f=(scene, "frame_current"))
    driver(thing, "location", 0, "z * 2 - 1", z=(between, "location.z"))
    return thing


@kind
def shape_key_driven_by_the_scene(scene: Any) -> Any:
    thing = shape_keys(scene)
    keys = thing.data.shape_keys
    keys.animation_data_clear()
    driver(keys.key_blocks[1], "value", -1, "f / 22", f=(scene, "frame_current"))
    return thing


@kind
def driven_by_an_expression_of_python(scene: Any) -> Any:
    """A driver that reads the scene by name, which the dependency graph doesn't know."""
    thing = cube(scene)
    bpy.app.driver_namespace["walked"] = lambda: bpy.context.scene.frame_current / 10 - 1
    driver(thing, "location", 0, "walked() + frame * 0")
    return thing


@kind
def moved_by_a_script_at_each_frame(scene: Any) -> Any:
    thing = cube(scene)

    def move_thing(changed: Any, _: Any = None) -> None:
        if "Cube" in changed.objects and changed.name == "Scene":
            changed.objects["Cube"].location.x = changed.frame_current / 10 - 1

    bpy.app.handlers.frame_change_pre.append(move_thing)
    return thing


@kind
def hidden_rigid_body(scene: Any) -> Any:
    """Blender doesn't evaluate objects hidden by the eye icon of the Outliner: this one is rejected."""
    thing = rigid_body(scene)
    thing.hide_set(True)
    return thing
