"""The subject's mask: the one that came with the picture, the picture's own alpha, or one that is found.

It is found by Segment Anything where its weights are there (sam.py), else by GrabCut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.motion import Box
from PIL import Image

from motionbooth.pictures.images import Mask, Rgb, read_picture

SMALLEST_SHARE = 0.002  # of the picture; less cannot be learned from
FOUND_AT = 384  # pixels: GrabCut's time grows with the area, its outline is good enough at this size
GRABCUT_ROUNDS = 5
FOUND = "the subject found in it"
MARGIN = 0.06  # of the picture's sides, taken for background


@dataclass(frozen=True)
class Hint:
    """Where the subject is, in shares of the picture: in a box, or at a point of it. Neither: in the middle."""

    box: Box | None = None
    point: tuple[float, float] | None = None


NO_HINT = Hint()


@dataclass(frozen=True)
class Seed:
    """What GrabCut begins with: `margin` of the sides is background; the middle `core` of them, if any, the subject."""

    margin: float = MARGIN
    core: float = 0.0


class Finder(Protocol):
    """What finds a subject that nobody has cut out."""

    def __call__(self, rgb: Rgb, hint: Hint) -> Mask:
        """The subject's pixels: (H, W) of 0 and 1 for a picture (H, W, 3) uint8; all 0 where there is none."""


def picture_with_mask(
    image: Path,
    mask: Path | None,
    label: str,
    hint: Hint = NO_HINT,
    finder: Finder | None = None,
    on_found: Callable[[Rgb, Mask], None] | None = None,
) -> tuple[Rgb, Mask]:
    """The picture (H, W, 3) uint8 and its mask (H, W) of 0 and 1. `label` names the picture in errors.

    `finder` is asked where the picture comes without a mask; None is GrabCut. `on_found`: told of a mask that was found
    so, and can be learned from.

    Raises InvalidInput for a picture that cannot be read and for a mask that is empty, tiny, or covers everything.
    """
    picture = read_picture(image, label)
    rgb = np.asarray(picture.convert("RGB"))
    if mask is not None:
        found, whose = _given_mask(mask, picture.size, label), "its mask"
    elif picture.mode == "RGBA" and np.asarray(picture.getchannel("A")).min() < 128:
        found, whose = (np.asarray(picture.getchannel("A")) >= 128).astype(np.float32), "its alpha"
    else:
        found, whose = (finder or find_mask)(rgb, hint), FOUND
    _check(found, whose, label)
    if on_found is not None and whose == FOUND:
        on_found(rgb, found)
    return rgb, found


def _given_mask(path: Path, size: tuple[int, int], label: str) -> Mask:
    """Bright in any colour (or opaque, where the mask has only alpha) is the subject; of labels 0 and 1, the latter."""
    picture = read_picture(path, f"the mask of {label}")
    if abs(picture.width / picture.height - size[0] / size[1]) > 0.02 * size[0] / size[1]:
        raise InvalidInput(
            "The mask of {label} is {width} x {height} pixels and the picture {picture_width} x {picture_height}. "
            "Send a mask of the picture's own shape.",
            label=label,
            width=picture.width,
            height=picture.height,
            picture_width=size[0],
            picture_height=size[1],
        )
    brightest = np.asarray(picture.convert("RGB")).max(axis=2)
    brightest = brightest * np.uint8(255) if brightest.max() == 1 else brightest
    grey = np.asarray(Image.fromarray(brightest).resize(size, Image.Resampling.BILINEAR))
    if picture.mode == "RGBA":
        alpha = np.asarray(picture.getchannel("A").resize(size, Image.Resampling.BILINEAR))
        grey = alpha if grey.min() == grey.max() else np.minimum(grey, alpha)
    return (grey >= 128).astype(np.float32)


def find_mask(rgb: Rgb, hint: Hint = NO_HINT, seed: Seed | None = None) -> Mask:
    """The largest thing that differs from the picture's border (GrabCut, seeded with all but a margin).

    With a box: from what is around the box, wherever else in the picture there is more of the same.
    """
    mask = np.zeros(rgb.shape[:2], dtype=np.float32)
    part = (slice(None), slice(None)) if hint.box is None else _around(hint.box, *mask.shape)
    if min(mask[part].shape) > 2 and np.ptp(rgb[part]) > 0:
        mask[part] = _grab(rgb[part], seed or Seed())
    return mask


def _around(box: Box, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the box with GrabCut's margin around it, as far as the picture goes."""

    def span(low: float, high: float, size: int) -> slice:
        margin = (high - low) * MARGIN / (1 - 2 * MARGIN)
        return slice(max(0, round((low - margin) * size)), max(0, round((high + margin) * size)))

    return span(box.y1, box.y2, height), span(box.x1, box.x2, width)


def _grab(rgb: Rgb, seed: Seed) -> Mask:
    height, width = rgb.shape[:2]
    scale = min(1.0, FOUND_AT / max(height, width))
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
    cv2.setRNGSeed(0)  # its first clusters are drawn at random
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


def _check(mask: Mask, whose: str, label: str) -> None:
    share = float(mask.mean())
    start = label[:1].upper() + label[1:]
    if share < SMALLEST_SHARE:
        found = "is empty" if share == 0 else f"covers {share:.2%} of it only"
        raise InvalidInput(
            "{start} cannot be learned from: {mask} {found}. Send a closer picture, or a mask.",
            start=start,
            mask=whose,
            found=found,
        )
    if share > 0.995:
        raise InvalidInput(
            "{start} cannot be learned from: {mask} covers all of it, so the subject's outline is unknown. "
            "Send a mask, or a picture with some background.",
            start=start,
            mask=whose,
        )
