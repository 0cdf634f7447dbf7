"""Operators on the styles of a shot: LoRAs of other programs."""

# mypy: disable-error-code="valid-type"

import contextlib
from pathlib import Path

import bpy
from bpy.props import IntProperty, StringProperty
from bpy_extras.io_utils import ImportHelper

from .._protocol.errors import InvalidInput
from .._protocol.limits import MAX_STYLES
from .._protocol.text import Text
from .base import ReportsErrors, refuse


class MOTIONBOOTH_OT_add_style(ReportsErrors, ImportHelper, bpy.types.Operator):
    """Choose a LoRA of another program for the same model, such as a drawing style"""

    bl_idname = "motionbooth.add_style"
    bl_label = "Add Style"
    bl_options = {"REGISTER", "UNDO"}

    filter_glob: StringProperty(default="*.safetensors", options={"HIDDEN"})

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        if len(context.scene.motionbooth.styles) >= MAX_STYLES:
            return refuse(cls, Text.of("A shot has at most {most} styles. Remove one first.", most=MAX_STYLES))
        return True

    def act(self, context: bpy.types.Context) -> None:
        if not Path(self.filepath).is_file():
            raise InvalidInput("There is no file at {path}. Choose the style's file.", path=self.filepath)
        context.scene.motionbooth.styles.add().path = _as_preferred(context, self.filepath)


def _as_preferred(context: bpy.types.Context, path: str) -> str:
    """Relative to the .blend if the user's preferences ask for it and it is on the same drive."""
    if bpy.data.filepath and context.preferences.filepaths.use_relative_paths:
        with contextlib.suppress(ValueError):
            return bpy.path.relpath(path)
    return path


class MOTIONBOOTH_OT_remove_style(ReportsErrors, bpy.types.Operator):
    """Remove this style from the shot. Its file stays"""

    bl_idname = "motionbooth.remove_style"
    bl_label = "Remove Style"
    bl_options = {"REGISTER", "UNDO"}

    index: IntProperty(name="Index", options={"HIDDEN"})

    def act(self, context: bpy.types.Context) -> None:
        context.scene.motionbooth.styles.remove(self.index)


CLASSES = (MOTIONBOOTH_OT_add_style, MOTIONBOOTH_OT_remove_style)
