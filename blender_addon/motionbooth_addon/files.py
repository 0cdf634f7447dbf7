"""Where the extension keeps what is the user's and no .blend's: keys, jobs, pictures, clips, the local backend."""

from __future__ import annotations

from pathlib import Path

import bpy


def user_folder() -> Path:
    """The extension's own folder; Blender removes it together with the extension."""
    if __package__.startswith("bl_ext."):
        return Path(bpy.utils.extension_path_user(__package__, create=True))
    # Run from the source tree, it is no extension for Blender.
    return Path(bpy.utils.user_resource("DATAFILES", path="motionbooth", create=True))


def clip_folder(setting: str) -> Path:
    """Where clips go: the preference, beside the .blend if it is relative and the .blend was saved."""
    if setting.startswith("//") and not bpy.data.filepath:
        return user_folder() / "clips"
    return Path(bpy.path.abspath(setting)).resolve()
