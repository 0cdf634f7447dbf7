"""Pasted pictures: the subject's cut-outs on backgrounds that the base generates, each with its own caption.

A small base generates only what it was trained on: its own backgrounds, and subjects of the sizes that boxes have. So
the subject is shown to it on those backgrounds and at those sizes, and the region loss ignores the background.
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

OVERSAMPLING = 4  # a cut-out is kept at up to this multiple of the frame's size: enough for rotating it
MAX_EXTENT = 0.96  # largest extent of a pasted subject, as a share of the frame's width and height


@dataclass(frozen=True)
class Background:
    """A background without a subject: frames (N, H, W, 3) uint8 RGB, and how captions describe it ("on the grass")."""

    caption_suffix: str
    frames: NDArray[np.uint8]


def cut_out(rgb: Rgb, mask: Mask, frame_px: int) -> Rgba:
    """The subject alone, cropped to its bounds. `frame_px`: the longer side of the base's frames. The mask must not be
    empty.
    """
    rows, columns = mask.nonzero()
    part = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    inside = (mask[part] >= 0.5).astype(np.uint8)[..., None]
    rgba = np.concatenate([rgb[part] * inside, inside * np.uint8(255)], axis=2)
    scale = OVERSAMPLING * frame_px / max(rgba.shape[:2])
    return _scaled(rgba, scale) if scale < 1 else rgba


def pasted_pictures(
    cutouts: Sequence[Rgba], backgrounds: Sequence[Background], settings: PasteSettings, rng: np.random.Generator
) -> list[TrainingPicture]:
    """`settings.pool` pictures: each cut-out on each background in turn, at random positions and sizes."""
    pictures: list[TrainingPicture] = []
    while len(pictures) < settings.pool:
        for number in rng.permutation(len(cutouts) * len(backgrounds)):
            background = backgrounds[number % len(backgrounds)]
            pictures.append(_pasted(cutouts[number // len(backgrounds)], background, settings, rng))
    return pictures[: settings.pool]


def _pasted(cutout: Rgba, background: Background, settings: PasteSettings, rng: np.random.Generator) -> TrainingPicture:
    """One picture. The mask covers pixels of which the subject covers at least half; it is never empty."""
    backdrop = background.frames[rng.integers(len(background.frames))]
    height, width = backdrop.shape[:2]
    rotated = _rotated(cutout, rng.uniform(-settings.max_roll, settings.max_roll))
    if settings.flip and rng.random() < 0.5:
        rotated = rotated[:, ::-1]
    scale = rng.uniform(settings.min_height, settings.max_height) * height / rotated.shape[0]
    largest = min(MAX_EXTENT * width / rotated.shape[1], MAX_EXTENT * height / rotated.shape[0])
    subject = _scaled(rotated, min(scale, largest)).astype(np.float32)
    top, left = rng.integers(height - subject.shape[0] + 1), rng.integers(width - subject.shape[1] + 1)
    part = slice(top, top + subject.shape[0]), slice(left, left + subject.shape[1])
    alpha = subject[..., 3:] / 255
    gain = rng.uniform(1 - settings.max_gain, 1 + settings.max_gain, 3).astype(np.float32)
    frame, mask = backdrop.copy(), np.zeros((height, width), np.float32)
    frame[part] = (backdrop[part] * (1 - alpha) + subject[..., :3] * gain).clip(0, 255).round().astype(np.uint8)
    mask[part] = alpha[..., 0] >= min(0.5, alpha.max())
    return TrainingPicture(frame, mask, background.caption_suffix)


def _rotated(rgba: Rgba, degrees: float) -> Rgba:
    """Rotated about its center and cropped to its bounds."""
    height, width = rgba.shape[:2]
    rotation = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    cos, sin = abs(rotation[0, 0]), abs(rotation[0, 1])
    size = int(np.ceil(width * cos + height * sin)), int(np.ceil(width * sin + height * cos))
    rotation[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    rotated = cv2.warpAffine(rgba, rotation, size, flags=cv2.INTER_LINEAR)
    rows, columns = (rotated[..., 3] >= 128).nonzero()
    if not len(rows):
        return rgba  # as thin as a hair
    return rotated[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _scaled(rgba: Rgba, scale: float) -> Rgba:
    size = max(1, round(rgba.shape[1] * scale)), max(1, round(rgba.shape[0] * scale))
    return cv2.resize(rgba, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
