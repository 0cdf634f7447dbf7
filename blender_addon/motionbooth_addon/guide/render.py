"""Renders a guide: the scene at each model frame, small and fast, and masks of its subjects."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import bpy
import numpy as np

from .._protocol.errors import InvalidInput
from .._protocol.motion import Box
from ..capture import framing
from ..capture.dependencies import playback_reason
from ..capture.scene_evaluation import playback_start
from ..turntable.background_render import CYCLES, GUIDE, MASKS, PREVIEW, SCENE
from ..turntable.turntable import Pixels, add_light, render_still, use_cycles, use_plain_colors, write_png
from .animated_png import write_animated_png

LONGEST = 512  # pixels of the longer side: the model has a cell for 8 of its own
SAMPLES = 16  # light paths a pixel


def render_library(
    folder: str,
    scene_name: str,
    times: Sequence[float],
    frame: Sequence[float],
    size: tuple[int, int],
    fps: float,
    masked: Sequence[str],
    engine: str,
    on_progress: Callable[[int, int], None],
) -> list[str]:
    """Render the scene of `folder`/scene.blend into guide.png, masks.png (if any objects are `masked`) and a preview.

    times: the scene frames. frame: the model's in the shot's. size: the model's, in pixels. Returns the written clips.
    """
    with bpy.data.libraries.load(str(Path(folder) / SCENE)) as (_, wanted):
        wanted.scenes = [scene_name]
    scene = wanted.scenes[0]
    if scene is None:
        raise InvalidInput('Scene "{scene}" cannot be read.', scene=scene_name)
    scale = min(1.0, LONGEST / max(size))
    small = round(size[0] * scale), round(size[1] * scale)
    total = len(times) * (2 if masked else 1)
    _set_up(scene, small, Box(*frame), engine)
    clips = {GUIDE: [pixels[..., :3] for pixels in _frames(scene, times, small, on_progress, 0, total)]}
    if masked:
        _show_only(scene, masked)
        channel = 3 if engine == CYCLES else 0
        clips[MASKS] = [pixels[..., channel] for pixels in _frames(scene, times, small, on_progress, len(times), total)]
    paths = [Path(folder) / name for name in clips]
    for path, frames in zip(paths, clips.values(), strict=True):
        write_animated_png(path, frames, fps)
    shown = clips[GUIDE]
    write_png(Path(folder) / PREVIEW, np.concatenate([shown[0], shown[len(shown) // 2], shown[-1]], axis=1))
    return [str(path) for path in paths]


def _set_up(scene: bpy.types.Scene, size: tuple[int, int], frame: Box, engine: str) -> None:
    """The whole shot, so large that the model's frame in it has this size; cut and padded to it later."""
    across, up = framing.size(frame)
    render = scene.render
    render.resolution_x, render.resolution_y = round(size[0] / across), round(size[1] / up)
    render.resolution_percentage = 100
    render.pixel_aspect_x = render.pixel_aspect_y = 1
    render.use_border = render.use_multiview = render.use_motion_blur = render.use_stamp = False
    render.film_transparent = False  # the world is a part of the guide
    use_plain_colors(scene)
    if engine == CYCLES:
        use_cycles(scene, SAMPLES)
        if not _is_lit(scene):
            add_light(scene, [])  # a blockout without lamps is black in a render
    else:
        _use_workbench(scene)


def _use_workbench(scene: bpy.types.Scene) -> None:
    """Use the engine of the solid view, with the colors of the render."""
    scene.render.engine = "BLENDER_WORKBENCH"
    shading = scene.display.shading
    shading.light, shading.color_type = "STUDIO", "TEXTURE"  # without a texture, the material's color
    for material in bpy.data.materials:
        if (color := _input_color(material, "BSDF_PRINCIPLED", "Base Color")) is not None:
            material.diffuse_color = color
    if scene.world and (color := _input_color(scene.world, "BACKGROUND", "Color")) is not None:
        scene.world.color = color[:3]


def _input_color(block: bpy.types.Material | bpy.types.World, kind: str, name: str) -> Sequence[float] | None:
    """The color of a node's input, unless it comes from another node."""
    nodes = block.node_tree.nodes if block.node_tree is not None else ()
    inputs = [node.inputs[name] for node in nodes if node.type == kind]
    return tuple(inputs[0].default_value) if inputs and not inputs[0].is_linked else None


def _is_lit(scene: bpy.types.Scene) -> bool:
    """Whether it has lamps, or a world with a picture of a sky."""
    sky = scene.world.node_tree.nodes if scene.world and scene.world.node_tree else ()
    return any(thing.type == "LIGHT" and not thing.hide_render for thing in scene.objects) or any(
        node.type in {"TEX_ENVIRONMENT", "TEX_SKY"} for node in sky
    )


def _show_only(scene: bpy.types.Scene, masked: Sequence[str]) -> None:
    """From now on, a picture's alpha is what is seen of these objects; in Workbench they are white, the rest black."""
    subjects = {thing for thing in scene.objects if thing.name in masked}
    for instancer in list(subjects):
        if instancer.instance_collection is not None:
            subjects.update(instancer.instance_collection.all_objects)
    for thing in bpy.data.objects:
        thing.is_holdout = thing not in subjects
        thing.color = (float(thing in subjects),) * 3 + (1.0,)
    if scene.render.engine == "CYCLES":
        scene.render.film_transparent = True
        return
    shading = scene.display.shading
    shading.light, shading.color_type, shading.show_specular_highlight = "FLAT", "OBJECT", False
    if scene.world:
        scene.world.color = (0.0, 0.0, 0.0)


def _frames(
    scene: bpy.types.Scene,
    times: Sequence[float],
    size: tuple[int, int],
    on_progress: Callable[[int, int], None],
    done: int,
    total: int,
) -> list[Pixels]:
    """The scene's pictures at these times, RGBA (H, W, 4) of this size; a scene with simulations is played."""
    played = playback_reason(scene.objects) is not None
    frames, next_frame = [], playback_start(scene)
    for number, time in enumerate(times, 1):
        whole = math.floor(time)
        while played and next_frame < whole:
            scene.frame_set(next_frame)
            next_frame += 1
        scene.frame_set(whole, subframe=time - whole)
        pixels = render_still(scene)
        frames.append(_fitted(_fitted(pixels, size[1], 0), size[0], 1))
        on_progress(done + number, total)
    return frames


def _fitted(pixels: Pixels, length: int, axis: int) -> Pixels:
    """Cut or padded to a length of this axis, around its middle; the padding repeats the edge."""
    missing = length - pixels.shape[axis]
    if missing < 0:
        return pixels.take(range(-missing // 2, -missing // 2 + length), axis)
    margin = [(0, 0)] * 3
    margin[axis] = missing // 2, missing - missing // 2
    return np.pad(pixels, margin, mode="edge")
