"""Training pictures as other programs keep them: kohya's folders `10_sks dog`, and diffusion-pipe's dataset.toml."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import Picture, SubjectSpec
from motionbooth_protocol.limits import MAX_PICTURES
from motionbooth_protocol.phrases import phrase_spans
from motionbooth_protocol.picture_files import picture_files
from motionbooth_protocol.wording import in_words
from msgspec import Meta, Struct

from motionbooth.pictures.folder import read_folder

_KOHYA = re.compile(r"(?P<repeats>[1-9]\d*)_(?P<token>\S+) +(?P<class_word>.*\S)")


@dataclass(frozen=True)
class TrainingSet:
    """The pictures of one subject."""

    pictures: list[Picture]
    files: dict[str, Path]
    """The file of each sha256 in them."""
    token: str | None = None
    class_word: str | None = None
    """As the folder's name has them."""


@dataclass(frozen=True)
class _Part:
    folder: Path
    repeats: int = 1
    masks: Path | None = None
    subject: tuple[str, str] | None = None


class _Directory(Struct):
    path: str
    num_repeats: Annotated[int, Meta(ge=1)] = 1
    mask_path: str | None = None


class _Dataset(Struct):
    """The part of a dataset.toml that a training of a subject uses."""

    directory: Annotated[list[_Directory], Meta(min_length=1)]


def read_training_set(place: Path, masks: Path | None = None) -> TrainingSet:
    """The pictures of a folder, of kohya's folders in it, or of the directories of a dataset.toml.

    Repeats are relative: steps are counted, so repeats that are all the same change nothing, and of two folders with
    repeats of 10 and 5 the first one's pictures come twice as often. Raises InvalidInput as `read_folder` does, and if
    the folders are of several subjects.
    """
    parts = _of_file(place) if place.suffix == ".toml" and place.is_file() else _of_folder(place)
    if masks is not None and len(parts) > 1:
        raise InvalidInput("--masks is of one folder, but {place} names {count}.", place=place, count=len(parts))
    subjects = {part.subject for part in parts}
    if len(subjects) > 1:
        raise InvalidInput(
            "The folders in {place} are of several subjects ({subjects}). Train one at a time: name its folder.",
            place=place,
            subjects=", ".join(sorted(" ".join(subject) for subject in subjects if subject)),
        )
    divisor = math.gcd(*(part.repeats for part in parts))
    folders = [read_folder(part.folder, masks or part.masks) for part in parts]
    repeats = [part.repeats // divisor for part in parts]
    count = sum(len(found) * times for (found, _), times in zip(folders, repeats, strict=True))
    if count > MAX_PICTURES:
        raise InvalidInput(
            "{place} has {count} pictures with their repeats; training needs 1 to {most}.",
            place=place,
            count=count,
            most=MAX_PICTURES,
        )
    pictures = [each for (found, _), times in zip(folders, repeats, strict=True) for each in found * times]
    files = {sha256: path for _, found in folders for sha256, path in found.items()}
    (subject,) = subjects
    return TrainingSet(pictures, files, *(subject or ()))


def _of_folder(place: Path) -> list[_Part]:
    """kohya's folders are only looked for where the folder has no pictures of its own."""
    if _KOHYA.fullmatch(place.absolute().name):
        return [_kohya(place.absolute())]
    if not place.is_dir() or any(picture_files(place)):
        return [_Part(place)]
    inner = [_kohya(path) for path in sorted(place.iterdir()) if path.is_dir() and _KOHYA.fullmatch(path.name)]
    return inner or [_Part(place)]


def _kohya(folder: Path) -> _Part:
    name = _KOHYA.fullmatch(folder.name)
    assert name is not None
    return _Part(folder, int(name["repeats"]), subject=(name["token"], name["class_word"]))


def _of_file(file: Path) -> list[_Part]:
    try:
        dataset = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), _Dataset)
    except (ValueError, msgspec.ValidationError) as error:
        raise InvalidInput(
            "{file} cannot be read as diffusion-pipe's dataset.toml: {problem}. It has a [[directory]] with a `path`, "
            "and perhaps `num_repeats` and `mask_path`.",
            file=file,
            problem=in_words(error),
        ) from error
    folder = file.absolute().parent
    return [
        _Part(folder / each.path, each.num_repeats, None if each.mask_path is None else folder / each.mask_path)
        for each in dataset.directory
    ]


def check_captions(subject: SubjectSpec) -> None:
    """Raises InvalidInput for a caption that does not name the subject."""
    for picture in subject.pictures:
        if picture.caption and not phrase_spans(picture.caption, subject.phrase):
            raise InvalidInput(
                'The caption of {picture} must contain "{phrase}", the subject\'s token and class, but is "{caption}".',
                picture=picture.name,
                phrase=subject.phrase,
                caption=picture.caption,
            )
