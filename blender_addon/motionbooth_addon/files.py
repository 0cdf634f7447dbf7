"""Where the extension keeps what is the user's and no .blend's: keys, jobs, pictures, clips, the local backend."""

from __future__ import annotations

from pathlib import Path

import bpy

from ._protocol.connection import write_private

# Of what it has learned, and of the masks that it has used: roles of a train job's results.
TRAINING_PICTURES = ("samples", "masks")


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


def training_picture(folder: Path, job: str, role: str) -> Path:
    """Where a picture that a training made is kept, once it was fetched."""
    return folder / "training" / job / f"{role}.png"


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
