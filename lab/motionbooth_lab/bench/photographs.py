"""Subjects from folders of photographs, for `motionbooth bench control --subjects`."""

import re
from pathlib import Path

import cv2
import numpy as np
from motionbooth.pictures.folder import read_folder
from motionbooth.pictures.masks import Hint, picture_with_mask
from motionbooth_protocol.errors import InvalidInput
from numpy.typing import NDArray

from motionbooth_lab.bench.subjects import TrainingSet

PLACES = ("grass", "road", "snow", "sea")
LONGEST_PX = 384
"""Photographs are first scaled down to this size, which is far above the model's."""


def photographed_subjects(folder: Path) -> list[TrainingSet]:
    """One subject per folder in `folder`. Missing masks are detected as in the product.

    The class word is the last word of the folder's name without digits: "robot_toy" is a toy, "dog3" a dog.

    Raises InvalidInput if there are no folders or a picture cannot be used.
    """
    found = sorted(each for each in folder.iterdir() if each.is_dir()) if folder.is_dir() else []
    if not found:
        raise InvalidInput(
            "{folder} contains no folders of pictures. Choose a folder with one folder for each subject.", folder=folder
        )
    return [_subject(each) for each in found]


def _subject(folder: Path) -> TrainingSet:
    pictures, files = read_folder(folder, None)
    seen = []
    for picture in pictures:
        mask = None if picture.mask is None else files[picture.mask]
        seen.append(picture_with_mask(files[picture.image], mask, picture.name, Hint(picture.box, picture.point)))
    words = re.findall(r"[a-z]+", folder.name.lower()) or ["toy"]
    small = [_reduced(picture.rgb, picture.mask) for picture in seen]
    return TrainingSet(folder.name, words[-1], PLACES, [rgb for rgb, _ in small], [mask for _, mask in small])


def _reduced(rgb: NDArray[np.uint8], mask: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Scaled down to at most LONGEST_PX, with the mask as 0 or 255."""
    scale = min(1.0, LONGEST_PX / max(mask.shape))
    size = (round(mask.shape[1] * scale), round(mask.shape[0] * scale))
    picture = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    cover = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return picture.astype(np.uint8), np.where(cover >= 0.5, 255, 0).astype(np.uint8)
