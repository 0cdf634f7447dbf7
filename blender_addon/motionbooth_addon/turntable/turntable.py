"""Renders training pictures of a 3-D object: from all sides, on plain and on varied backgrounds, with exact masks.

The object is rendered once for each direction with a transparent film, so that its alpha is the mask, and composited
over drawn backgrounds. Everything is seeded: the same object gives the same bytes, and so the same training job, for
which a backend returns its cached result.
"""

from __future__ import annotations

import math
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Euler, Matrix, Vector

from .. import compat
from .._protocol.errors import InvalidInput
from ..capture.geometry import NOT_RENDERED, rendered_of
from ..capture.projection import Array

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

LENS_ANGLE = math.radians(30)


@dataclass(frozen=True)
class TurntableSettings:
    """size: width and height in pixels.

    samples: light paths a pixel.
    fill: the share of the picture's width that the object's bounding sphere spans.
    directions: camera directions in degrees: around, counted from the object's front (-y), and above.
    """

    size: int
    samples: int = 32
    fill: float = 1.0
    directions: tuple[tuple[float, float], ...] = (
        (0, 8), (30, 15), (-30, 15), (60, 8), (-60, 8), (15, 25), (-15, 2), (180, 12),
    )  # fmt: skip
    seed: int = 0


@dataclass(frozen=True)
class TrainingPicture:
    """A picture file and its mask file, if there is one: grey, of the same size, white where the subject is."""

    image: Path
    mask: Path | None


def render_turntable(
    scene: bpy.types.Scene,
    thing: bpy.types.Object,
    folder: Path,
    settings: TurntableSettings,
    on_picture: Callable[[int, int], None] = lambda done, total: None,
) -> list[TrainingPicture]:
    """Render `thing` and its children, as they are at the first frame of `scene`, into `folder`.

    Every other picture has a plain background. `on_picture` receives the number of finished pictures and the total.
    Raises InvalidInput if nothing is visible.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    with _studio(scene, thing, settings) as studio:
        center, radius = _bounding_sphere(studio, thing)
        for index, direction in enumerate(settings.directions):
            _aim(studio.camera, center, radius, direction, settings)
            rgba = render_still(studio)
            if not rgba[..., 3].any():
                raise InvalidInput(
                    'The training object "{object}" is invisible in a render; choose an object with a visible surface.',
                    object=thing.name,
                )
            image, mask = folder / f"{index:02d}.png", folder / f"{index:02d}_mask.png"
            random = np.random.default_rng([settings.seed, index])
            draw = plain_background if index % 2 == 0 else varied_background
            write_png(image, composite(rgba, draw(random, settings.size)))
            write_png(mask, rgba[..., 3])
            pictures.append(TrainingPicture(image, mask))
            on_picture(index + 1, len(settings.directions))
    return pictures


def render_library(
    blend: str, collection: str, frame: int, size: int, folder: str, on_picture: Callable[[int, int], None]
) -> list[tuple[str, str | None]]:
    """`render_turntable` of the object whose children are the rest of a library's collection, at a frame.

    Returns each picture and its mask.
    """
    scene = bpy.context.scene
    scene.frame_start = frame
    with bpy.data.libraries.load(blend) as (_, wanted):
        wanted.collections = [collection]
    parts = set(wanted.collections[0].objects)
    (thing,) = (part for part in parts if part.parent not in parts)
    pictures = render_turntable(scene, thing, Path(folder), TurntableSettings(size), on_picture)
    return [(str(picture.image), str(picture.mask) if picture.mask else None) for picture in pictures]


def composite(rgba: Pixels, background: Pixels) -> Pixels:
    """Composite (H, W, 4) with straight alpha over (H, W, 3)."""
    alpha = rgba[..., 3:].astype(np.float64) / 255
    return np.rint(rgba[..., :3] * alpha + background * (1 - alpha)).astype(np.uint8)


def plain_background(random: np.random.Generator, size: int) -> Pixels:
    """One light color. (size, size, 3)"""
    return np.broadcast_to(random.integers(170, 245, size=3).astype(np.uint8), (size, size, 3)).copy()


def varied_background(random: np.random.Generator, size: int) -> Pixels:
    """Soft random blobs over a horizon of two colors, which resemble no subject. (size, size, 3)"""
    sky, ground = random.integers(40, 225, size=(2, 1, 1, 3))
    rows = np.arange(size)[:, None, None]
    scene = np.where(rows < random.uniform(0.4, 0.7) * size, sky, ground).astype(np.float64)
    scene = np.broadcast_to(scene, (size, size, 3)).copy()
    for cells in (4, 9, 19):
        coarse = random.normal(0, 45 / math.sqrt(cells), size=(cells, cells, 3))
        scene += _enlarge(coarse, size)
    return np.clip(np.rint(scene), 0, 255).astype(np.uint8)


def _enlarge(coarse: Array, size: int) -> Array:
    """Enlarge (n, n, 3) to (size, size, 3), bilinear."""
    at = np.linspace(0, len(coarse) - 1, size)
    low = np.minimum(at.astype(int), len(coarse) - 2)
    part = at - low
    rows = coarse[low] * (1 - part)[:, None, None] + coarse[low + 1] * part[:, None, None]
    return rows[:, low] * (1 - part)[None, :, None] + rows[:, low + 1] * part[None, :, None]


def write_png(path: Path, pixels: Pixels) -> None:
    """Write (H, W) gray or (H, W, 3) RGB as PNG, without the dates that Blender adds: same pixels, same bytes."""
    height, width = pixels.shape[:2]
    color = 2 if pixels.ndim == 3 else 0
    rows = pixels.reshape(height, -1)
    raw = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    header = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, data) for kind, data in chunks))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@contextmanager
def _studio(scene: bpy.types.Scene, thing: bpy.types.Object, settings: TurntableSettings) -> Iterator[bpy.types.Scene]:
    """A temporary scene with copies of `thing` and its children, three lamps and a camera.

    Copies, because all of them may be hidden in renders; they share meshes, materials and animation.
    """
    studio = bpy.data.scenes.new(".motionbooth_turntable")
    made: list[bpy.types.ID] = []
    try:
        parts = (thing, *thing.children_recursive)
        for part in rendered_of(part for part in parts if part.type not in NOT_RENDERED or part.instance_collection):
            copy = part.copy()
            made.append(copy)
            copy.hide_render = copy.hide_viewport = False
            studio.collection.objects.link(copy)
        add_light(studio, made)
        lens = bpy.data.cameras.new(".motionbooth_turntable")
        studio.camera = bpy.data.objects.new(".motionbooth_turntable", lens)
        made += [studio.camera, lens]
        lens.angle = LENS_ANGLE
        studio.collection.objects.link(studio.camera)
        _set_up_render(studio, settings)
        studio.frame_set(scene.frame_start)
        yield studio
    finally:
        bpy.data.scenes.remove(studio)
        bpy.data.batch_remove(made)


def add_light(studio: bpy.types.Scene, made: list[bpy.types.ID]) -> None:
    """Soft light from the front left, a weaker one from the right, one from behind: no side is black."""
    if studio.world is None:
        studio.world = bpy.data.worlds.new(".motionbooth_turntable")
        made.append(studio.world)
        compat.paint_world(studio.world, (0.25, 0.25, 0.25))
    for strength, tilt, around in ((2.2, 50, -35), (0.9, 60, 70), (1.2, 45, 180)):
        lamp = bpy.data.lights.new(".motionbooth_turntable", "SUN")
        lamp.energy, lamp.angle = strength, math.radians(20)
        stand = bpy.data.objects.new(".motionbooth_turntable", lamp)
        stand.rotation_euler = Euler((math.radians(tilt), 0, math.radians(around)))
        studio.collection.objects.link(stand)
        made += [stand, lamp]


def _set_up_render(studio: bpy.types.Scene, settings: TurntableSettings) -> None:
    use_cycles(studio, settings.samples, settings.seed)
    use_plain_colors(studio)
    render = studio.render
    render.film_transparent = True
    render.resolution_x = render.resolution_y = settings.size
    render.resolution_percentage = 100


def use_cycles(scene: bpy.types.Scene, samples: int, seed: int = 0) -> None:
    """Use Cycles on the CPU: the only engine that runs without a display and gives the same bytes every time."""
    scene.render.engine = "CYCLES"
    scene.render.use_persistent_data = True
    scene.cycles.device = "CPU"
    scene.cycles.samples = samples
    scene.cycles.seed = seed
    scene.cycles.use_adaptive_sampling = False
    scene.cycles.use_denoising = False
    scene.cycles.max_bounces = 2


def use_plain_colors(scene: bpy.types.Scene) -> None:
    """Render to RGBA of 8 bits with the materials' own colors."""
    render = scene.render
    render.dither_intensity = 0.0
    render.use_compositing = render.use_sequencer = False
    compat.save_images(render.image_settings)
    render.image_settings.file_format = "PNG"
    render.image_settings.color_mode = "RGBA"
    render.image_settings.color_depth = "8"
    render.image_settings.color_management = "FOLLOW_SCENE"
    scene.view_settings.view_transform = "Standard"


