"""Where the panels are."""

from __future__ import annotations

import textwrap

import bpy

from ..i18n.translation import told

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


def panel_scale(region: bpy.types.Region) -> float:
    """For `template_icon`: a picture as wide as the panel, in units of the interface."""
    return max(6.0, region.width / (20 * bpy.context.preferences.system.ui_scale) - 3.5)


def time_left(seconds: float) -> str:
    """For a person; nothing where nobody knows."""
    if seconds < 0:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s left"
    minutes = round(seconds / 60)
    return f"{minutes} min left" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min left"


def sentence(layout: bpy.types.UILayout, text: str, region: bpy.types.Region, symbol: str = "NONE") -> None:
    """A text of several lines, as wide as the panel."""
    width = max(20, int(region.width / (7 * bpy.context.preferences.system.ui_scale)) - 4)
    column = layout.column(align=True)
    column.scale_y = 0.8
    for number, line in enumerate(textwrap.wrap(told(text), width)):
        column.label(
            text=line, icon=symbol if number == 0 else "BLANK1" if symbol != "NONE" else "NONE", translate=False
        )
