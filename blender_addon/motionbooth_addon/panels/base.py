"""Shared by all panels: their place in the sidebar, and wrapped text."""

from __future__ import annotations

import textwrap

import bpy

from .._protocol.text import Text
from ..i18n.translation import translate

CATEGORY = "MotionBooth"


class InView:
    """Mixin: a panel in the sidebar of the 3-D view."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = CATEGORY


class InSequencer:
    """Mixin: a panel in the sidebar of the sequencer."""

    bl_space_type = "SEQUENCE_EDITOR"
    bl_region_type = "UI"
    bl_category = CATEGORY


def property_column(layout: bpy.types.UILayout) -> bpy.types.UILayout:
    """A column of properties with aligned labels."""
    column = layout.column()
    column.use_property_split = True
    column.use_property_decorate = False
    return column


def panel_scale(region: bpy.types.Region) -> float:
    """The scale for `template_icon` at which an image is as wide as the panel."""
    return max(6.0, region.width / (20 * bpy.context.preferences.system.ui_scale) - 3.5)


def time_left(seconds: float) -> str:
    """The remaining time in the user's language; empty if it is negative, which means unknown."""
    if seconds < 0:
        return ""
    if seconds < 60:
        return translate("{seconds:.0f} s left", seconds=seconds)
    minutes = round(seconds / 60)
    if minutes < 60:
        return translate("{minutes} min left", minutes=minutes)
    return translate("{hours} h {minutes} min left", hours=minutes // 60, minutes=minutes % 60)


def sentence(layout: bpy.types.UILayout, text: str | Text, region: bpy.types.Region, symbol: str = "NONE") -> None:
    """Draw text that wraps at the width of the panel."""
    width = max(20, int(region.width / (7 * bpy.context.preferences.system.ui_scale)) - 4)
    column = layout.column(align=True)
    column.scale_y = 0.8
    for number, line in enumerate(textwrap.wrap(translate(text), width)):
        column.label(
            text=line, icon=symbol if number == 0 else "BLANK1" if symbol != "NONE" else "NONE", translate=False
        )
