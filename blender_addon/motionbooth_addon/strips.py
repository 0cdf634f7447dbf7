"""A finished clip onto the timeline: a movie strip at the shot's frames, in the clip's own colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy

from . import compat
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
    strip = strips.new_movie(name, path_for(clip), channel, frame_start, fit_method="FIT")
    first, last = compat.strip_range(strip)
    if (first, last) != (frame_start, frame_end):
        strips.remove(strip)
        raise InvalidInput(
            f"The clip {clip} has {last - first + 1} readable frames and the shot {frame_end - frame_start + 1}, from "
            f"{frame_start} to {frame_end}; fetch the take again, or film it again if the shot's range has changed."
        )
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


def path_for(clip: Path) -> str:
    """Relative to the .blend where both are under one folder, so that they can be moved together."""
    folder = Path(bpy.data.filepath).parent
    if bpy.data.filepath and clip.resolve().is_relative_to(folder.resolve()):
        return bpy.path.relpath(str(clip.resolve()))
    return str(clip.resolve())


def show_true_colors(scene: bpy.types.Scene) -> str | None:
    """Show the sequencer's pictures as they are in their files; what was changed, as a sentence, or None.

    A scene's view transform (AgX as Blender comes) is made for light as a renderer computes it. A clip is a
    finished picture and would be shifted by it, and a strip cannot be excepted.
    """
    settings = scene.view_settings
    plain = {"view_transform": "Standard", "look": "None", "exposure": 0.0, "gamma": 1.0, "use_curve_mapping": False}
    before = {name: getattr(settings, name) for name in plain}
    if before == plain:
        return None
    for name, value in plain.items():
        setattr(settings, name, value)
    return (
        f'The color management of scene "{scene.name}" was {before["view_transform"]} and is Standard now, so that the '
        "clip keeps its colors."
    )
