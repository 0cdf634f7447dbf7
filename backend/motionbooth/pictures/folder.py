"""A user's folder of pictures: which there are, which masks belong to them, and hints for the rest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import Picture
from motionbooth_protocol.limits import MAX_PICTURES
from motionbooth_protocol.wording import in_words

from motionbooth.pictures.images import is_hidden

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".heic", ".heif", ".avif"}
MASKS = "masks"  # the sub-folder that is taken where no other is named
BESIDE = "_mask"  # dog_mask.png beside dog.jpg, as the extension writes them
HINTS = "hints.json"


class PictureHint(msgspec.Struct, forbid_unknown_fields=True):
    """`box` [x1, y1, x2, y2] around the subject, `point` [x, y] on it, in shares of the picture from its top left."""

    box: tuple[float, float, float, float] | None = None
    point: tuple[float, float] | None = None


def read_folder(folder: Path, masks: Path | None) -> tuple[list[Picture], dict[str, Path]]:
    """The pictures of a folder in the order of their names, and the files of all their sha256.

    A mask has its picture's name, whatever its suffix, in the folder `masks`, or lies beside it as dog_mask.png. Raises
    InvalidInput where there are no pictures or too many, a mask belongs to none, or two have one name.
    """
    images = _images(folder, "pictures")
    beside = _masks_beside(images)
    images = [image for image in images if image not in beside.values()]
    if not 1 <= len(images) <= MAX_PICTURES:
        raise InvalidInput(
            "The folder {folder} has {count} pictures ({suffixes}); "
            "a subject is learned from 1 to {most}, 3 to 5 are plenty.",
            folder=folder,
            count=len(images),
            suffixes=", ".join(sorted(PICTURES)),
            most=MAX_PICTURES,
        )
    by_name = beside | _paired(images, masks or (folder / MASKS if (folder / MASKS).is_dir() else None))
    hints = _hints(folder, {image.name for image in images})
    files: dict[str, Path] = {}

    def kept(path: Path) -> str:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        files[sha256] = path
        return sha256

    pictures = []
    for image in images:
        mask = by_name.get(image.stem)
        hint = hints.get(image.name, PictureHint())
        fields = {"name": image.name, "box": hint.box, "point": hint.point}
        fields |= {"image": kept(image), "mask": None if mask is None else kept(mask)}
        try:
            pictures.append(msgspec.convert(fields, Picture))
        except msgspec.ValidationError as error:
            raise InvalidInput(
                "The hint for {picture} in {file} cannot be used: {problem}.",
                picture=image.name,
                file=folder / HINTS,
                problem=in_words(error),
            ) from error
    return pictures, files


def _images(folder: Path, kind: str) -> list[Path]:
    if not folder.is_dir():
        raise InvalidInput("There is no folder of {kind} at {folder}.", kind=kind, folder=folder)
    found = (path for path in folder.iterdir() if path.suffix.lower() in PICTURES and not is_hidden(path))
    return sorted(path for path in found if path.is_file())


def _masks_beside(images: list[Path]) -> dict[str, Path]:
    """By their pictures' names without suffixes; a "gas_mask.png" that has no "gas.png" beside it is a picture."""
    names = {image.stem for image in images}
    ends = {image.stem.removesuffix(BESIDE): image for image in images if image.stem.endswith(BESIDE)}
    return {name: image for name, image in ends.items() if name in names}


def _paired(images: list[Path], folder: Path | None) -> dict[str, Path]:
    """Masks by their pictures' names without suffixes."""
    if folder is None:
        return {}
    names = [image.stem for image in images]
    masks: dict[str, Path] = {}
    for mask in _images(folder, "masks"):
        if names.count(mask.stem) != 1 or mask.stem in masks:
            raise InvalidInput(
                "The mask {mask} belongs to {pictures}: a "
                "mask and its one picture have the same name, apart from the suffix. Rename it, or take it away.",
                mask=mask,
                pictures="no picture" if mask.stem not in names else "more than one picture",
            )
        masks[mask.stem] = mask
    return masks


def _hints(folder: Path, names: set[str]) -> dict[str, PictureHint]:
    path = folder / HINTS
    if not path.is_file():
        return {}
    try:
        hints = msgspec.json.decode(path.read_bytes(), type=dict[str, PictureHint])
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidInput(
            'The hints in {path} cannot be read ({problem}). They are {"picture.jpg": {"point": [0.5, 0.4]}, ...}.',
            path=path,
            problem=in_words(error),
        ) from error
    if unknown := sorted(set(hints) - names):
        raise InvalidInput(
            "The hints in {path} name {picture}, and there is no such picture beside them.",
            path=path,
            picture=unknown[0],
        )
    return hints
