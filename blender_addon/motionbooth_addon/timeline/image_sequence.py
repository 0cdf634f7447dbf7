"""A take as single pictures: its clip written out frame by frame, and placed as an image strip."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import bpy

from .. import compat
from .._protocol.errors import NotFound
from .._protocol.motion import Shot
from . import clips, colors, strips, takes


def write_images(scene: bpy.types.Scene, index: int) -> Generator[tuple[int, int], None, None]:
    """Write the pictures of a take beside its clip, one for each step of the iterator: (done, of how many).

    Then they are placed above the take, which is muted. Closed before that, it leaves the timeline as it was.
    Raises NotFound where the clip is gone, InvalidInput where it is broken.
    """
    take = scene.motionbooth.takes[index]
    clip = clips.clip_of(take)
    if not clip.is_file():
        raise NotFound(f'The clip of take "{take.name}" is not at {clip}; place it again from the job list.')
    shot = takes.spec_of(take).shot
    folder = clip.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [folder / f"{clip.stem}_{frame:04d}.png" for frame in range(shot.frame_start, shot.frame_end + 1)]
    projector = bpy.data.scenes.new(".motionbooth_projector")
    try:
        _load(projector, scene, clip, shot.frame_start, shot.frame_end)
        for number, picture in enumerate(pictures):
            projector.frame_set(shot.frame_start + number)
            projector.render.filepath = str(picture)
            with bpy.context.temp_override(scene=projector):  # given by its name, it would take the window's frame
                bpy.ops.render.render(write_still=True)
            yield number + 1, len(pictures)
    finally:
        bpy.data.scenes.remove(projector)
    _place(scene, index, pictures, shot)


def _load(projector: bpy.types.Scene, scene: bpy.types.Scene, clip: Path, frame_start: int, frame_end: int) -> None:
    """Make it a scene with nothing but the clip on its timeline, that renders the clip's own pixels."""
    colors.show_exact_colors(projector)
    strip = strips.place_clip(projector, clip, clip.stem, frame_start, frame_end)
    projector.frame_start, projector.frame_end = frame_start, frame_end
    projector.render.fps, projector.render.fps_base = scene.render.fps, scene.render.fps_base
    projector.render.resolution_x = strip.elements[0].orig_width
    projector.render.resolution_y = strip.elements[0].orig_height
    strip.transform.scale_x = strip.transform.scale_y = 1.0  # it was fitted to a new scene's size
    projector.render.image_settings.file_format = "PNG"


def _place(scene: bpy.types.Scene, index: int, pictures: list[Path], shot: Shot) -> Any:
    take = scene.motionbooth.takes[index]
    frame_start = shot.frame_start
    all_strips = compat.strips(scene.sequence_editor or scene.sequence_editor_create())
    channel = strips.free_channel(all_strips, frame_start, frame_start + len(pictures) - 1)
    first, *others = pictures
    strip = all_strips.new_image(f"{take.name} pictures", clips.path_for(first), channel, frame_start, fit_method="FIT")
    for picture in others:
        strip.elements.append(picture.name)
    if shot.model_frame is not None:
        strips.put_at(scene, strip, shot.model_frame)
    colors.set_color_space(scene, strip)
    movie = clips.strip_of(scene, take.job_id)
    if movie is not None:
        movie.mute = True
    return strip
