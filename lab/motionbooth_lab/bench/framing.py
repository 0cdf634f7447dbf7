"""Is a subject displayed where it was drawn if the shot has another aspect ratio than the model? Needs bpy.

A clip of the model's size has a white marker at the box of the submitted shot. It is placed like a finished take and
rendered by the sequencer: the marker must appear where the subject was drawn.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import bpy
import msgspec
import numpy as np
from motionbooth.generation.video import write_clip
from motionbooth.models.settings import BaseSettings
from motionbooth.models.sources import MODELS, TOYBOX
from numpy.typing import NDArray

Array = NDArray[np.float64]

ASPECTS = {"16:9": (640, 360), "4:3": (640, 480), "1:1": (480, 480), "2.39:1": (956, 400)}
FRAMES, LAST = 8, 8
MARKER = 0.7  # size of the rectangle, 8 units away from a camera that sees 8 units across
SHARPER = 4  # supersampling of the marker


def base_sizes() -> dict[str, tuple[int, int]]:
    """Width and height of the clips of each known base model."""
    files = {"toybox": TOYBOX / "motionbooth.json", **{file.stem: file for file in sorted(MODELS.glob("*.json"))}}
    settings = {name: msgspec.json.decode(file.read_bytes(), type=BaseSettings) for name, file in files.items()}
    return {name: (known.width, known.height) for name, known in settings.items()}


def framing_error() -> float:
    """The largest distance between the centers of the marker and the drawn box, as a share of the picture's width."""
    cases = itertools.product(ASPECTS.values(), base_sizes().values(), ("FIT", "CROP"))
    with TemporaryDirectory() as folder:
        return max(error_of(Path(folder), *case) for case in cases)


def error_of(folder: Path, size: tuple[int, int], model: tuple[int, int], how: str) -> float:
    """The error for one aspect ratio, base model and framing, in the first and last frame."""
    from motionbooth_addon._protocol.jobs import GenerateSpec
    from motionbooth_addon.capture import shots
    from motionbooth_addon.timeline import takes

    scene = _new_shot(size, how)
    drawn = [seen.box for seen in shots.read_motion(scene, FRAMES).projections[0]]
    shot = shots.read_shot(scene, FRAMES, model).shot
    clip = folder / "clip.mp4"
    write_clip(clip, np.stack([_marked(model, box) for box in shot.subjects[0].boxes]), shot.fps)
    takes.place_take(scene, "job", GenerateSpec(shot=shot, prompt="a sks toy", model="any", seed=1), clip)
    return max(_off(scene, folder / "frame.png", frame, drawn[frame - 1]) for frame in (1, LAST))


def _new_shot(size: tuple[int, int], how: str) -> Any:
    """A rectangle on the camera that moves from upper left to lower right, within the area that no framing crops."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, LAST
    scene.render.resolution_x, scene.render.resolution_y = size
    scene.view_settings.view_transform = "Standard"
    scene.motionbooth.framing = how
    data = bpy.data.cameras.new("Camera")
    data.type, data.ortho_scale = "ORTHO", 8
    scene.camera = bpy.data.objects.new("Camera", data)
    scene.camera.rotation_euler.x = math.pi / 2
    scene.collection.objects.link(scene.camera)
    mesh = bpy.data.meshes.new("Rectangle")
    half = MARKER / 2
    mesh.from_pydata([(-half, -half, 0), (half, -half, 0), (half, half, 0), (-half, half, 0)], [], [(0, 1, 2, 3)])
    thing = bpy.data.objects.new("Rectangle", mesh)
    thing.parent, thing.hide_render = scene.camera, True
    scene.collection.objects.link(thing)
    for frame, side in ((1, -1), (LAST, 1)):
        thing.location = (side * 0.9, -side * 0.5, -8)
        thing.keyframe_insert("location", frame=frame)
    subject = scene.motionbooth.subjects.add()
    subject.name, subject.class_word, subject.object = "Imp", "toy", thing
    return scene


def _marked(size: tuple[int, int], box: Any) -> NDArray[np.uint8]:
    """A black picture of the model's size with the box in white, anti-aliased."""
    if box is None:
        raise RuntimeError("the framing crops the marker")
    shown = []
    for pixels, low, high in ((size[1], box.y1, box.y2), (size[0], box.x1, box.x2)):
        at = (np.arange(pixels * SHARPER) + 0.5) / (pixels * SHARPER)
        shown.append(((at > low) & (at < high)).reshape(pixels, SHARPER).mean(axis=1))
    grey = np.rint(255 * shown[0][:, None] * shown[1][None, :]).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _off(scene: Any, path: Path, frame: int, drawn: Any) -> float:
    """Distance of the marker's center from the drawn box's, as a share of the picture's width."""
    if drawn is None:
        raise RuntimeError("the marker is out of the frame")
    scene.frame_set(frame)
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True, scene=scene.name)
    image = bpy.data.images.load(str(path), check_existing=False)
    width, height = image.size
    bright = np.array(image.pixels[:]).reshape(height, width, 4)[::-1, :, 0]
    bpy.data.images.remove(image)
    bright = np.where(bright > 0.1, bright, 0.0)  # without what the compression leaves in the black
    if not bright.any():
        raise RuntimeError("the marker is not in the picture")
    x = float(bright.sum(axis=0) @ (np.arange(width) + 0.5)) / bright.sum()
    y = float(bright.sum(axis=1) @ (np.arange(height) + 0.5)) / bright.sum()
    return math.hypot(x - drawn.center[0] * width, y - drawn.center[1] * height) / width
