"""Places a finished clip on the timeline as a movie strip at the shot's frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from .. import compat
from .._protocol.errors import InvalidInput
from .._protocol.motion import Box
from ..capture.framing import size
from . import clips, colors

MAX_CHANNELS = 128  # of Blender's sequencer


def place_clip(
    scene: bpy.types.Scene, clip: Path, name: str, frame_start: int, frame_end: int, frame: Box | None = None
) -> Any:
    """Place `clip` on a free channel from `frame_start` to `frame_end` (both included), and return its strip.

    frame: the position of the clip in the scene's frame, in shares of the frame; None fits it into the frame.

    The clip must have the scene's frame rate and exactly that many frames, as the backend encodes it. Raises
    InvalidInput, without a change to the timeline, if the clip is missing, unreadable or of another length.
    """
    if not clip.is_file():
        raise InvalidInput("The clip {clip} does not exist. Add the take again from the job list.", clip=clip)
    editor = scene.sequence_editor or scene.sequence_editor_create()
    strips = compat.strips(editor)
    channel = free_channel(strips, frame_start, frame_end)
    strip = strips.new_movie(name, clips.path_for(clip), channel, frame_start, fit_method="FIT")
    first, last = compat.strip_range(strip)
    if (first, last) != (frame_start, frame_end):
        strips.remove(strip)
        raise InvalidInput(
            "The clip {clip} has {found} readable frames, but the shot has {expected}, from {start} to {end}. Add "
            "the take again from the job list, or generate it again if the frame range has changed.",
            clip=clip,
            found=last - first + 1,
            expected=frame_end - frame_start + 1,
            start=frame_start,
            end=frame_end,
        )
    if frame is not None:
        set_strip_frame(scene, strip, frame)
    colors.set_color_space(scene, strip)
    return strip


def set_strip_frame(scene: bpy.types.Scene, strip: Any, frame: Box) -> None:
    """Scale and move a strip so that its image covers `frame`, in shares of the scene's frame."""
    across, up = scene.render.resolution_x, scene.render.resolution_y
    width, height = size(frame)
    x, y = frame.center
    picture = strip.elements[0]
    strip.transform.scale_x = width * across / picture.orig_width
    strip.transform.scale_y = height * up / picture.orig_height
    strip.transform.offset_x, strip.transform.offset_y = (x - 0.5) * across, (0.5 - y) * up


def strip_frame(scene: bpy.types.Scene, strip: Any) -> Box:
    """The part of the scene's frame that a strip's image covers, in shares of the frame."""
    across, up = scene.render.resolution_x, scene.render.resolution_y
    placed, picture = strip.transform, strip.elements[0]
    width, height = placed.scale_x * picture.orig_width / across, placed.scale_y * picture.orig_height / up
    x, y = 0.5 + placed.offset_x / across, 0.5 - placed.offset_y / up
    return Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def free_channel(strips: Any, frame_start: int, frame_end: int) -> int:
    """The lowest channel above all strips in the range, so that no strip is hidden or moved."""
    highest = 0
    for strip in strips:
        first, last = compat.strip_range(strip)
        if first <= frame_end and last >= frame_start:
            highest = max(highest, strip.channel)
    if highest >= MAX_CHANNELS:
        raise InvalidInput(
            "The sequencer has no free channel from frame {start} to {end}. Remove or move a strip there.",
            start=frame_start,
            end=frame_end,
        )
    return highest + 1
