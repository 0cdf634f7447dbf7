"""Shots read from scenes, checked against Blender's own world_to_camera_view on a full evaluation of the scene."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from bpy_extras.object_utils import world_to_camera_view  # noqa: E402
from mathutils import Vector  # noqa: E402
from motionbooth_addon import capture  # noqa: E402
from motionbooth_addon._protocol.errors import InvalidInput  # noqa: E402
from motionbooth_addon._protocol.motion import scene_times  # noqa: E402

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
    reading = capture.read_shot(scene, FRAMES)
    return [box.as_tuple() if box else None for box in reading.shot.subjects[0].boxes]


def check(scene: Any, thing: Any) -> None:
    expected = slow_boxes(scene, thing)
    assert np.ptp(np.array(expected), axis=0).max() > 0.01, "nothing moves in this test"
    assert np.array(read_boxes(scene)) == pytest.approx(np.array(expected), abs=1e-5)


def animate(thing: Any, path: str, first: Any, last: Any, frames: tuple[int, int] = (1, 24)) -> None:
    for frame, value in zip(frames, (first, last), strict=True):
        setattr(thing, path, value)
        thing.keyframe_insert(path, frame=frame)


def new_object(scene: Any, name: str, data: Any, location: tuple[float, float, float] = (0, 10, 0)) -> Any:
    thing = bpy.data.objects.new(name, data)
    thing.location = location
    scene.collection.objects.link(thing)
    return thing


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
    """Its parent and its constraint's target are not subjects, so they are outside the scene that is evaluated."""
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


def rectangle_on_camera(scene: Any, add_cube: Callable[..., Any]) -> Any:
    mesh = bpy.data.meshes.new("Rectangle")
    mesh.from_pydata([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], [], [(0, 1, 2, 3)])
    thing = new_object(scene, "Rectangle", mesh)
    thing.parent = scene.camera
    thing.hide_render = True
    animate(thing, "location", (-1.5, 0, -8), (1.5, 1, -8))
    animate(scene.camera, "location", (0, 0, 0), (9, 3, 1))
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


def test_an_empty_has_the_size_in_which_it_is_drawn(scene: Any, add_subject: Callable[..., Any]) -> None:
    empty = new_object(scene, "Empty", None)
    empty.empty_display_size = 1.0
    add_subject(scene, empty)
    width = 35 / 36 / 9  # the near side of its cube is at distance 9
    assert read_boxes(scene)[0] == pytest.approx(
        (0.5 - width, 0.5 - 1.5 * width, 0.5 + width, 0.5 + 1.5 * width), abs=1e-5
    )


def test_an_empty_with_parts_beneath_it_has_the_box_of_the_parts(
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


def test_a_subject_behind_the_camera_is_out_of_frame_and_said_so(
    scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]
) -> None:
    cube = add_cube(scene)
    animate(cube, "location", (0, 10, 0), (0, -10, 0))
    add_subject(scene, cube)
    reading = capture.read_shot(scene, FRAMES)
    boxes = reading.shot.subjects[0].boxes
    assert boxes[0] is not None
    assert boxes[-1] is None
    assert '"Imp" is behind the camera' in reading.warnings[0]


def path_of(scene: Any, frames: int = FRAMES) -> np.ndarray:
    return np.array([(o.dx, o.dy) for o in capture.read_shot(scene, frames).shot.camera.offsets])


@pytest.fixture
def watched(scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]) -> Any:
    """A scene whose subject is a rectangle on the camera, so that the camera may go anywhere."""
    thing = rectangle_on_camera(scene, add_cube)
    scene.camera.animation_data_clear()
    scene.camera.location = (0, 0, 0)
    add_subject(scene, thing)
    return scene


