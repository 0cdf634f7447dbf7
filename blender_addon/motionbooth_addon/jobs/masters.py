"""The master of a clip as it arrives: a movie, or a sequence in a zip, which is unpacked beside the clip. No bpy."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

from .._protocol.errors import InvalidInput
from .._protocol.masters import Master

PACKED = ".zip"
_PICTURE = re.compile(r"-?[0-9]{3,8}\.(png|exr)")


def file_to_fetch(master: Master, clip: Path) -> Path:
    """The file to which the master of a clip is downloaded."""
    return clip.with_suffix(PACKED) if master.is_sequence else master.path(clip)


def unpack(packed: Path) -> None:
    """Move the pictures of a clip's zip to where Master.picture expects them. Raises InvalidInput, and OSError."""
    folder = packed.with_suffix("")
    folder.mkdir(exist_ok=True)
    try:
        with zipfile.ZipFile(packed) as opened:
            for info in opened.infolist():
                if not _PICTURE.fullmatch(info.filename) or info.compress_type != zipfile.ZIP_STORED:
                    raise zipfile.BadZipFile
                picture = folder / f"{folder.name}_{info.filename}"
                part = picture.with_name(f".{picture.name}.part")
                with opened.open(info) as source, part.open("wb") as target:
                    shutil.copyfileobj(source, target)
                part.replace(picture)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise InvalidInput(
            "The master that the backend sent is not a sequence of numbered pictures. The take has only its clip; "
            "update the backend and the extension, and generate it again."
        ) from error
    packed.unlink()
