"""The models of a backend, for its admins."""

from __future__ import annotations

from typing import Any

import bpy

from ..i18n.translation import translate
from ..operators.models import active_model
from ..ui_state import MotionBoothPublished, state
from .base import InView, sentence


class MOTIONBOOTH_UL_published(bpy.types.UIList):
    def draw_item(
        self, context: Any, layout: Any, data: Any, item: Any, icon: int, owner: Any, active: str, index: int
    ) -> None:
        row = layout.split(factor=0.7)
        row.label(text=item.title, icon="CHECKMARK" if item.here else "BLANK1", translate=False)
        if item.factor:
            row.progress(factor=item.factor, text=f"{item.factor:.0%}")
        else:
            row.label(text="" if item.doing else item.size, icon="TIME" if item.doing else "NONE", translate=False)


class MOTIONBOOTH_PT_published(InView, bpy.types.Panel):
    bl_label = "Backend Models"
    bl_options = {"DEFAULT_CLOSED"}

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        return state().connection == "CONNECTED" and state().is_admin

    def draw(self, context: bpy.types.Context) -> None:
        shown = state()
        self.layout.template_list("MOTIONBOOTH_UL_published", "", shown, "published", shown, "active_published", rows=4)
        model = active_model()
        if model is None:
            return
        if model.doing:
            row = self.layout.row(align=True)
            row.label(text=model.stage, icon="TIME")
            row.operator("motionbooth.cancel_model", text="", icon="X")
        elif model.here:
            row = self.layout.row(align=True)
            row.operator("motionbooth.check_model", icon="VIEWZOOM")
            row.operator("motionbooth.remove_model", icon="TRASH")
        elif model.licenses:
            self._draw_license(context, model)
        else:
            self.layout.operator("motionbooth.offer_model", icon="IMPORT")
        if model.outcome and not model.doing:
            sentence(self.layout, model.outcome, context.region, "ERROR" if model.failed else "CHECKMARK")

    def _draw_license(self, context: bpy.types.Context, model: MotionBoothPublished) -> None:
        sentence(self.layout, translate("The download has {size}.", size=model.size), context.region)
        for license in model.licenses:
            name = license.name or translate("not stated")
            row = self.layout.row()
            row.label(text=translate("License: {name}", name=name), translate=False)
            row.operator("wm.url_open", text="", icon="URL").url = license.page
        self.layout.operator("motionbooth.get_model", icon="IMPORT")


CLASSES = (MOTIONBOOTH_UL_published, MOTIONBOOTH_PT_published)
