"""Box obedience: where is the subject in each frame, as its own pictures teach its looks, and where was it asked to be?

The search knows nothing of the box asked for. It learns the subject's colours from its training pictures and masks,
and the clip's colours from the clip, and gives each pixel the probability of belonging to the subject: how much of its
colour, in CIE Lab, a subject of the size that most of its colours speak for would account for. The largest connected
region of likely pixels is the subject.

Its limits: it knows colours, not shapes. A subject in the colours of its surroundings (a white rocket on snow) is lost
in them, or found only in part; a second thing in the subject's colours is taken for it if it is larger; two subjects in
one another's colours that touch are one region, in which one of them is found; a subject that has disappeared behind
its like-coloured scenery is reported as not found. Shadows and reflections belong to nobody. Frames need not be of one
size with the pictures.
"""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.motion import Box
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

BIN_LAB = 8.0
"""Edge of a colour bin, in units of CIE Lab."""

SMOOTHING_BINS = 1.5
"""Tried on clips recoloured by a standard deviation of 7 Lab: less loses the subject, more finds what is not there."""

BINS = (13, 28, 28)
MIN_AREA_SHARE, MAX_AREA_SHARE = 0.008, 0.6
"""Regions outside these shares of the frame are not a subject."""

MIN_PROBABILITY = 0.2
ALIKE = 0.1
"""Regions that differ by less than this share of their size speak for a subject alike; the asked box then decides."""

TYPICAL_QUANTILE = 0.6
"""Of the subject's pixels, this share is taken to have colours that the scenery lacks."""

Histogram = NDArray[np.float64]
"""Shape BINS, sums to one."""


@dataclass(frozen=True)
class FoundSubject:
    """The subject in one frame: its box in shares of the frame, and `mask` (H, W) bool, true on its pixels."""

    box: Box
    mask: NDArray[np.bool_]


@dataclass(frozen=True)
class FrameObedience:
    """One frame's answer. Errors are None where nothing was asked or nothing was found.

    `center_error`: distance of the two boxes' centres as a share of the frame's width. `iou`: 0 where a subject was
    asked for but not found.
    """

    found: Box | None
    center_error: float | None
    iou: float | None


class Appearance:
    """How a subject looks: the distribution of its colours."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._colours = _smoothed(histogram)

    @classmethod
    def learn(cls, pictures: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.uint8]]) -> "Appearance":
        """From training pictures (H, W, 3) uint8 RGB and their masks (H, W), non-zero on the subject.

        Every picture counts the same. Raises InvalidInput if no mask has a pixel.
        """
        histograms = [
            _histogram(picture, (mask > 0).astype(np.float64))
            for picture, mask in zip(pictures, masks, strict=True)
            if (mask > 0).any()
        ]
        if not histograms:
            raise InvalidInput(
                f"None of the {len(masks)} masks marks a pixel of the subject. Give at least one picture whose mask "
                "is not empty."
            )
        return cls(np.mean(histograms, 0))

    @classmethod
    def from_text(cls, text: str) -> "Appearance":
        """What `as_text` gave. Raises InvalidInput for anything else."""
        try:
            size = 4 * int(np.prod(BINS))
            raw = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size)  # and not a byte more
            histogram = np.frombuffer(raw, "<f4").astype(np.float64).reshape(BINS)
            if not (np.isfinite(histogram).all() and histogram.min() >= 0 and histogram.sum() > 0):
                raise ValueError("not a distribution of colours")
        except (ValueError, zlib.error) as error:
            raise InvalidInput(f"The subject's colours cannot be read ({error}). Learn it again.") from error
        return cls(histogram / histogram.sum())

    def as_text(self) -> str:
        """A few kilobytes: the share of each colour, float32, compressed, in base64."""
        return base64.b64encode(zlib.compress(self._histogram.astype("<f4").tobytes())).decode("ascii")

    def find(self, frames: NDArray[np.uint8]) -> list[FoundSubject | None]:
        """The subject in each of the frames (F, H, W, 3) uint8 RGB of one clip; None where it is not to be seen."""
        return [next(iter(_regions(probability)), None) for probability in self.probabilities(frames)]

    def probabilities(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """For each pixel of a clip (F, H, W), the probability that it belongs to the subject."""
        bins = _bins(frames)
        clip = np.bincount(bins.ravel(), minlength=int(np.prod(BINS))).reshape(BINS) / bins.size
        # How much more there is of each colour in the clip than the subject, were it all of the clip, would account
        # for. Where the subject alone has a colour, that is its share of the clip; where the scenery has it, too, more.
        excess = (_smoothed(clip) + 1e-12) / (self._colours + 1e-12)
        share = _weighted_quantile(excess, self._colours, TYPICAL_QUANTILE)
        belongs = np.minimum(min(share, MAX_AREA_SHARE) / excess, 1.0)
        smoothing = frames.shape[2] / 96
        return np.stack([cv2.GaussianBlur(belongs.ravel()[frame], (0, 0), smoothing) for frame in bins])


def find_all(
    appearances: Sequence[Appearance], frames: NDArray[np.uint8], asked: Sequence[Sequence[Box | None]]
) -> list[list[FoundSubject | None]]:
    """Each of several subjects in each frame, no two in the same place.

    A subject that shares its largest region with no other is found as `Appearance.find` finds it, whatever was asked.
    Where several would be found in one region, all are assigned at once, so that as much as possible of all their
    colours is accounted for; which of two that look alike is which, only the boxes `asked` of them can say.
    """
    candidates = [[_regions(each) for each in appearance.probabilities(frames)] for appearance in appearances]
    by_frame = [
        _assigned([own[frame] for own in candidates], [boxes[frame] for boxes in asked]) for frame in range(len(frames))
    ]
    return [[found[subject] for found in by_frame] for subject in range(len(appearances))]


def _assigned(candidates: Sequence[Sequence[FoundSubject]], asked: Sequence[Box | None]) -> list[FoundSubject | None]:
    """One of each subject's candidates (largest first), or None, for the subjects of one frame."""
    alone = [next(iter(own), None) for own in candidates]
    largest = [found for found in alone if found is not None]
    if not any(_same_place(one, other) for i, one in enumerate(largest) for other in largest[:i]):
        return alone
    places: list[list[FoundSubject | None]] = []  # places[place][subject]
    for subject, own in enumerate(candidates):
        for region in own[: len(candidates)]:  # more are never needed
            place = next((each for each in places if any(r and _same_place(region, r) for r in each)), None)
            if place is None:
                place = [None] * len(candidates)
                places.append(place)
            place[subject] = place[subject] or region
    worth = np.array([[_worth(r, box) for r, box in zip(place, asked, strict=True)] for place in places])
    chosen = dict(zip(*reversed(linear_sum_assignment(worth, maximize=True)), strict=True))  # subject -> place
    return [places[chosen[subject]][subject] if subject in chosen else None for subject in range(len(candidates))]


