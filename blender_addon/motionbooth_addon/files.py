"""Where the extension keeps what is the user's and no .blend's: keys, jobs, pictures, clips, the local backend."""

from __future__ import annotations

import os
from pathlib import Path

import bpy

from ._protocol.connection import write_private
from .user_data import data_folder

# Of what it has learned, and of the masks that it has used: roles of a train job's results.
TRAINING_PICTURES = ("samples", "masks")


def user_folder() -> Path:
    """The extension's files of this user. They outlive the extension, and are those of all versions of Blender."""
    return data_folder() / "blender"


def former_folder() -> Path:
    """Where earlier versions kept them; Blender removes it together with the extension."""
    if __package__.startswith("bl_ext."):
        return Path(bpy.utils.extension_path_user(__package__))
    # Run from the source tree, it is no extension for Blender.
    return Path(bpy.utils.user_resource("DATAFILES", path="motionbooth"))


def clip_folder(setting: str, blend: str) -> Path:
    """Where the clips of the .blend at `blend` go: the preference, beside it if it is relative and `blend` not ""."""
    if setting.startswith("//") and not blend:
        return unsaved_clips()
    return Path(bpy.path.abspath(setting, start=os.path.dirname(blend))).resolve()


def unsaved_clips() -> Path:
    """Where the clips of a .blend are that was never saved."""
    return user_folder() / "clips"


def training_picture(folder: Path, job: str, role: str) -> Path:
    """Where a picture that a training made is kept, once it was fetched."""
    return folder / "training" / job / f"{role}.png"


def training_doubts(folder: Path, job: str) -> Path:
    """Where a training's doubts about masks (MaskDoubt) are kept, once they were fetched."""
    return folder / "training" / job / "doubts.json"


def trained_picture(folder: Path, sha256: str) -> Path:
    """Where the picture of a trained subject is kept, once it was fetched."""
    return folder / "trained" / f"{sha256}.png"


def own_keys(folder: Path) -> tuple[str, str]:
    """This person's public and secret key in Z85, for backends whose owner lets the public one in; made once."""
    import zmq  # loaded with the first use of the network, not with Blender

    path = folder / "keys" / "own.secret"
    if not path.exists():
        write_private(path, zmq.curve_keypair()[1] + b"\n")
    secret = path.read_text("ascii").strip()
    return zmq.curve_public(secret.encode()).decode(), secret
