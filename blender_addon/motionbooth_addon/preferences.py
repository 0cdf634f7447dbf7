"""The preferences of the extension. Keys stay in files; the preferences store their paths."""

# mypy: disable-error-code="valid-type"

import bpy
from bpy.props import BoolProperty, EnumProperty, StringProperty

from . import compat
from ._protocol.limits import MAX_NAME
from .files import CLIP_FOLDER
from .i18n.translation import translate
from .properties import QUALITIES
from .user_data import data_folder


class MotionBoothPreferences(bpy.types.AddonPreferences):
    bl_idname = __package__

    connection_file: StringProperty(
        name="Connection File",
        description="File with the address and keys of a remote backend. If empty, the local backend is used",
        subtype="FILE_PATH",
    )
    backend_command: StringProperty(
        name="Backend Executable",
        description="Path of the local backend's program `motionbooth`. If empty, it is found automatically",
        subtype="FILE_PATH",
    )
    backend_wheel: StringProperty(
        name="Backend Wheel",
        description="File motionbooth-...-py3-none-any.whl from which to install the local backend. "
        "If empty, it is looked for in Downloads, then in the package index of pip",
        subtype="FILE_PATH",
    )
    clip_folder: StringProperty(
        name="Clip Folder",
        description="Folder for generated clips; // is the folder of the .blend file",
        default=CLIP_FOLDER,
        subtype="DIR_PATH",
        options=compat.RELATIVE_PATH,
    )
    default_model: StringProperty(
        name="Default Model",
        default="toybox",
        maxlen=MAX_NAME,
        description="Base model of new shots",
    )
    default_quality: EnumProperty(name="Default Quality", items=QUALITIES, description="Quality of new shots")
    connect_at_start: BoolProperty(
        name="Connect on Startup",
        description="Connect to the backend when Blender starts, and resume the jobs of earlier sessions",
        default=True,
    )

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        for name in MotionBoothPreferences.__annotations__:
            layout.prop(self, name)
        row = layout.row()
        row.label(text=translate("Your files: {folder}", folder=data_folder()), translate=False)
        row.operator("wm.path_open", text="Open", icon="FILE_FOLDER").filepath = str(data_folder())
        row = layout.row()
        row.operator("motionbooth.install_backend")
        row.operator("motionbooth.start_local_backend")
        row.operator("motionbooth.stop_local_backend")
        row = layout.row()
        row.operator("motionbooth.export_public_key")
        row.operator("motionbooth.connect_by_file")
        row.operator("motionbooth.connect_by_address")


def preferences() -> MotionBoothPreferences:
    return bpy.context.preferences.addons[__package__].preferences
