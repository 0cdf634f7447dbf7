"""Operators for admins of a backend: fetch, check and remove its models."""

# mypy: disable-error-code="valid-type"

from __future__ import annotations

import bpy

from .._protocol.errors import InvalidInput
from ..i18n.translation import translate
from ..jobs.controller import job_controller
from ..ui_state import MotionBoothPublished, state
from .base import ReportsErrors, refuse


def active_model() -> MotionBoothPublished | None:
    """The model that is selected in the list."""
    index, models = state().active_published, state().published
    return models[index] if index < len(models) else None


class _ModelOperator(ReportsErrors):
    """Base of operators on the selected model."""

    action = ""

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if state().connection != "CONNECTED" or not state().is_admin:
            return refuse(cls, "Only admins of the connected backend can change its models.")
        return active_model() is not None or refuse(cls, "No model is selected.")

    def act(self, context: bpy.types.Context) -> None:
        model = active_model()
        assert model is not None, "poll"
        job_controller().manage_model(model.name, self.action, license_accepted=self.action == "get")


class MOTIONBOOTH_OT_offer_model(_ModelOperator, bpy.types.Operator):
    """Ask the hub for the size and the license of this model. Nothing is downloaded yet"""

    bl_idname = "motionbooth.offer_model"
    bl_label = "Get Model"
    action = "offer"


class MOTIONBOOTH_OT_get_model(_ModelOperator, bpy.types.Operator):
    """Accept the license and download this model to the backend"""

    bl_idname = "motionbooth.get_model"
    bl_label = "Accept License and Get"
    action = "get"

    def act(self, context: bpy.types.Context) -> None:
        model = active_model()
        if model is not None and not model.licenses:
            raise InvalidInput("The license of this model was not shown yet: use Get Model first.")
        super().act(context)


class MOTIONBOOTH_OT_cancel_model(_ModelOperator, bpy.types.Operator):
    """Stop what the backend does with this model. What was downloaded is kept for the next attempt"""

    bl_idname = "motionbooth.cancel_model"
    bl_label = "Cancel Download"
    action = "cancel"


class MOTIONBOOTH_OT_check_model(_ModelOperator, bpy.types.Operator):
    """Check the files of this model for damage"""

    bl_idname = "motionbooth.check_model"
    bl_label = "Check Model"
    action = "check"


class MOTIONBOOTH_OT_remove_model(_ModelOperator, bpy.types.Operator):
    """Remove this model from the backend"""

    bl_idname = "motionbooth.remove_model"
    bl_label = "Remove Model"
    action = "remove"

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        return context.window_manager.invoke_confirm(
            self,
            event,
            title=translate("Remove the model from the backend?"),
            message=translate("It can be downloaded again."),
            confirm_text=translate("Remove"),
        )


CLASSES = (
    MOTIONBOOTH_OT_offer_model,
    MOTIONBOOTH_OT_get_model,
    MOTIONBOOTH_OT_cancel_model,
    MOTIONBOOTH_OT_check_model,
    MOTIONBOOTH_OT_remove_model,
)
