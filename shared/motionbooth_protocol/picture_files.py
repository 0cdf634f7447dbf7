"""Which files of a folder are training pictures, and which are their masks and captions: one rule for extension and
backend."""

from __future__ import annotations

from pathlib import Path

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".heic", ".heif", ".avif"})
_MASK_ENDING = "_mask"


def is_hidden(path: Path) -> bool:
    """macOS leaves files like "._dog.jpg" beside pictures; they are not pictures."""
    return path.name.startswith(".")


def picture_files(folder: Path) -> list[Path]:
    """The pictures and masks in a folder, sorted by name; [] if there is no such folder."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES and not is_hidden(path))
    return sorted(path for path in found if path.is_file())


def pictures_with_masks(folder: Path) -> list[tuple[Path, Path | None]]:
    """The pictures in a folder, sorted by name, each with its mask beside it: dog_mask.png is that of dog.jpg.

    "gas_mask.png" without a "gas.png" is a picture.
    """
    files = picture_files(folder)
    stems = {path.stem for path in files}
    endings = {path.stem.removesuffix(_MASK_ENDING): path for path in files if path.stem.endswith(_MASK_ENDING)}
    masks = {stem: path for stem, path in endings.items() if stem in stems}
    return [(path, masks.get(path.stem)) for path in files if path not in masks.values()]


def caption_beside(picture: Path) -> str:
    """What dog.txt beside dog.jpg says, in one line; empty if there is none."""
    file = picture.with_suffix(".txt")
    return " ".join(file.read_text(encoding="utf-8-sig", errors="replace").split()) if file.is_file() else ""
