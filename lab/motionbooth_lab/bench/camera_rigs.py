"""Cameras that are animated in many ways, and what the extension reads from them. Needs bpy.

Run as `python -m motionbooth_lab.bench.camera_rigs`, it prints what it measures as JSON.

`capture_error` compares the homographies that the extension reads with Blender's own vector pass of a wall at the
background's distance, or with Blender's projection of it where that pass is incomplete. `read_paths` saves
scenes as .blend files and reads them as batch work does.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy
import msgspec
import numpy as np
import OpenEXR
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector
from motionbooth.control.homography import background_of, cell_centers
from motionbooth.evaluation.camera_adherence import requested_flows_px
from motionbooth_protocol.motion import CameraPath
from numpy.typing import NDArray

from motionbooth_lab.bench.scene_building import add, driver, grid

Array = NDArray[np.float64]

SIZE, FRAMES = (576, 320), 8  # Zeroscope's; one model frame for each scene frame, which the vector pass needs
SAME_NEARNESS = 0.01  # share: float16 has 0.0005
BACKGROUND, LEVEL = 12.0, (math.pi / 2, 0.0, 0.0)

RIGS: dict[str, Callable[[Any, Any], None]] = {}


def rig(build: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """Register a function that animates the camera of a scene from its first to its last frame."""
    RIGS[build.__name__.replace("_", " ")] = build
    return build


def new_scene(name: str, size: tuple[int, int] = SIZE, frames: int = FRAMES) -> Any:
    """A scene with the rig's camera; its subject is a rectangle on the camera."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, frames
    scene.render.resolution_x, scene.render.resolution_y = size
    scene.motionbooth.background_distance = BACKGROUND
    scene.camera = add(scene, "Camera", bpy.data.cameras.new("Camera"))
    scene.camera.rotation_euler = LEVEL
    subject = scene.motionbooth.subjects.add()
    subject.name, subject.class_word, subject.object = "Imp", "toy", grid(cells=1)
    subject.object.parent, subject.object.location = scene.camera, (0, 0, -7)
    subject.object.hide_render = True
    RIGS[name](scene, scene.camera)
    return scene


def key(owner: Any, path: str, *values: Any) -> None:
    """Keyframes at even distances from the first frame to the last."""
    scene = bpy.context.scene
    for frame, value in zip(np.linspace(scene.frame_start, scene.frame_end, len(values)), values, strict=True):
        setattr(owner, path, value)
        owner.keyframe_insert(path, frame=float(frame))


