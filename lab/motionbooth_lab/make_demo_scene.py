"""Makes demo.blend: a toy, its subject box, and a camera that pans along a road.

    python lab/motionbooth_lab/make_demo_scene.py [OUT.blend]

Needs the bpy module and the extension's package on the path (`pip install -e .[blender]` gives both).
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import bpy

# isort: split
# These can be imported only after bpy.
import bmesh
import motionbooth_addon
from mathutils import Matrix
from motionbooth_addon import compat
from motionbooth_addon.operators.subjects import BOX_DISTANCE, make_box

BUNDLED = Path(__file__).parents[2] / "backend" / "motionbooth" / "cli" / "demo.blend"  # also in the wheel
FPS = 24
FRAMES = 48
SIZE = (960, 640)
LENS, SENSOR = 35.0, 36.0  # mm
PAN = 0.3  # shares of the frame's width by which the camera pans to the right
# Keyframes of the box: frame, center and size in shares of the camera's frame (origin top left). A hop to the right.
KEYS = [
    (1, (0.25, 0.62), (0.40, 0.62)),
    (16, (0.40, 0.42), (0.40, 0.62)),
    (32, (0.60, 0.42), (0.40, 0.62)),
    (48, (0.75, 0.62), (0.40, 0.62)),
]
PURPLE, YELLOW, WHITE, BLACK = (0.30, 0.02, 0.55), (1.0, 0.62, 0.0), (1.0, 1.0, 1.0), (0.01, 0.01, 0.01)


def main(path: Path) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    motionbooth_addon.register()
    try:
        make_scene(bpy.context.scene)
        bpy.ops.wm.save_as_mainfile(filepath=str(path.resolve()), compress=True)
    finally:
        motionbooth_addon.unregister()


def make_scene(scene: bpy.types.Scene) -> None:
    scene.name = "Hop"
    scene.frame_start, scene.frame_end = 1, FRAMES
    scene.render.fps = FPS
    scene.render.resolution_x, scene.render.resolution_y = SIZE
    toy = make_toy(scene)
    make_camera(scene)
    box = make_animated_box(scene)
    make_road(scene)
    set_up_shot(scene, toy, box)
    scene.frame_set(1)


def set_up_shot(scene: bpy.types.Scene, toy: bpy.types.Object, box: bpy.types.Object) -> None:
    shot = scene.motionbooth
    shot.name = "hop"
    shot.prompt = "a sks toy on the road"
    shot.model = "toybox"
    shot.seed = 7
    shot.background_distance = 12.0
    subject = shot.subjects.add()
    subject.name = "Imp"
    subject.token = "sks"
    subject.class_word = "toy"
    subject.object = box
    subject.training_object = toy


def make_camera(scene: bpy.types.Scene) -> None:
    """A fixed camera that pans to the right and eases in and out."""
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    camera.data.lens, camera.data.sensor_width = LENS, SENSOR
    scene.collection.objects.link(camera)
    scene.camera = camera
    camera.location = (0, -12, 1.6)
    angle = PAN * SENSOR / LENS  # for small angles the picture slides by angle x focal length
    for frame, turn in ((1, angle / 2), (FRAMES, -angle / 2)):
        camera.rotation_euler = (math.radians(88), 0, turn)
        camera.keyframe_insert("rotation_euler", frame=frame)


def make_animated_box(scene: bpy.types.Scene) -> bpy.types.Object:
    """A subject box with keyframes in the camera's frame."""
    box = make_box(scene)
    width = BOX_DISTANCE * SENSOR / LENS
    height = width * SIZE[1] / SIZE[0]
    for frame, center, size in KEYS:
        box.location = ((center[0] - 0.5) * width, (0.5 - center[1]) * height, -BOX_DISTANCE)
        box.scale = (size[0] * width, size[1] * height, 1)
        box.keyframe_insert("location", frame=frame)
        box.keyframe_insert("scale", frame=frame)
    return box


