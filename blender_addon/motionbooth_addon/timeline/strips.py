"""A finished clip onto the timeline: a movie strip at the shot's frames, in the clip's own colors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from .. import compat
from .._protocol.errors import InvalidInput
from .._protocol.motion import Box
from ..capture.framing import size
from . import clips, colors

CHANNELS = 128  # of Blender's sequencer


def place_clip(
    scene: bpy.types.Scene, clip: Path, name: str, frame_start: int, frame_end: int, frame: Box | None = None
) -> Any:
    """Put `clip` on a free channel so that it fills `frame_start` to `frame_end` (both included); returns the strip.

    `frame`: where the clip lies in the scene's frame, in shares of that one; None fits it into the scene's.

    The clip must be at the scene's frame rate and have exactly that many frames; the backend makes it so. Raises
    InvalidInput and leaves the timeline as it was where the clip is missing, broken or of another length.
    """
    if not clip.is_file():
        raise InvalidInput(f"The clip {clip} is not there; fetch the take again.")
    editor = scene.sequence_editor or scene.sequence_editor_create()
    strips = compat.strips(editor)
    channel = free_channel(strips, frame_start, frame_end)
    strip = strips.new_movie(name, clips.path_for(clip), channel, frame_start, fit_method="FIT")
    first, last = compat.strip_range(strip)
    if (first, last) != (frame_start, frame_end):
        strips.remove(strip)
        raise InvalidInput(
            f"The clip {clip} has {last - first + 1} readable frames and the shot {frame_end - frame_start + 1}, from "
            f"{frame_start} to {frame_end}; fetch the take again, or film it again if the shot's range has changed."
        )
    if frame is not None:
        put_at(scene, strip, frame)
    colors.set_color_space(scene, strip)
    return strip


def put_at(scene: bpy.types.Scene, strip: Any, frame: Box) -> None:
    """Scale and move a strip so that its picture covers `frame`, in shares of the scene's frame."""
    across, up = scene.render.resolution_x, scene.render.resolution_y
    width, height = size(frame)
    x, y = frame.center
    picture = strip.elements[0]
    strip.transform.scale_x = width * across / picture.orig_width
    strip.transform.scale_y = height * up / picture.orig_height
    strip.transform.offset_x, strip.transform.offset_y = (x - 0.5) * across, (0.5 - y) * up


def covered_by(scene: bpy.types.Scene, strip: Any) -> Box:
    """Where a strip's picture lies in the scene's frame, in shares of that one."""
    across, up = scene.render.resolution_x, scene.render.resolution_y
    placed, picture = strip.transform, strip.elements[0]
    width, height = placed.scale_x * picture.orig_width / across, placed.scale_y * picture.orig_height / up
    x, y = 0.5 + placed.offset_x / across, 0.5 - placed.offset_y / up
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def free_channel(strips: Any, frame_start: int, frame_end: int) -> int:
    """The lowest channel above everything in the way, so that nothing is covered by accident or pushed aside."""
    busy = 0
    for strip in strips:
        first, last = compat.strip_range(strip)
        if first <= frame_end and last >= frame_start:
            busy = max(busy, strip.channel)
    if busy >= CHANNELS:
        raise InvalidInput(
            f"The sequencer has no free channel from frame {frame_start} to {frame_end}; remove or move a strip there."
        )
    return busy + 1