def turned(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> tuple[float, ...]:
    """A tilt, roll and pan by degrees."""
    return (LEVEL[0] + math.radians(x), math.radians(y), math.radians(z))


@rig
def pan(scene: Any, camera: Any) -> None:
    key(camera, "rotation_euler", LEVEL, turned(z=-15))


@rig
def tilt(scene: Any, camera: Any) -> None:
    key(camera, "rotation_euler", LEVEL, turned(x=10))


@rig
def roll(scene: Any, camera: Any) -> None:
    key(camera, "rotation_euler", LEVEL, turned(y=20))


@rig
def zoom(scene: Any, camera: Any) -> None:
    key(camera.data, "lens", 35, 50)


@rig
def dolly(scene: Any, camera: Any) -> None:
    key(camera, "location", (0, 0, 0), (0, 4, 0))


@rig
def track(scene: Any, camera: Any) -> None:
    key(camera, "location", (0, 0, 0), (2, 0, -1))


@rig
def lens_shift(scene: Any, camera: Any) -> None:
    key(camera.data, "shift_x", 0, 0.15)
    key(camera.data, "shift_y", 0, -0.05)


@rig
def shifted_dolly_zoom(scene: Any, camera: Any) -> None:
    camera.data.shift_x, camera.data.shift_y = 0.2, -0.1
    key(camera, "location", (0, 0, 0), (0, -5, 0))
    key(camera.data, "lens", 35, 50)


@rig
def orthographic(scene: Any, camera: Any) -> None:
    camera.data.type, camera.data.ortho_scale = "ORTHO", 8
    key(camera, "location", (0, 0, 0), (1, 2, -0.5))
    key(camera, "rotation_euler", LEVEL, turned(3, 5, 10))


@rig
def orthographic_zoom(scene: Any, camera: Any) -> None:
    camera.data.type = "ORTHO"
    key(camera.data, "ortho_scale", 8, 6)


@rig
def tall_frame_of_oblong_pixels(scene: Any, camera: Any) -> None:
    scene.render.resolution_x, scene.render.resolution_y, scene.render.pixel_aspect_x = SIZE[1], SIZE[0], 1.5
    camera.data.sensor_fit = "VERTICAL"
    key(camera, "rotation_euler", LEVEL, turned(4, 6, -8))


@rig
def orbit_by_track_to(scene: Any, camera: Any) -> None:
    aim = camera.constraints.new("TRACK_TO")
    aim.target, aim.track_axis, aim.up_axis = add(scene, "Target", None, (0, 12, 0)), "TRACK_NEGATIVE_Z", "UP_Y"
    key(camera, "location", (-1, 0, 0), (2, 1, 1))


@rig
def driven_dolly_zoom(scene: Any, camera: Any) -> None:
    """The lens keeps the size of what is at the background's distance."""
    key(camera, "location", (0, 0, 0), (0.5, -4, 0))
    driver(camera.data, "lens", -1, "35 * (12 - y) / 12", y=(camera, "location.y"))


@rig
def follow_path(scene: Any, camera: Any) -> None:
    """Along a curve, with keyed roll and lens."""
    curve = bpy.data.curves.new("Rail", "CURVE")
    curve.dimensions, curve.path_duration = "3D", scene.frame_end
    spline = curve.splines.new("BEZIER")
    spline.bezier_points.add(2)
    for point, place in zip(spline.bezier_points, ((0, 0, 0), (1.2, 0.8, 0.2), (1.8, 2.4, -0.3)), strict=True):
        point.co, point.handle_left_type, point.handle_right_type = place, "AUTO", "AUTO"
    rail = camera.constraints.new("FOLLOW_PATH")
    rail.target, rail.use_fixed_location = add(scene, "Rail", curve), True
    key(rail, "offset_factor", 0.0, 1.0)
    key(camera, "rotation_euler", LEVEL, turned(y=-8, z=4))
    key(camera.data, "lens", 40, 36)


@rig
def handheld(scene: Any, camera: Any) -> None:
    """A walk with noise on all channels and a slow zoom."""
    key(camera, "location", (0, 0, 0), (0.9, -1.5, 0.2))
    key(camera, "rotation_euler", turned(y=-5), turned(1, 6, -3))
    key(camera.data, "lens", 38, 42)
    for number, curve in enumerate(_curves(camera)):
        noise = curve.modifiers.new("NOISE")
        noise.scale, noise.phase = scene.frame_end / 3, 10.0 * number
        noise.strength = 0.5 if curve.data_path == "location" else 0.08


def _curves(owner: Any) -> list[Any]:
    """The F-curves of an action with one layer; Blender 5 has no others."""
    action = owner.animation_data.action
    return [curve for bag in action.layers[0].strips[0].channelbags for curve in bag.fcurves]


@rig
def crane(scene: Any, camera: Any) -> None:
    """On a boom that turns on a base that rolls forward, aimed at something that moves."""
    base = add(scene, "Base", None, (-1, -5, -1))
    boom = add(scene, "Boom", None, (0, 0, 1))
    boom.parent, camera.parent, camera.location = base, boom, (0, 5, 0)
    aimed = add(scene, "Aimed at", None)
    aim = camera.constraints.new("TRACK_TO")
    aim.target, aim.track_axis, aim.up_axis, aim.influence = aimed, "TRACK_NEGATIVE_Z", "UP_Y", 0.8
    key(base, "location", (-1, -5, -1), (-0.5, -3.5, -1))
    key(boom, "rotation_euler", (0, 0, 0), (0.15, 0.1, -0.2))
    key(aimed, "location", (-1, 12, 0), (-0.5, 12, 0.3), (0.7, 12, 0.4))


WITHOUT_VECTORS = ("lens shift", "orthographic", "orthographic zoom")
"""What the vector pass of Cycles leaves out: an animated lens shift, and how an orthographic camera moves."""

SPARSE = 16  # every so many pixels

MIXED = ("crane", "follow path", "handheld")
LAYERED = "dolly with two layers"


@rig
def dolly_with_two_layers(scene: Any, camera: Any) -> None:
    """On the left, a wall at half the background's distance."""
    scene.motionbooth.use_parallax = True
    for name, left, right, depth in (("Near", -40, -0.3, BACKGROUND / 2), ("Far", -40, 40, BACKGROUND)):
        mesh = bpy.data.meshes.new(name)
        corners = [(left, depth, -40), (right, depth, -40), (right, depth, 40), (left, depth, 40)]
        mesh.from_pydata(corners, [], [(0, 1, 2, 3)])
        add(scene, name, mesh)
    key(camera, "location", (0, 0, 0), (0, 2, 0))


def read_paths(size: tuple[int, int], frames: int, every: int = 3) -> dict[str, Any]:
    """The camera paths of MIXED and LAYERED at a model's size and frames, read from .blend files.

    The model's frames are `every` scene frames apart.
    """
    from motionbooth_addon.capture import shots

    paths: dict[str, Any] = {}  # the extension's own CameraPath
    with tempfile.TemporaryDirectory(prefix="motionbooth-bench-") as folder:
        for name in (*MIXED, LAYERED):
            file = str(Path(folder, f"{name}.blend"))
            new_scene(name, (size[0] * 10, size[1] * 10), (frames - 1) * every + 1)
            bpy.ops.wm.save_as_mainfile(filepath=file)
            bpy.ops.wm.read_factory_settings(use_empty=True)
            bpy.ops.wm.open_mainfile(filepath=file)
            paths[name] = shots.read_shot(bpy.context.scene, frames, size).shot.camera
    return paths


def capture_error(name: str) -> float:
    """The largest difference, in pixels, between a rig's motion as read and as in Blender's vector pass.

    Over all pixels that show the wall, or as near a wall as was read, from each frame to the next. See WITHOUT_VECTORS.
    """
    from motionbooth_addon.capture import shots

    scene = new_scene(name)
    read = shots.read_shot(scene, FRAMES).shot.camera
    camera = msgspec.convert(msgspec.to_builtins(read), CameraPath)  # the extension has its own copy of it
    _add_wall(scene)
    _set_up_rendering(scene)
    first = np.array(scene.camera.matrix_world.normalized())
    width, height = scene.render.resolution_x, scene.render.resolution_y
    points = cell_centers((height, width))
    asked = requested_flows_px(camera, [points.numpy()] * (FRAMES - 1), width, height)
    near = background_of(camera).shown_nearness(points).numpy() if camera.parallax else np.ones((FRAMES, 1))
    motion_to_next = _projected_motion if name in WITHOUT_VECTORS else _vector_pass
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="motionbooth-bench-") as folder:
        for index, motion in enumerate(asked):
            scene.frame_set(scene.frame_start + index)
            passes = _rendered(scene, Path(folder, "passes.exr"))
            places = np.stack([passes[f"Position.{axis}"] for axis in "XYZ"], axis=-1).reshape(-1, 3)
            depth = (first[:3, 3] - places) @ first[:3, 2]  # the camera looks along -z
            seen = np.abs(depth * near[index] / BACKGROUND - 1) < SAME_NEARNESS
            assert seen.mean() > 0.5, f"{name}: the wall fills little of the frame"
            errors = np.linalg.norm(motion_to_next(scene, passes).reshape(-1, 2) - motion, axis=-1)
            worst = max(worst, float(np.nanmax(errors[seen])))
    return worst


