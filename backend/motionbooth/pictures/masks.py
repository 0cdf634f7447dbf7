"""The subject's mask: the one given with the picture, the picture's alpha, or one that is found.

A network finds it if one is on this machine (finders.py), otherwise GrabCut.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.motion import Box
from motionbooth_protocol.text import Text
from PIL import Image

from motionbooth.pictures.images import Mask, Rgb, read_picture

MIN_SHARE = 0.002
"""A subject that covers less of its picture is too small to train on."""
GRABCUT_PX = 384
"""Longer side of the picture that GrabCut gets: its time grows with the area, and this gives a good enough outline."""
GRABCUT_ROUNDS = 5
MARGIN = 0.06
"""Width of the border that GrabCut takes for background, as a share of the picture's sides."""


@dataclass(frozen=True)
class Hint:
    """Where the subject is, in shares of the picture: a box around it or a point (x, y) on it. Neither: the center."""

    box: Box | None = None
    point: tuple[float, float] | None = None


NO_HINT = Hint()


@dataclass(frozen=True)
class Seed:
    """GrabCut's initialization, in shares of the picture's sides."""

    margin: float = MARGIN
    """Width of the border that is background."""
    core: float = 0.0
    """Diameter of the ellipse in the center that is probably the subject; 0 for everything within the border."""


class Finder(Protocol):
    """Finds the subject in a picture without a mask."""

    def __call__(self, rgb: Rgb, hint: Hint) -> Mask:
        """The subject's mask (H, W), 0 or 1, in a picture (H, W, 3) uint8 RGB; all 0 if none is found."""


class MaskedPicture(NamedTuple):
    """A picture and its subject's mask."""

    rgb: Rgb  # (H, W, 3) uint8
    mask: Mask  # (H, W), 0 or 1
    was_found: bool  # by a Finder, so it may be wrong


def picture_with_mask(
    image: Path,
    mask: Path | None,
    label: str | Text,
    hint: Hint = NO_HINT,
    finder: Finder | None = None,
) -> MaskedPicture:
    """The picture and its mask. `label` names the picture in errors ("picture 2").

    `finder` is used if the picture has neither a mask nor an alpha channel; None for GrabCut. Raises InvalidInput for a
    picture that cannot be read, and for a mask that is empty, tiny, or covers everything.
    """
    picture = read_picture(image, label)
    rgb, was_found = np.asarray(picture.convert("RGB")), False
    if mask is not None:
        subject, origin = _given_mask(mask, picture.size, label), "its mask"
    elif picture.mode == "RGBA" and np.asarray(picture.getchannel("A")).min() < 128:
        subject, origin = (np.asarray(picture.getchannel("A")) >= 128).astype(np.float32), "its alpha"
    else:
        subject, origin, was_found = (finder or find_mask)(rgb, hint), "the subject found in it", True
    _check(subject, origin, label)
    return MaskedPicture(rgb, subject, was_found)


def _given_mask(path: Path, size: tuple[int, int], label: str | Text) -> Mask:
    """The subject is bright in any color, or opaque if the mask has only alpha; of the labels 0 and 1, it is 1."""
    picture = read_picture(path, Text.of("the mask of {picture}", picture=label))
    if abs(picture.width / picture.height - size[0] / size[1]) > 0.02 * size[0] / size[1]:
        raise InvalidInput(
            "The mask of {label} is {width} x {height} pixels and the picture {picture_width} x {picture_height}. "
            "Send a mask with the picture's aspect.",
            label=label,
            width=picture.width,
            height=picture.height,
            picture_width=size[0],
            picture_height=size[1],
        )
    brightest = np.asarray(picture.convert("RGB")).max(axis=2)
    brightest = brightest * np.uint8(255) if brightest.max() == 1 else brightest
    gray = np.asarray(Image.fromarray(brightest).resize(size, Image.Resampling.BILINEAR))
    if picture.mode == "RGBA":
        alpha = np.asarray(picture.getchannel("A").resize(size, Image.Resampling.BILINEAR))
        gray = alpha if gray.min() == gray.max() else np.minimum(gray, alpha)
    return (gray >= 128).astype(np.float32)


def find_mask(rgb: Rgb, hint: Hint = NO_HINT, seed: Seed | None = None) -> Mask:
    """The largest object that differs from the picture's border, by GrabCut; `seed` is its initialization.

    With a box in `hint`: the largest object that differs from the surroundings of the box.
    """
    mask = np.zeros(rgb.shape[:2], dtype=np.float32)
    part = (slice(None), slice(None)) if hint.box is None else surroundings(hint.box, *mask.shape)
    if min(mask[part].shape) > 2 and np.ptp(rgb[part]) > 0:
        mask[part] = _grab(rgb[part], seed or Seed())
    return mask


def surroundings(box: Box, height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns of the box with GrabCut's margin around it, clipped to the picture."""

    def span(low: float, high: float, size: int) -> slice:
        margin = (high - low) * MARGIN / (1 - 2 * MARGIN)
        return slice(max(0, round((low - margin) * size)), max(0, round((high + margin) * size)))

    return span(box.y1, box.y2, height), span(box.x1, box.x2, width)


def _grab(rgb: Rgb, seed: Seed) -> Mask:
    height, width = rgb.shape[:2]
    scale = min(1.0, GRABCUT_PX / max(height, width))
    if scale * min(height, width) < 1:
        return np.zeros((height, width), dtype=np.float32)  # as thin as a hair
    small = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    inset_y, inset_x = (max(1, round(seed.margin * side)) for side in small.shape[:2])
    inner = (inset_x, inset_y, small.shape[1] - 2 * inset_x, small.shape[0] - 2 * inset_y)
    if min(inner[2:]) < 2 or np.ptp(small) == 0:
        return np.zeros((height, width), dtype=np.float32)
    labels = np.zeros(small.shape[:2], dtype=np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    mode = cv2.GC_INIT_WITH_RECT
    if seed.core:
        mode = cv2.GC_INIT_WITH_MASK
        labels[inset_y:-inset_y, inset_x:-inset_x] = cv2.GC_PR_BGD
        half_height, half_width = (round(seed.core * side / 2) for side in small.shape[:2])
        middle = (small.shape[1] // 2, small.shape[0] // 2)
        cv2.ellipse(labels, middle, (half_width, half_height), 0, 0, 360, cv2.GC_PR_FGD, -1)
    cv2.setRNGSeed(0)  # its initial clusters are random
    cv2.grabCut(small[..., ::-1].copy(), labels, inner, *models, GRABCUT_ROUNDS, mode)
    foreground = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    resized = cv2.resize(_largest_part(foreground), (width, height), interpolation=cv2.INTER_NEAREST)
    return resized.astype(np.float32)


def _largest_part(foreground: np.ndarray) -> np.ndarray:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(foreground)
    if count < 2:
        return foreground
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return (labels == largest).astype(np.uint8)


def _check(mask: Mask, origin: str, label: str | Text) -> None:
    share = float(mask.mean())
    if share < MIN_SHARE:
        found = Text("is empty") if share == 0 else Text.of("covers only {share:.2%} of it", share=share)
        raise InvalidInput(
            "Cannot use {picture}: {mask} {found}. Send a closer picture, or a mask.",
            picture=label,
            mask=Text(origin),
            found=found,
        )
    if share > 0.995:
        raise InvalidInput(
            "Cannot use {picture}: {mask} covers all of it, so the subject's outline is unknown. "
            "Send a mask, or a picture with some background.",
            picture=label,
            mask=Text(origin),
        )
