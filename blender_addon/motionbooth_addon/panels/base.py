"""Where the panels are."""

from __future__ import annotations

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


def time_left(seconds: float) -> str:
    """For a person; nothing where nobody knows."""
    if seconds < 0:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s left"
    minutes = round(seconds / 60)
    return f"{minutes} min left" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min left"