def _add_wall(scene: Any) -> None:
    """Facing the first view, at the background's distance."""
    scene.frame_set(scene.frame_start)
    wall = grid(size=200.0, cells=1)
    world = scene.camera.matrix_world.normalized()
    wall.matrix_world = world @ type(world).Translation((0, 0, -BACKGROUND))


def _set_up_rendering(scene: Any) -> None:
    """One sample in the middle of each pixel."""
    scene.render.engine, scene.cycles.device, scene.cycles.samples = "CYCLES", "CPU", 1
    scene.cycles.use_denoising, scene.cycles.use_adaptive_sampling, scene.cycles.max_bounces = False, False, 0
    scene.cycles.pixel_filter_type, scene.cycles.filter_width = "BLACKMAN_HARRIS", 0.01
    scene.render.use_motion_blur = False
    layer = scene.view_layers[0]
    layer.use_pass_vector = layer.use_pass_position = True
    settings = scene.render.image_settings
    if hasattr(settings, "media_type"):  # since 5.0
        settings.media_type = "MULTI_LAYER_IMAGE"
    settings.file_format, settings.color_depth, settings.exr_codec = "OPEN_EXR_MULTILAYER", "32", "ZIP"
    settings.use_exr_interleave = True


def _rendered(scene: Any, file: Path) -> dict[str, Array]:
    """The passes of the scene's current frame by the names of their channels, (H, W) each."""
    scene.render.filepath = str(file)
    bpy.ops.render.render(write_still=True)
    (part,) = OpenEXR.File(str(file), separate_channels=True).parts
    return {name.split(".", 1)[1]: channel.pixels.astype(np.float64) for name, channel in part.channels.items()}


def _vector_pass(scene: Any, passes: dict[str, Array]) -> Array:
    """(H, W, 2): the motion of each pixel to the next frame, in pixels, y down."""
    # Cycles has the position here minus that in the next frame, y up
    return np.stack([-passes["Vector.Z"], passes["Vector.W"]], axis=-1)


def _projected_motion(scene: Any, passes: dict[str, Array]) -> Array:
    """The same from the pixels' places in the world, which Blender projects in the next frame; NaN for most pixels."""
    scene.frame_set(scene.frame_current + 1)
    places = np.stack([passes[f"Position.{axis}"] for axis in "XYZ"], axis=-1)
    height, width = places.shape[:2]
    motion = np.full((height, width, 2), np.nan)
    for row in range(0, height, SPARSE):
        for column in range(0, width, SPARSE):
            x, y, _ = world_to_camera_view(scene, scene.camera, Vector(places[row, column]))
            motion[row, column] = x * width - column - 0.5, (1 - y) * height - row - 0.5
    return motion


def _main(measure: str, *numbers: str) -> None:
    """`errors`: of all rigs; `paths WIDTH HEIGHT FRAMES`: the camera paths of `read_paths`."""
    import motionbooth_addon

    motionbooth_addon.register()
    if measure == "errors":
        print(json.dumps({name: capture_error(name) for name in RIGS}))
    else:
        width, height, frames = map(int, numbers)
        print(json.dumps(msgspec.to_builtins(read_paths((width, height), frames))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
