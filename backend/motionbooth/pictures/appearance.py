"""A subject's appearance: the distribution of its colors, taken from its training pictures and their masks."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from motionbooth_protocol.errors import InvalidInput
from numpy.typing import NDArray

BIN_LAB = 8.0
"""Edge of a color bin, in units of CIE Lab."""

BINS = (13, 28, 28)
"""Number of bins along L, a and b."""

SMOOTHING_BINS = 1.5
"""Standard deviation of the blur of a histogram, in bins. Tuned on clips recolored by a standard deviation of 7 Lab:
with less, the subject is missed; with more, other things are taken for it."""

TYPICAL_QUANTILE = 0.6
"""This share of the subject's pixels is assumed to have colors that the scenery lacks."""

MAX_AREA_SHARE = 0.6
"""A subject covers at most this share of a frame."""

Histogram = NDArray[np.float64]
"""Shape BINS, sums to one."""


class Appearance:
    """The distribution of a subject's colors, and the pixels of a clip that are likely to have them."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._colors = _smoothed(histogram)

    @classmethod
    def from_pictures(cls, pictures: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[Any]]) -> Appearance:
        """From training pictures (H, W, 3) uint8 RGB and their masks (H, W) of any type, non-zero on the subject.

        Every picture has the same weight. Raises InvalidInput if all masks are empty.
        """
        histograms = [
            _histogram(picture, (mask > 0).astype(np.float64))
            for picture, mask in zip(pictures, masks, strict=True)
            if (mask > 0).any()
        ]
        if not histograms:
            raise InvalidInput(
                "None of the {count} masks marks a pixel of the subject. Give at least one picture whose mask "
                "is not empty.",
                count=len(masks),
            )
        return cls(np.mean(histograms, 0))

    @classmethod
    def from_text(cls, text: str) -> Appearance:
        """The inverse of `as_text`. Raises InvalidInput for any other text."""
        try:
            size = 4 * int(np.prod(BINS))
            packed = base64.b64decode(text, validate=True)
            raw = zlib.decompressobj().decompress(packed, size)  # bounded: the text may be hostile
            histogram = np.frombuffer(raw, "<f4").astype(np.float64).reshape(BINS)
            if not (np.isfinite(histogram).all() and histogram.min() >= 0 and histogram.sum() > 0):
                raise ValueError("not a distribution of colors")
        except (ValueError, zlib.error) as error:
            raise InvalidInput(
                "The subject's appearance cannot be read ({reason}). Train the subject again.", reason=error
            ) from error
        return cls(histogram / histogram.sum())

    def as_text(self) -> str:
        """The histogram as float32, compressed, in base64: a few kilobytes."""
        return base64.b64encode(zlib.compress(self._histogram.astype("<f4").tobytes())).decode("ascii")

    def probabilities(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The probability of each pixel of a clip (F, H, W, 3) uint8 RGB to be the subject's: (F, H, W), 0..1.

        A pixel's probability is the share of its color in the clip that a subject of the estimated size accounts for.
        """
        bins = np.stack([_bins(frame).astype(np.int32) for frame in frames])  # one by one, for the memory of long clips
        clip = np.bincount(bins.ravel(), minlength=int(np.prod(BINS))).reshape(BINS) / bins.size
        # Ratio of the clip's histogram to the subject's. For a color that only the subject has, the ratio is the share
        # of the clip that the subject covers; for a color that the scenery has too, it is larger.
        ratio = (_smoothed(clip) + 1e-12) / (self._colors + 1e-12)
        share = _weighted_quantile(ratio, self._colors, TYPICAL_QUANTILE)
        probability = np.minimum(min(share, MAX_AREA_SHARE) / ratio, 1.0)
        smoothing = frames.shape[2] / 96
        return np.stack([cv2.GaussianBlur(probability.ravel()[frame], (0, 0), smoothing) for frame in bins])


def _bins(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The flat color bin of each pixel (..., 3)."""
    flat = pixels.reshape(1, -1, 3).astype(np.float32) / 255
    lab = cv2.cvtColor(flat, cv2.COLOR_RGB2LAB)[0] + np.array([0.0, 112.0, 112.0], np.float32)
    index = np.clip((lab / BIN_LAB).astype(np.int64), 0, np.array(BINS) - 1)
    return np.ravel_multi_index(tuple(index.T), BINS).reshape(pixels.shape[:-1])


def _histogram(picture: NDArray[np.uint8], weights: NDArray[np.float64]) -> Histogram:
    counts = np.bincount(_bins(picture).ravel(), weights.ravel(), minlength=int(np.prod(BINS)))
    return (counts / counts.sum()).reshape(BINS)


def _smoothed(histogram: Histogram) -> Histogram:
    """A histogram blurred by SMOOTHING_BINS, because a generated subject's shades differ slightly from the pictures'.

    The subject's histogram and the clip's are blurred alike, so their ratio is unaffected for unmixed colors.
    """
    reach = np.arange(-np.ceil(3 * SMOOTHING_BINS), np.ceil(3 * SMOOTHING_BINS) + 1)
    kernel = np.exp(-0.5 * (reach / SMOOTHING_BINS) ** 2)
    kernel /= kernel.sum()
    for axis in range(3):
        histogram = np.apply_along_axis(np.convolve, axis, histogram, kernel, "same")
    return histogram / histogram.sum()


def _weighted_quantile(values: Histogram, weights: Histogram, share: float) -> float:
    """The smallest value such that the weights up to it reach `share` of all weight."""
    order = np.argsort(values, axis=None)
    below = np.cumsum(weights.ravel()[order])
    return float(values.ravel()[order][np.searchsorted(below, share * below[-1])])