def _bounding_sphere(studio: bpy.types.Scene, thing: bpy.types.Object) -> tuple[Vector, float]:
    depsgraph = studio.view_layers[0].depsgraph
    corners = [
        instance.matrix_world @ Vector(corner)
        for instance in depsgraph.object_instances
        if instance.object.type not in NOT_RENDERED
        for corner in instance.object.bound_box
    ]
    points = np.array(corners).reshape(-1, 3)
    if not len(points) or not np.ptp(points, axis=0).any():
        raise InvalidInput(
            'The training object "{object}" has nothing to render; choose a mesh, or the parent of its parts.',
            object=thing.name,
        )
    center = (points.min(axis=0) + points.max(axis=0)) / 2
    return Vector(center), float(np.linalg.norm(points - center, axis=1).max())


def _aim(
    camera: bpy.types.Object,
    center: Vector,
    radius: float,
    direction: tuple[float, float],
    settings: TurntableSettings,
) -> None:
    around, above = map(math.radians, direction)
    distance = radius / math.sin(LENS_ANGLE / 2) / settings.fill
    turn = Euler((math.pi / 2 - above, 0, around)).to_matrix().to_4x4()
    camera.matrix_world = Matrix.Translation(center) @ turn @ Matrix.Translation((0, 0, distance))
    camera.data.clip_start, camera.data.clip_end = distance / 1000, distance * 10


def render_still(scene: bpy.types.Scene) -> Pixels:
    """Render the current frame. (H, W, 4), straight alpha, top row first.

    Not where another thread runs Python: see `image_sequence`, which has no need of the frame's fraction.
    """
    with tempfile.TemporaryDirectory(prefix="motionbooth_") as folder:
        scene.render.filepath = str(Path(folder) / "view.png")
        with bpy.context.temp_override(scene=scene):  # with its `scene` argument, render() would use the window's frame
            bpy.ops.render.render(write_still=True)
        image = bpy.data.images.load(scene.render.filepath)
        try:
            image.alpha_mode = "STRAIGHT"
            width, height = image.size
            values = np.empty(width * height * 4, dtype=np.float32)
            image.pixels.foreach_get(values)
        finally:
            bpy.data.images.remove(image)
    return np.rint(values.reshape(height, width, 4)[::-1] * 255).astype(np.uint8)
