"""The user's files that are outside every .blend: keys, jobs, pictures, clips."""

from __future__ import annotations

import os
from pathlib import Path

import bpy

from ._protocol.connection import write_private
from .user_data import data_folder

CLIP_FOLDER = "//motionbooth"  # the default
# Pictures among a training job's results, by role: of the trained subject, and of the masks used.
TRAINING_PICTURES = ("samples", "masks")


def user_folder() -> Path:
    """The extension's files. They are kept when the extension is removed, and shared by all Blender versions."""
    return data_folder() / "blender"


def former_folder() -> Path:
    """The folder that earlier versions used; Blender deletes it with the extension."""
    if __package__.startswith("bl_ext."):
        return Path(bpy.utils.extension_path_user(__package__))
    # Run from the source tree, it is not an extension to Blender.
    return Path(bpy.utils.user_resource("DATAFILES", path="motionbooth"))


def clip_folder(setting: str, blend: str) -> Path:
    """The folder for the clips of `blend` ("" if it is not saved); in `setting`, // stands for its folder."""
    setting = setting or CLIP_FOLDER
    if setting.startswith("//") and not blend:
        return unsaved_clips()
    return Path(bpy.path.abspath(setting, start=os.path.dirname(blend))).resolve()


def unsaved_clips() -> Path:
    """The folder for the clips of files that are not saved yet."""
    return user_folder() / "clips"


def training_result(folder: Path, job: str, role: str) -> Path:
    """The path of a training's result: one of TRAINING_PICTURES, or its doubts about the masks (MaskDoubt)."""
    return folder / "training" / job / ("doubts.json" if role == "doubts" else f"{role}.png")


def trained_picture(folder: Path, sha256: str) -> Path:
    """The path of a trained subject's picture."""
    return folder / "trained" / f"{sha256}.png"


def own_keys(folder: Path) -> tuple[str, str]:
    """The user's public and secret key in Z85, created at the first call. A backend's owner adds the public one."""
    import zmq  # loaded when it is first used, not with Blender

    path = folder / "keys" / "own.secret"
    if not path.exists():
        write_private(path, zmq.curve_keypair()[1] + b"\n")
    secret = path.read_text("ascii").strip()
    return zmq.curve_public(secret.encode()).decode(), secret
