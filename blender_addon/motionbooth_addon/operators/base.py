"""What all operators of the extension share: errors that are sentences."""

from __future__ import annotations

import bpy

from .._protocol.errors import MotionBoothError


class SentenceForErrors:
    """Mixin: `act` does it; an error that is meant for a person is reported, and nothing was done."""

    def execute(self, context: bpy.types.Context) -> set[str]:
        try:
            self.act(context)
        except MotionBoothError as error:
            self.report({"ERROR"}, str(error))  # type: ignore[attr-defined]
            return {"CANCELLED"}
        return {"FINISHED"}

    def act(self, context: bpy.types.Context) -> None:
        raise NotImplementedError