def make_toy(scene: bpy.types.Scene) -> bpy.types.Object:
    """A low-poly imp in purple and yellow, about 2 units tall, behind the camera."""
    body = add_part(scene, "Imp", PURPLE, ball((0, 0, 0.85), (0.62, 0.55, 0.72)))
    yellow = [
        ball((0, -0.33, 0.72), (0.38, 0.28, 0.42)),  # belly
        cone((-0.3, 0, 1.62), 0.2, 0.5, tilt=-25),  # horns
        cone((0.3, 0, 1.62), 0.2, 0.5, tilt=25),
        ball((-0.28, -0.2, 0.12), (0.24, 0.34, 0.14)),  # feet
        ball((0.28, -0.2, 0.12), (0.24, 0.34, 0.14)),
    ]
    purple = [ball((-0.66, 0, 0.8), (0.18, 0.18, 0.32)), ball((0.66, 0, 0.8), (0.18, 0.18, 0.32))]  # arms
    white = [ball((-0.2, -0.43, 1.22), (0.15, 0.1, 0.17)), ball((0.2, -0.43, 1.22), (0.15, 0.1, 0.17))]
    black = [ball((-0.18, -0.52, 1.21), (0.07, 0.05, 0.09)), ball((0.18, -0.52, 1.21), (0.07, 0.05, 0.09))]
    for name, color, parts in (
        ("Arms", PURPLE, purple),
        ("Belly, Horns and Feet", YELLOW, yellow),
        ("Eyes", WHITE, white),
        ("Pupils", BLACK, black),
    ):
        add_part(scene, name, color, *parts).parent = body
    body.location = (0, -16, 0)
    return body


def ball(center: tuple[float, float, float], radii: tuple[float, float, float]) -> bmesh.types.BMesh:
    shape = bmesh.new()
    bmesh.ops.create_icosphere(shape, subdivisions=2, radius=1)
    shape.transform(Matrix.Translation(center) @ Matrix.Diagonal((*radii, 1)))
    return shape


def slab(center: tuple[float, float, float], half: tuple[float, float, float]) -> bmesh.types.BMesh:
    shape = bmesh.new()
    bmesh.ops.create_cube(shape, size=2)
    shape.transform(Matrix.Translation(center) @ Matrix.Diagonal((*half, 1)))
    return shape


def cone(center: tuple[float, float, float], radius: float, height: float, tilt: float) -> bmesh.types.BMesh:
    shape = bmesh.new()
    bmesh.ops.create_cone(shape, cap_ends=True, segments=8, radius1=radius, radius2=0, depth=height)
    shape.transform(Matrix.Translation(center) @ Matrix.Rotation(math.radians(tilt), 4, "Y"))
    return shape


def add_part(
    scene: bpy.types.Scene, name: str, color: tuple[float, float, float], *shapes: bmesh.types.BMesh
) -> bpy.types.Object:
    """Add an object of one color, made of one or more shapes."""
    whole = bmesh.new()
    for shape in shapes:
        piece = bpy.data.meshes.new("piece")
        shape.to_mesh(piece)
        shape.free()
        whole.from_mesh(piece)
        bpy.data.meshes.remove(piece)
    mesh = bpy.data.meshes.new(name)
    whole.to_mesh(mesh)
    whole.free()
    mesh.materials.append(paint(name, color))
    part = bpy.data.objects.new(name, mesh)
    scene.collection.objects.link(part)
    return part


def paint(name: str, color: tuple[float, float, float]) -> bpy.types.Material:
    material = bpy.data.materials.new(name)
    material.diffuse_color = (*color, 1)
    if material.node_tree is None:  # before Blender 5.0
        material.use_nodes = True
    shader = material.node_tree.nodes["Principled BSDF"]
    shader.inputs["Base Color"].default_value = (*color, 1)
    shader.inputs["Roughness"].default_value = 0.6
    return material


def make_road(scene: bpy.types.Scene) -> None:
    """A set that makes the pan visible: a gray plain with white dashes, a row of firs and a sky."""
    asphalt = bmesh.new()
    bmesh.ops.create_grid(asphalt, x_segments=1, y_segments=1, size=60)
    add_part(scene, "Asphalt", (0.1, 0.1, 0.12), asphalt)
    dashes = [slab((x, -4, 0.005), (0.8, 0.1, 0.005)) for x in range(-12, 13, 3)]
    add_part(scene, "Dashes", WHITE, *dashes)
    firs = [cone((x, 0, 1.3), 0.8, 2.6, tilt=0) for x in range(-12, 13, 3)]
    add_part(scene, "Firs", (0.02, 0.16, 0.07), *firs)
    sun = bpy.data.objects.new("Sun", bpy.data.lights.new("Sun", "SUN"))
    sun.data.energy = 3.0
    sun.rotation_euler = (math.radians(40), math.radians(15), 0)
    scene.collection.objects.link(sun)
    scene.world = bpy.data.worlds.new("Sky")
    compat.paint_world(scene.world, (0.35, 0.6, 0.9))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else BUNDLED)