def test_a_turning_camera_travels_as_far_as_its_picture_slides(watched: Any) -> None:
    turn = math.radians(30)
    animate(watched.camera, "rotation_euler", (math.pi / 2, 0, turn / 2), (math.pi / 2, 0, -turn / 2))
    path = path_of(watched)
    assert path[0] == pytest.approx((0, 0))
    assert path[-1] == pytest.approx((turn * 35 / 36, 0), abs=1e-3)
    steps = np.diff(path[:, 0])
    assert (steps > 0).all()
    assert steps == pytest.approx(steps[::-1], abs=1e-4), "the default easing is symmetric"


def test_the_path_does_not_depend_on_how_many_frames_the_model_makes(watched: Any) -> None:
    animate(watched.camera, "rotation_euler", (math.pi / 2, 0, 1.0), (math.pi / 2, 0, -1.0))
    assert path_of(watched, 3)[-1] == pytest.approx(path_of(watched, 47)[-1], abs=0.01)


def test_a_camera_that_tracks_beside_the_background_slides_by_similar_triangles(watched: Any) -> None:
    animate(watched.camera, "location", (0, 0, 0), (3, 0, -1))
    watched.motionbooth.background_distance = 12
    path = path_of(watched)
    assert path[-1] == pytest.approx((3 / 12 * 35 / 36, 1 / 12 * 35 / 36 * 1.5), abs=1e-5)


def test_a_lens_shift_is_a_pan(watched: Any) -> None:
    lens = watched.camera.data
    for frame, (x, y) in ((1, (0, 0)), (24, (0.25, 0.1))):
        lens.shift_x, lens.shift_y = x, y
        lens.keyframe_insert("shift_x", frame=frame)
        lens.keyframe_insert("shift_y", frame=frame)
    assert path_of(watched)[-1] == pytest.approx((0.25, -0.15), abs=1e-5)


def test_a_camera_that_tracks_a_target_follows_it(watched: Any) -> None:
    """The target is in no way part of the shot; the constraint still sees it move."""
    target = new_object(watched, "Target", None, (0, 10, 0))
    aim = watched.camera.constraints.new("TRACK_TO")
    aim.target, aim.track_axis, aim.up_axis = target, "TRACK_NEGATIVE_Z", "UP_Y"
    animate(target, "location", (0, 10, 0), (5, 10, 0))
    assert path_of(watched)[-1] == pytest.approx((math.atan2(5, 10) * 35 / 36, 0), abs=2e-3)


def test_a_drawn_pan_is_taken_from_its_keyframes_and_counted_from_the_first_frame(watched: Any) -> None:
    watched.motionbooth.camera_mode = "DRAWN"
    animate(watched.camera, "rotation_euler", (math.pi / 2, 0, 0), (math.pi / 2, 0, 1))
    for frame, pan in ((1, (0.1, 0.2)), (24, (0.5, -0.1))):
        watched.motionbooth.pan = pan
        watched.keyframe_insert("motionbooth.pan", frame=frame)
    watched.motionbooth.pan = (9, 9)
    path = path_of(watched)
    assert path[0] == pytest.approx((0, 0))
    assert path[-1] == pytest.approx((0.4, -0.3), abs=1e-6)
    assert len(np.unique(path[:, 0])) == FRAMES


def test_markers_choose_the_camera_and_a_cut_is_said(watched: Any) -> None:
    other = new_object(watched, "Other", bpy.data.cameras.new("Other"), (0, 0, 0))
    other.rotation_euler = (math.pi / 2, 0, math.pi)
    for frame, camera in ((1, watched.camera), (12, other)):
        watched.timeline_markers.new("cut", frame=frame).camera = camera
    reading = capture.read_shot(watched, FRAMES)
    assert "jumps at frame 12" in reading.warnings[0]
    assert reading.shot.subjects[0].boxes[-1] is None