def _same_place(one: FoundSubject, other: FoundSubject) -> bool:
    """Whether most of the smaller lies in the other."""
    return (one.mask & other.mask).sum() > 0.5 * min(one.mask.sum(), other.mask.sum())


def _worth(region: FoundSubject | None, asked: Box | None) -> float:
    """How much speaks for a subject being in this region: its size, and a little the box that was asked."""
    if region is None:
        return 0.0
    overlap = 0.0 if asked is None or not asked.visible else iou(asked.clipped(), region.box)
    return float(region.mask.sum()) * (1 + ALIKE * overlap)


def obey(asked: Box | None, found: FoundSubject | None, aspect: float) -> FrameObedience:
    """Compare one frame's asked box with what was found. `aspect`: the frame's width over its height."""
    box = None if found is None else found.box
    if asked is None or not asked.visible:
        return FrameObedience(box, None, None)
    if box is None:
        return FrameObedience(None, None, 0.0)
    wanted = asked.clipped()
    dx = box.center[0] - wanted.center[0]
    dy = (box.center[1] - wanted.center[1]) / aspect
    return FrameObedience(box, float(np.hypot(dx, dy)), iou(wanted, box))


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    width = min(one.x2, other.x2) - max(one.x1, other.x1)
    height = min(one.y2, other.y2) - max(one.y1, other.y1)
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (_area(one) + _area(other) - shared)


def _area(box: Box) -> float:
    return (box.x2 - box.x1) * (box.y2 - box.y1)


def _bins(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The flat colour bin of each pixel (..., 3)."""
    flat = pixels.reshape(1, -1, 3).astype(np.float32) / 255
    lab = cv2.cvtColor(flat, cv2.COLOR_RGB2LAB)[0] + np.array([0.0, 112.0, 112.0], np.float32)
    index = np.clip((lab / BIN_LAB).astype(np.int64), 0, np.array(BINS) - 1)
    return np.ravel_multi_index(tuple(index.T), BINS).reshape(pixels.shape[:-1])


def _histogram(picture: NDArray[np.uint8], weights: NDArray[np.float64]) -> Histogram:
    counts = np.bincount(_bins(picture).ravel(), weights.ravel(), minlength=int(np.prod(BINS)))
    return (counts / counts.sum()).reshape(BINS)


def _smoothed(histogram: Histogram) -> Histogram:
    """A histogram blurred by SMOOTHING_BINS: a generated subject's shades differ a little from the pictures'.

    The subject's and the clip's are blurred alike, so that their ratio stays what it was where both are pure.
    """
    reach = np.arange(-np.ceil(3 * SMOOTHING_BINS), np.ceil(3 * SMOOTHING_BINS) + 1)
    kernel = np.exp(-0.5 * (reach / SMOOTHING_BINS) ** 2)
    kernel /= kernel.sum()
    for axis in range(3):
        histogram = np.apply_along_axis(np.convolve, axis, histogram, kernel, "same")
    return histogram / histogram.sum()


def _weighted_quantile(values: Histogram, weights: Histogram, share: float) -> float:
    """The value below which `share` of the weight lies."""
    order = np.argsort(values, axis=None)
    below = np.cumsum(weights.ravel()[order])
    return float(values.ravel()[order][np.searchsorted(below, share * below[-1])])


def _regions(probability: NDArray[np.float64]) -> list[FoundSubject]:
    """All connected regions (H, W) that can be the subject, the largest first; none where the largest is too large."""
    height, width = probability.shape
    likely = (probability >= MIN_PROBABILITY).astype(np.uint8)
    reach = max(3, round(width / 96 * 5) | 1)
    likely = cv2.morphologyEx(likely, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    thin = max(3, round(width / 96 * 3) | 1)
    likely = cv2.morphologyEx(likely, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (thin, thin)))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(likely, connectivity=8)
    shares = stats[:, cv2.CC_STAT_AREA] / probability.size
    if shares[1:].max(initial=0) > MAX_AREA_SHARE:
        return []
    regions = []
    for label in sorted(range(1, count), key=lambda each: -shares[each]):
        if shares[label] >= MIN_AREA_SHARE:
            x, y, w, h = (int(stats[label, column]) for column in range(4))
            box = Box(x / width, y / height, (x + w) / width, (y + h) / height)
            regions.append(FoundSubject(box, labels == label))
    return regions
