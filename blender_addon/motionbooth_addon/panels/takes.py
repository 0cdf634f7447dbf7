"""The list of takes, in the 3D view and in the sequencer."""

from __future__ import annotations

from typing import Any

import bpy

from .. import compat
from ..i18n.translation import translate
from ..timeline import colors, takes
from ..timeline.takes import active_take_motion
from .base import InSequencer, InView, sentence


class MOTIONBOOTH_UL_takes(bpy.types.UIList):
    def draw_item(
        self, context: Any, layout: Any, data: Any, item: Any, icon: int, owner: Any, active: str, index: int
    ) -> None:
        row = layout.row(align=True)
        star = row.operator(
            "motionbooth.star_take", text="", icon="SOLO_ON" if item.starred else "SOLO_OFF", emboss=False
        )
        star.index = index
        row.prop(item, "name", text="", emboss=False)
        row.label(text=translate("seed {seed}", seed=item.seed), translate=False)
        row.operator("motionbooth.compare_takes", text="", icon="IMAGE_ALPHA", emboss=False).index = index


def draw_takes(layout: bpy.types.UILayout, context: bpy.types.Context) -> None:
    scene = compat.shown_scene(context)
    shot = scene.motionbooth
    if not shot.takes:
        text = "No takes yet. Finished clips are added here and to the timeline."
        sentence(layout, text, context.region, "INFO")
        return
    layout.template_list("MOTIONBOOTH_UL_takes", "", shot, "takes", shot, "active_take", rows=3)
    take = active_take_motion(scene)
    if take is not None and take.camera_verdict is not None:
        box = layout.box()
        for line in (*take.verdicts.values(), take.camera_verdict, *take.contributions):
            sentence(box, line, context.region)
    if shot.active_take < len(shot.takes) and (master := takes.master_of(shot.takes[shot.active_take])) is not None:
        layout.label(text=translate("Master: {name}", name=master.name), translate=False, icon="FILE_MOVIE")
    if len(shot.takes) and (warning := colors.color_warning(scene)) is not None:
        sentence(layout, warning, context.region, "COLOR")
        layout.operator("motionbooth.show_exact_colors", icon="COLOR")
    column = layout.column(align=True)
    column.operator("motionbooth.activate_take", icon="HIDE_OFF")
    column.operator("motionbooth.restore_take_settings", icon="LOOP_BACK")
    column.operator("motionbooth.take_as_background", icon="CAMERA_DATA")
    column.operator("motionbooth.take_as_images", icon="RENDERLAYERS")
    column.operator("motionbooth.remove_take", icon="TRASH")


class MOTIONBOOTH_PT_takes(InView, bpy.types.Panel):
    bl_label = "Takes"

    def draw(self, context: bpy.types.Context) -> None:
        draw_takes(self.layout, context)


class MOTIONBOOTH_PT_sequencer_takes(InSequencer, bpy.types.Panel):
    bl_label = "Takes"

    def draw(self, context: bpy.types.Context) -> None:
        draw_takes(self.layout, context)


CLASSES = (MOTIONBOOTH_UL_takes, MOTIONBOOTH_PT_takes, MOTIONBOOTH_PT_sequencer_takes)
