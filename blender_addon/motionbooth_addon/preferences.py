"""What belongs to the user's machine and not to a scene. Secrets stay in files: here is only the path to one."""

# mypy: disable-error-code="valid-type"

import bpy


class MotionBoothPreferences(bpy.types.AddonPreferences):
    bl_idname = __package__

    connection_file: bpy.props.StringProperty(
        name="Connection File",
        description="The file with the backend's address and your keys, written by `motionbooth serve`",
        subtype="FILE_PATH",
    )

    def draw(self, context: bpy.types.Context) -> None:
        self.layout.prop(self, "connection_file")
