"""A folder of training pictures: the pictures, their masks and captions, and hints for pictures without a mask."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import Picture
from motionbooth_protocol.limits import MAX_PICTURES
from motionbooth_protocol.picture_files import PICTURE_SUFFIXES, caption_beside, picture_files, pictures_with_masks
from motionbooth_protocol.wording import in_words

MASKS = "masks"  # the default sub-folder of masks
HINTS = "hints.json"


class PictureHint(msgspec.Struct, forbid_unknown_fields=True):
    """Where the subject is, in shares of the picture's width and height from its top left."""

    box: tuple[float, float, float, float] | None = None
    """x1, y1, x2, y2 around the subject."""
    point: tuple[float, float] | None = None
    """x, y on the subject."""


def read_folder(folder: Path, masks: Path | None) -> tuple[list[Picture], dict[str, Path]]:
    """The pictures of a folder, sorted by name, and the file of each sha256 in them.

    The mask of dog.jpg is dog_mask.png beside it, or dog.png in the folder `masks` (by default its sub-folder "masks").
    Its caption is in dog.txt beside it, if there is one.
    Raises InvalidInput if there are no pictures or too many, or if a mask does not belong to exactly one picture.
    """
    _check_folder(folder, "pictures")
    beside = pictures_with_masks(folder)
    images = [image for image, _ in beside]
    if not 1 <= len(images) <= MAX_PICTURES:
        raise InvalidInput(
            "The folder {folder} has {count} pictures ({suffixes}); training needs 1 to {most}, and 3 to 5 are enough.",
            folder=folder,
            count=len(images),
            suffixes=", ".join(sorted(PICTURE_SUFFIXES)),
            most=MAX_PICTURES,
        )
    by_name = {image.stem: mask for image, mask in beside if mask is not None}
    by_name |= _paired(images, masks or (folder / MASKS if (folder / MASKS).is_dir() else None))
    hints = _hints(folder, {image.name for image in images})
    files: dict[str, Path] = {}

    def added(path: Path) -> str:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        files[sha256] = path
        return sha256

    pictures = []
    for image in images:
        mask = by_name.get(image.stem)
        hint = hints.get(image.name, PictureHint())
        fields = {"name": image.name, "box": hint.box, "point": hint.point, "caption": caption_beside(image)}
        fields |= {"image": added(image), "mask": None if mask is None else added(mask)}
        try:
            pictures.append(msgspec.convert(fields, Picture))
        except msgspec.ValidationError as error:
            raise InvalidInput(
                "The hint or the caption of {picture} in {folder} cannot be used: {problem}.",
                picture=image.name,
                folder=folder,
                problem=in_words(error),
            ) from error
    return pictures, files


def _check_folder(folder: Path, kind: str) -> None:
    if not folder.is_dir():
        raise InvalidInput("There is no folder of {kind} at {folder}.", kind=kind, folder=folder)


def _paired(images: list[Path], folder: Path | None) -> dict[str, Path]:
    """The masks in a folder, by the stem of their picture."""
    if folder is None:
        return {}
    _check_folder(folder, "masks")
    names = [image.stem for image in images]
    masks: dict[str, Path] = {}
    for mask in picture_files(folder):
        if names.count(mask.stem) != 1 or mask.stem in masks:
            raise InvalidInput(
                "The mask {mask} belongs to {pictures}: a "
                "mask and its one picture have the same name, apart from the suffix. Rename it, or remove it.",
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
            "The hints in {path} name {picture}, but there is no such picture in the folder.",
            path=path,
            picture=unknown[0],
        )
    return hints
