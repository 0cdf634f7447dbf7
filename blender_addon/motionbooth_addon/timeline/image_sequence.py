"""Writes a take as an image sequence and places it as an image strip."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path

import bpy

from .. import compat
from .._protocol.errors import InvalidInput
from .._protocol.motion import Shot
from . import clips, colors, strips, takes


def write_images(scene: bpy.types.Scene, index: int) -> Generator[tuple[int, int], None, None]:
    """Write a take's images beside its clip, one for each step of the generator, which yields (images done, total).

    A master that is an image sequence is used as it is; of one that is a movie, the images have 16 bits. After the last
    one the images are placed above the take, and the take is muted. If the generator is closed before that, the
    timeline does not change. Raises NotFound if the clip is missing, InvalidInput if it cannot be read or an image
    cannot be written, and OSError.
    """
    take = scene.motionbooth.takes[index]
    clip = clips.existing_clip(take)
    spec = takes.spec_of(take)
    shot = spec.shot
    if spec.master is not None and spec.master.is_sequence:
        images = [spec.master.picture(clip, frame) for frame in range(shot.frame_start, shot.frame_end + 1)]
        if all(image.is_file() for image in images):
            _place_images(scene, index, images, shot)
            yield len(images), len(images)
            return
    movie = takes.master_of(take) or clip
    folder = clip.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    images = [folder / f"{clip.stem}_{frame:04d}.png" for frame in range(shot.frame_start, shot.frame_end + 1)]
    renderer = bpy.data.scenes.new(".motionbooth_renderer")
    try:
        _set_up_renderer(renderer, scene, movie, shot.frame_start, shot.frame_end)
        renderer.render.image_settings.color_depth = "8" if movie == clip else "16"
        for step, image in enumerate(images):
            renderer.frame_start = renderer.frame_end = shot.frame_start + step
            _render(renderer, image)
            yield step + 1, len(images)
    finally:
        with contextlib.suppress(ReferenceError):  # gone by an undo in another window, or with its file
            bpy.data.scenes.remove(renderer)
    _place_images(scene, index, images, shot)


def _render(renderer: bpy.types.Scene, image: Path) -> None:
    """Render the scene's only frame.

    As an animation, because a still would be of the window's frame, and not in `temp_override`: with Python 3.11, an
    operator in it can crash Blender while another thread runs Python (it reads the override without Python's lock).
    """
    renderer.render.filepath = compat.output_path(image.with_name("rendered_####"))
    try:
        bpy.ops.render.render(animation=True, scene=renderer.name)
        Path(renderer.render.frame_path(frame=renderer.frame_start)).replace(image)
    except (RuntimeError, OSError) as error:
        raise InvalidInput(
            "Blender could not write the image {path}. Check the disk space and the folder's permissions.", path=image
        ) from error


def _set_up_renderer(
    renderer: bpy.types.Scene, scene: bpy.types.Scene, clip: Path, frame_start: int, frame_end: int
) -> None:
    """Set up a scene that renders the pixels of the clip unchanged."""
    colors.show_exact_colors(renderer)
    strip = strips.place_clip(renderer, clip, clip.stem, frame_start, frame_end)
    renderer.frame_start, renderer.frame_end = frame_start, frame_end
    renderer.render.fps, renderer.render.fps_base = scene.render.fps, scene.render.fps_base
    renderer.render.resolution_x = strip.elements[0].orig_width
    renderer.render.resolution_y = strip.elements[0].orig_height
    strip.transform.scale_x = strip.transform.scale_y = 1.0  # it was fitted to the default render size
    renderer.render.image_settings.file_format = "PNG"


def _place_images(scene: bpy.types.Scene, index: int, images: list[Path], shot: Shot) -> None:
    take = scene.motionbooth.takes[index]
    frame_start = shot.frame_start
    all_strips = compat.strips(scene.sequence_editor or scene.sequence_editor_create())
    channel = strips.free_channel(all_strips, frame_start, frame_start + len(images) - 1)
    first, *others = images
    strip = all_strips.new_image(f"{take.name} pictures", clips.path_for(first), channel, frame_start, fit_method="FIT")
    for image in others:
        strip.elements.append(image.name)
    if shot.model_frame is not None:
        strips.set_strip_frame(scene, strip, shot.model_frame)
    if first.suffix != ".exr":  # linear, as Blender assumes
        colors.set_color_space(scene, strip)
    movie = clips.strip_of(scene, take.job_id)
    if movie is not None:
        movie.mute = True
