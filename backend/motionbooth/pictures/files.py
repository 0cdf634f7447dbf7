"""Which files are pictures, and which of them are masks of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".heic", ".heif", ".avif"})
MASK_ENDING = "_mask"
"""dog_mask.png is the mask of dog.jpg beside it; the extension names masks so."""


def is_hidden(path: Path) -> bool:
    """macOS leaves files like "._dog.jpg" beside pictures; they are not pictures."""
    return path.name.startswith(".")


def picture_files(folder: Path) -> list[Path]:
    """The pictures and masks in a folder, sorted by name. Raises OSError if it is not a folder."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES and not is_hidden(path))
    return sorted(path for path in found if path.is_file())


def masks_beside(pictures: Sequence[Path]) -> dict[str, Path]:
    """The masks among these files, by the stem of their picture. "gas_mask.png" without a "gas.png" is a picture."""
    stems = {picture.stem for picture in pictures}
    endings = {path.stem.removesuffix(MASK_ENDING): path for path in pictures if path.stem.endswith(MASK_ENDING)}
    return {stem: path for stem, path in endings.items() if stem in stems}
