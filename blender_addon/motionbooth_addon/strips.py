"""A finished clip onto the timeline: a movie strip at the shot's frames, in the clip's own colors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from . import clips, colors, compat
from ._protocol.errors import InvalidInput

CHANNELS = 128  # of Blender's sequencer


def place_clip(scene: bpy.types.Scene, clip: Path, name: str, frame_start: int, frame_end: int) -> Any:
    """Put `clip` on a free channel so that it fills `frame_start` to `frame_end` (both included); returns the strip.

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
    colors.match(scene, strip)
    return strip


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
