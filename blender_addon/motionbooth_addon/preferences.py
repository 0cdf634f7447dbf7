"""What belongs to the user's machine and not to a scene. Secrets stay in files: here is only the path to one."""

# mypy: disable-error-code="valid-type"

import bpy
from bpy.props import BoolProperty, EnumProperty, StringProperty

from . import compat
from ._protocol.limits import MAX_NAME
from .i18n.translation import told
from .properties import QUALITIES
from .user_data import data_folder


class MotionBoothPreferences(bpy.types.AddonPreferences):
    bl_idname = __package__

    connection_file: StringProperty(
        name="Connection File",
        description="The file with the address and keys of a backend on another machine. Empty: the backend that this "
        "Blender starts on this machine",
        subtype="FILE_PATH",
    )
    backend_command: StringProperty(
        name="Backend Program",
        description="The program `motionbooth` of this machine's backend. Empty: found by itself",
        subtype="FILE_PATH",
    )
    backend_wheel: StringProperty(
        name="Backend Wheel",
        description="The file motionbooth-...-py3-none-any.whl, which lies beside the extension's zip, to install the "
        "backend from. Empty: looked for in Downloads, then in pip's package index",
        subtype="FILE_PATH",
    )
    clip_folder: StringProperty(
        name="Clips",
        description="Where clips are kept; // is the folder of the .blend",
        default="//motionbooth",
        subtype="DIR_PATH",
        options=compat.RELATIVE_PATH,
    )
    default_model: StringProperty(
        name="Model of New Shots",
        default="toybox",
        maxlen=MAX_NAME,
        description="Base model that a new shot begins with",
    )
    default_quality: EnumProperty(
        name="Quality of New Shots", items=QUALITIES, description="How much time is spent on the clips of a new shot"
    )
    connect_at_start: BoolProperty(
        name="Connect When Blender Starts",
        description="Look for the backend when Blender starts, so that jobs of earlier sessions go on",
        default=True,
    )

    def draw(self, context: bpy.types.Context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.prop(self, "connection_file")
        layout.prop(self, "backend_command")
        layout.prop(self, "backend_wheel")
        layout.prop(self, "clip_folder")
        layout.prop(self, "default_model")
        layout.prop(self, "default_quality")
        layout.prop(self, "connect_at_start")
        row = layout.row()
        row.label(text=told(f"Your files: {data_folder()}"), translate=False)
        row.operator("wm.path_open", text="Open", icon="FILE_FOLDER").filepath = str(data_folder())
        row = layout.row()
        row.operator("motionbooth.install_backend")
        row.operator("motionbooth.start_local_backend")
        row.operator("motionbooth.stop_local_backend")
        row = layout.row()
        row.operator("motionbooth.export_key")
        row.operator("motionbooth.connect_to_box")
        row.operator("motionbooth.connect_by_address")


def preferences() -> MotionBoothPreferences:
    return bpy.context.preferences.addons[__package__].preferences
