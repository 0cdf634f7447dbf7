"""Pasted pictures: the subject's cut-outs on places that the base itself generates, each with a caption of its own.

A small base shows only what it was trained on: its own places, and subjects of the sizes that boxes have. So
it is shown the subject there, and the loss can leave the place alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motionbooth.models.settings import PasteSettings
from motionbooth.pictures.images import Mask, Rgb, TrainingPicture

Rgba = NDArray[np.uint8]  # (h, w, 4), colors multiplied by alpha

ENLARGED = 4  # a cut-out is kept at up to so many times the frame's size: enough for turning it, little to hold
LONGEST = 0.96  # of the frame's width and height: the largest that a pasted subject gets


@dataclass(frozen=True)
class Place:
    """Where a subject can be: `phrase` as in "on the grass", and `frames` (N, H, W, 3) of the place without anybody."""

    phrase: str
    frames: NDArray[np.uint8]


def cut_out(rgb: Rgb, mask: Mask, longest_px: int) -> Rgba:
    """The subject alone, cropped to its bounds, at most `longest_px` long. The mask has a pixel at least."""
    rows, columns = mask.nonzero()
    part = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    inside = (mask[part] >= 0.5).astype(np.uint8)[..., None]
    rgba = np.concatenate([rgb[part] * inside, inside * np.uint8(255)], axis=2)
    scale = longest_px / max(rgba.shape[:2])
    return _scaled(rgba, scale) if scale < 1 else rgba


def pasted_pictures(
    cutouts: Sequence[Rgba], places: Sequence[Place], settings: PasteSettings, rng: np.random.Generator
) -> list[TrainingPicture]:
    """`settings.pool` pictures: each cut-out on each place in turn, where and how large by chance. Edges are soft."""
    pictures: list[TrainingPicture] = []
    while len(pictures) < settings.pool:
        for number in rng.permutation(len(cutouts) * len(places)):
            place = places[number % len(places)]
            background = place.frames[rng.integers(len(place.frames))]
            pictures.append(_pasted(cutouts[number // len(places)], background, place.phrase, settings, rng))
    return pictures[: settings.pool]


def _pasted(
    cutout: Rgba, background: Rgb, phrase: str, settings: PasteSettings, rng: np.random.Generator
) -> TrainingPicture:
    """One picture. The mask is where at least half of a pixel is the subject's; never empty."""
    height, width = background.shape[:2]
    turned = _turned(cutout, rng.uniform(-settings.roll, settings.roll))
    if settings.flip and rng.random() < 0.5:
        turned = turned[:, ::-1]
    wanted = rng.uniform(settings.smallest, settings.largest) * height / turned.shape[0]
    fitting = min(LONGEST * width / turned.shape[1], LONGEST * height / turned.shape[0])
    subject = _scaled(turned, min(wanted, fitting)).astype(np.float32)
    top, left = rng.integers(height - subject.shape[0] + 1), rng.integers(width - subject.shape[1] + 1)
    part = slice(top, top + subject.shape[0]), slice(left, left + subject.shape[1])
    alpha = subject[..., 3:] / 255
    gain = rng.uniform(1 - settings.gain, 1 + settings.gain, 3).astype(np.float32)
    frame, mask = background.copy(), np.zeros((height, width), np.float32)
    frame[part] = (background[part] * (1 - alpha) + subject[..., :3] * gain).clip(0, 255).round().astype(np.uint8)
    mask[part] = alpha[..., 0] >= min(0.5, alpha.max())
    return TrainingPicture(frame, mask, phrase)


def _turned(rgba: Rgba, degrees: float) -> Rgba:
    """Turned about its middle, cropped to its bounds again."""
    height, width = rgba.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    size = int(np.ceil(width * cos + height * sin)), int(np.ceil(width * sin + height * cos))
    turn[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    turned = cv2.warpAffine(rgba, turn, size, flags=cv2.INTER_LINEAR)
    rows, columns = (turned[..., 3] >= 128).nonzero()
    if not len(rows):
        return rgba  # as thin as a hair
    return turned[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _scaled(rgba: Rgba, scale: float) -> Rgba:
    size = max(1, round(rgba.shape[1] * scale)), max(1, round(rgba.shape[0] * scale))
    return cv2.resize(rgba, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
