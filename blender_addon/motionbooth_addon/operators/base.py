"""What all operators of the extension share: errors that are sentences."""

from __future__ import annotations

import bpy

from .._protocol.errors import MotionBoothError
from ..i18n.translation import told


def refuse(cls: type[bpy.types.Operator], why: str) -> bool:
    """What a `poll` answers where the button is to be grey: `why` is in its tooltip."""
    cls.poll_message_set(told(why))
    return False


class SentenceForErrors:
    """Mixin: `act` does it; an error that is meant for a person is reported, and nothing was done."""

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            self.act(context)
        except MotionBoothError as error:
            self.report({"ERROR"}, told(str(error)))  # type: ignore[attr-defined]
            return {"CANCELLED"}
        return {"FINISHED"}

    def act(self, context: bpy.types.Context) -> None:
        raise NotImplementedError
