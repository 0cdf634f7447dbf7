"""Shows clips on the timeline in their own colors, whatever the scene's view transform is.

The sequencer applies the scene's view transform (AgX by default) to every strip, although a clip is already a finished
picture. So the strip gets the input color space that inverts the view transform, and the scene keeps its settings. The
colors are then exact with Standard, Raw and ACES 2.0, and within 2 of 255 with Filmic unless they are strongly
saturated. AgX cannot display saturated colors at all, so only grays and muted colors are right; `show_exact_colors`
changes the view transform for users who ask for it.
"""

from __future__ import annotations

import contextlib
from typing import Any

import bpy

from .. import compat
from .._protocol.text import Text

VIEW = "motionbooth_view"  # custom property of our strips: the view transform that their color space was chosen for
# For each view transform, the input color space that inverts it.
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
    """Set a strip's color space so that the scene's view transform shows its file's colors as closely as it can."""
    view = scene.view_settings.view_transform
    strip[VIEW] = view
    with contextlib.suppress(TypeError):  # a custom OpenColorIO configuration may lack it
        strip.colorspace_settings.name = _SPACES.get(view, "sRGB")
    # Inverted colors may be outside the sequencer's gamut, and the default filter clips them.
    strip.transform.filter = "BILINEAR" if view in _WIDE else "AUTO"


def update_color_spaces(scene: bpy.types.Scene) -> None:
    """Set the color spaces again after the scene's view transform has changed; otherwise a user's choice is kept."""
    if scene.sequence_editor is None:
        return
    for strip in compat.all_strips(scene.sequence_editor):
        if strip.get(VIEW, scene.view_settings.view_transform) != scene.view_settings.view_transform:
            set_color_space(scene, strip)


def color_warning(scene: bpy.types.Scene) -> Text | None:
    """How the scene's view transform changes the clips' colors; None if it shows them exactly."""
    settings = scene.view_settings
    if settings.view_transform in _EXACT and _is_neutral(settings):
        return None
    return Text.of(
        'The view transform of scene "{scene}" ({view}) desaturates strong colors of clips. '
        "Show Exact Colors changes it, and with it the look of renders.",
        scene=scene.name,
        view=settings.view_transform,
    )


def show_exact_colors(scene: bpy.types.Scene) -> Text | None:
    """Set the scene to the Standard view, which shows files unchanged; returns a sentence on the change, or None."""
    settings = scene.view_settings
    before = settings.view_transform
    if before == "Standard" and _is_neutral(settings):
        return None
    settings.view_transform = "Standard"
    for name, value in _NEUTRAL.items():
        setattr(settings, name, value)
    update_color_spaces(scene)
    return Text.of(
        'The view transform of scene "{scene}" was changed from {view} to Standard.', scene=scene.name, view=before
    )


def _is_neutral(settings: bpy.types.ColorManagedViewSettings) -> bool:
    return all(getattr(settings, name) == value for name, value in _NEUTRAL.items())