def snapshot(scene: Any) -> Any:
    return (
        scene.frame_current,
        scene.frame_subframe,
        bpy.context.scene.name,
        sorted(bpy.data.scenes.keys()),
        sorted(bpy.data.objects.keys()),
        [thing.name for thing in bpy.context.selected_objects],
        bpy.context.view_layer.objects.active,
        [(thing.name, tuple(map(tuple, thing.matrix_world)), thing.users) for thing in scene.objects],
        [collection.name for collection in bpy.data.collections],
    )


def test_the_users_scene_is_left_as_it_was_even_when_reading_fails(
    scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]
) -> None:
    cube = add_cube(scene)
    animate(cube, "location", (-2, 10, 0), (2, 10, 0))
    add_subject(scene, cube)
    scene.frame_set(7, subframe=0.25)
    cube.select_set(True)
    before = snapshot(scene)
    capture.read_shot(scene, FRAMES)
    assert snapshot(scene) == before
    cube.hide_viewport = True
    with pytest.raises(InvalidInput, match="disabled in viewports"):
        capture.read_shot(scene, FRAMES)
    cube.hide_viewport = False
    animate(cube, "location", (0, -10, 0), (0, -10, 0))
    with pytest.raises(InvalidInput, match="in every frame"):
        capture.read_shot(scene, FRAMES)
    assert sorted(bpy.data.scenes.keys()) == ["Scene"]


def no_camera(scene: Any, subject: Any) -> None:
    scene.camera = None


def no_object(scene: Any, subject: Any) -> None:
    subject.object = None


def no_subject(scene: Any, subject: Any) -> None:
    scene.motionbooth.subjects.clear()


def no_class(scene: Any, subject: Any) -> None:
    subject.class_word = ""


def one_frame(scene: Any, subject: Any) -> None:
    scene.frame_start = scene.frame_end = 5


def panorama(scene: Any, subject: Any) -> None:
    scene.camera.data.type = "PANO"


def lamp(scene: Any, subject: Any) -> None:
    subject.object = new_object(scene, "Lamp", bpy.data.lights.new("Lamp", "POINT"))


def never_seen(scene: Any, subject: Any) -> None:
    subject.object.location = (500, 10, 0)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (no_camera, "has no camera; add one"),
        (no_object, "has no object; choose"),
        (no_subject, "has no subject; add one"),
        (no_class, "needs a name and a class"),
        (one_frame, "range of one frame"),
        (panorama, "make it perspective or orthographic"),
        (lamp, "has no shape; choose"),
        (never_seen, "outside the camera's view in every frame"),
    ],
)
def test_a_scene_that_cannot_be_filmed_says_what_to_do(
    spoil: Callable[..., None], sentence: str, scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]
) -> None:
    spoil(scene, add_subject(scene, add_cube(scene)))
    with pytest.raises(InvalidInput, match=sentence):
        capture.read_shot(scene, FRAMES)


def test_the_shot_carries_range_rate_and_size(
    scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]
) -> None:
    add_subject(scene, add_cube(scene))
    scene.frame_start, scene.frame_end = 3, 26
    scene.render.fps, scene.render.fps_base = 30, 1.001
    scene.render.resolution_percentage = 50
    shot = capture.read_shot(scene, FRAMES).shot
    assert (shot.frame_start, shot.frame_end, shot.scene_frames) == (3, 26, 24)
    assert shot.fps == pytest.approx(30000 / 1001)
    assert (shot.width, shot.height, shot.frames) == (480, 320, FRAMES)
    assert shot.name == "Scene"


def test_reading_costs_nothing_for_a_heavy_scene_around_the_shot(
    scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]
) -> None:
    """What is not a subject is not even evaluated: its driver is never asked."""
    asked = []
    bpy.app.driver_namespace["heavy"] = lambda: asked.append(1) or 0.0
    bystander = add_cube(scene, name="Bystander")
    bystander.driver_add("location", 0).driver.expression = "heavy() + frame * 0"
    add_subject(scene, add_cube(scene))
    asked.clear()
    capture.read_shot(scene, FRAMES)
    assert asked == []
