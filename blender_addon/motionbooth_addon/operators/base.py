"""Shared by all operators: messages, error reports and reasons why a button is disabled."""

from __future__ import annotations

import bpy

from .._protocol.text import Text
from ..faults import for_a_person
from ..i18n.translation import translate


def refuse(cls: type[bpy.types.Operator], why: str | Text) -> bool:
    """Return False from `poll` and show the reason in the button's tooltip."""
    cls.poll_message_set(translate(why))
    return False


class ReportsErrors:
    """Mixin for operators that implement `act`: an error is reported to the user and cancels the operator."""

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            self.act(context)
        except Exception as error:
            return self.fail(error)
        return {"FINISHED"}

    def act(self, context: bpy.types.Context) -> None:
        """Run the operator. Raises MotionBoothError."""
        raise NotImplementedError

    def inform(self, text: str | Text, level: str = "INFO", **values: object) -> None:
        """Show a message in the status bar."""
        self.report({level}, translate(text, **values))  # type: ignore[attr-defined]

    def fail(self, error: Exception) -> set[str]:
        """Show an error; returns the result of an operator that was canceled."""
        self.inform(for_a_person(error).text, "ERROR")
        return {"CANCELLED"}
