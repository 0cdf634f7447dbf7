"""Checks what a subject is trained on, and finds the pictures of its folder of photographs."""

from __future__ import annotations

from pathlib import Path

import bpy

from .._protocol.errors import InvalidInput
from .._protocol.limits import MAX_PICTURES, MAX_TEXT
from .._protocol.phrases import phrase_spans
from .._protocol.picture_files import caption_beside, pictures_with_masks
from .turntable import TrainingPicture


def needs_training(subject: bpy.types.PropertyGroup) -> bool:
    """Whether the subject must be trained: it has a token and no weights. Without a token, the model knows it."""
    return bool(subject.token) and not subject.weights


def check_source(subject: bpy.types.PropertyGroup) -> None:
    """Validate the training pictures of a subject that must be trained. Raises InvalidInput."""
    if not needs_training(subject) or subject.training_object is not None:
        return
    if not subject.training_images:
        raise InvalidInput(
            'Subject "{subject}" has neither a training object nor training images; choose one of them, or '
            "clear its token to use the model's own knowledge.",
            subject=subject.name,
        )
    folder_pictures(subject)


def folder_pictures(subject: bpy.types.PropertyGroup) -> list[TrainingPicture]:
    """The pictures of the subject's folder, each with its mask: dog.jpg and dog_mask.png. Raises InvalidInput."""
    folder = Path(bpy.path.abspath(subject.training_images))
    if not folder.is_dir():
        raise InvalidInput(
            'The folder of training images of subject "{subject}" does not exist: {folder}',
            subject=subject.name,
            folder=folder,
        )
    pictures = [TrainingPicture(image, mask) for image, mask in pictures_with_masks(folder)]
    if not 1 <= len(pictures) <= MAX_PICTURES:
        raise InvalidInput(
            'The folder of training images of subject "{subject}" has {count} images ({folder}); it needs 1 to '
            "{most} PNG, JPEG or WebP files, ideally 4 to 10.",
            subject=subject.name,
            count=len(pictures),
            folder=folder,
            most=MAX_PICTURES,
        )
    for picture in pictures:
        _check_caption(picture.image, f"{subject.token} {subject.class_word}")
        _check_readable(picture.image)
        if picture.mask is not None:
            _check_readable(picture.mask)
    return pictures


def _check_readable(file: Path) -> None:
    image = bpy.data.images.load(str(file))
    try:
        if not image.size[0]:
            raise InvalidInput("The image {file} cannot be read; replace it or remove it from the folder.", file=file)
    finally:
        bpy.data.images.remove(image)


def _check_caption(picture: Path, phrase: str) -> None:
    caption = caption_beside(picture)
    if len(caption) > MAX_TEXT:
        raise InvalidInput(
            "The caption in {file} has {count} characters; it can have {most}.",
            file=picture.with_suffix(".txt"),
            count=len(caption),
            most=MAX_TEXT,
        )
    if caption and not phrase_spans(caption, phrase):
        raise InvalidInput(
            'The caption in {file} must contain "{phrase}", the subject\'s token and class. Change it, or remove the '
            "file.",
            file=picture.with_suffix(".txt"),
            phrase=phrase,
        )
