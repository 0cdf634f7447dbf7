"""Shared by all operators: error reports and reasons why a button is disabled."""

from __future__ import annotations

import bpy

from .._protocol.errors import MotionBoothError
from .._protocol.text import Text
from ..i18n.translation import translate


def refuse(cls: type[bpy.types.Operator], why: str | Text) -> bool:
    """Return False from `poll` and show the reason in the button's tooltip."""
    cls.poll_message_set(translate(why))
    return False


class ReportsErrors:
    """Mixin for operators that implement `act`: a MotionBoothError is reported to the user and cancels the operator."""

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            self.act(context)
        except MotionBoothError as error:
            self.report({"ERROR"}, translate(error.text))  # type: ignore[attr-defined]
            return {"CANCELLED"}
        return {"FINISHED"}

    def act(self, context: bpy.types.Context) -> None:
        """Run the operator. Raises MotionBoothError."""
        raise NotImplementedError
