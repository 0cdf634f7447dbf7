"""The masters of a clip: the files that a studio works with, while the mp4 is the proxy on the timeline."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path


class Master(StrEnum):
    """A form of the decoded frames in more than 8 bits. A movie, or a sequence of numbered pictures.

    `ffv1` and `png` keep 16 bits of each value without loss, `exr` 16-bit floats. The other movies are compressed.
    """

    PRORES = "prores"  # 422 HQ, 10 bits
    PRORES_4444 = "prores-4444"  # 4444 XQ, 10 bits in a 12-bit format
    DNXHR = "dnxhr"  # HQX, 10 bits
    FFV1 = "ffv1"
    PNG = "png"
    EXR = "exr"

    @property
    def suffix(self) -> str:
        """Of the movie, or of each picture."""
        if self.is_sequence:
            return f".{self.value}"
        return ".mkv" if self is Master.FFV1 else ".mov"

    @property
    def is_sequence(self) -> bool:
        return self in (Master.PNG, Master.EXR)

    def path(self, clip: Path) -> Path:
        """Where the master of a clip is: a movie beside it, or the folder of its pictures."""
        return clip.with_suffix("" if self.is_sequence else self.suffix)

    def exists(self, clip: Path) -> bool:
        """Whether the movie, or the folder, is there."""
        path = self.path(clip)
        return path.is_dir() if self.is_sequence else path.is_file()

    def picture(self, clip: Path, frame: int) -> Path:
        """The picture of a scene's frame in a sequence."""
        return self.path(clip) / f"{clip.stem}_{self.name_in_zip(frame)}"

    def name_in_zip(self, frame: int) -> str:
        """The name of a picture as a sequence travels: in a zip without compression."""
        return f"{frame:04d}{self.suffix}"
