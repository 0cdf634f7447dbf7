"""The colors of clips on a timeline, whatever look its scene gives to what is rendered from 3-D.

A clip is a finished picture. Its scene's view transform (AgX as Blender comes) is made for light as a renderer computes
it, and the sequencer puts everything through it. So a clip's strip is read by the color space that undoes the view, and
the scene stays as it is. What holds: exact under Standard, Raw and ACES 2.0; under Filmic to within 2 of 255 for all
colors that are not strongly saturated; under AgX for grays and muted colors alone, for AgX shows no saturated color, by
whatever way it comes. `show_exact_colors` is for those, and only runs where its user asks for it.
"""

from __future__ import annotations

import contextlib
from typing import Any

import bpy

from .. import compat

VIEW = "motionbooth_view"  # custom property of our strips: the view transform that their color space was chosen for
# The color space, for each view transform, whose pixels come out of it as they are in the file.
_SPACES = {
    "Standard": "sRGB",
    "Raw": "Linear Rec.709",
    "AgX": "AgX Base sRGB",
    "Filmic": "Filmic sRGB",
    "Filmic Log": "Filmic Log",
    "Khronos PBR Neutral": "Khronos PBR Neutral sRGB",
    "ACES 1.3": "ACES 1.3 sRGB",
    "ACES 2.0": "ACES 2.0 sRGB",
}
_WIDE = {"AgX", "ACES 1.3", "ACES 2.0"}
_EXACT = {"Standard", "Raw", "ACES 2.0"}
_NEUTRAL = {"look": "None", "exposure": 0.0, "gamma": 1.0, "use_curve_mapping": False}


def set_color_space(scene: bpy.types.Scene, strip: Any) -> None:
    """Have a strip read so that the scene's view shows its file's own colors, as nearly as that view can."""
    view = scene.view_settings.view_transform
    strip[VIEW] = view
    with contextlib.suppress(TypeError):  # a studio's own OpenColorIO configuration may have no such space
        strip.colorspace_settings.name = _SPACES.get(view, "sRGB")
    # What undoes a view may lie outside the sequencer's gamut, and the usual filter cuts that off.
    strip.transform.filter = "BILINEAR" if view in _WIDE else "AUTO"


def update_color_spaces(scene: bpy.types.Scene) -> None:
    """Match the scene's clips again where its view transform is another one now; a space chosen by hand stays."""
    if scene.sequence_editor is None:
        return
    for strip in compat.all_strips(scene.sequence_editor):
        if strip.get(VIEW, scene.view_settings.view_transform) != scene.view_settings.view_transform:
            set_color_space(scene, strip)


def color_warning(scene: bpy.types.Scene) -> str | None:
    """What the scene's view does to the clips on its timeline, as a sentence; None where it shows them exactly."""
    settings = scene.view_settings
    if settings.view_transform in _EXACT and _is_neutral(settings):
        return None
    return (
        f'Scene "{scene.name}" shows saturated colors of the clip weaker ({settings.view_transform}); for its exact '
        "colors press Show Exact Colors, which changes the look of the 3-D scene, too."
    )


def show_exact_colors(scene: bpy.types.Scene) -> str | None:
    """Show the sequencer's pictures as they are in their files; what was changed, as a sentence, or None."""
    settings = scene.view_settings
    before = settings.view_transform
    if before == "Standard" and _is_neutral(settings):
        return None
    settings.view_transform = "Standard"
    for name, value in _NEUTRAL.items():
        setattr(settings, name, value)
    update_color_spaces(scene)
    return f'The color management of scene "{scene.name}" was {before} and is Standard now.'


def _is_neutral(settings: bpy.types.ColorManagedViewSettings) -> bool:
    return all(getattr(settings, name) == value for name, value in _NEUTRAL.items())
