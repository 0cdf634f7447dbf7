"""Box adherence: find the subject in each frame of a clip and compare its box with the box that was asked for.

The search does not use the requested box. Each pixel gets the probability of belonging to the subject from the
subject's colors and the clip's colors (`Appearance.probabilities`); the largest connected region of probable pixels is
the subject.

Limits: the search compares colors, not shapes. A subject in the colors of its surroundings (a white rocket on snow) is
missed or found only in part. A second object in the subject's colors is mistaken for the subject if it is larger. Two
subjects of the same colors that touch form one region, in which only one of them is found. A subject hidden behind
scenery of its own colors is reported as not found. Shadows and reflections count as scenery. Frames and training
pictures may differ in size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from motionbooth_protocol.motion import Box
from msgspec import Struct
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from motionbooth.pictures.appearance import MAX_AREA_SHARE, Appearance

MIN_AREA_SHARE = 0.008
"""A region below this share of the frame is not a subject."""

MIN_PROBABILITY = 0.2
"""Pixels below this probability are scenery."""

TIE_SHARE = 0.1
"""Regions whose sizes differ by less than this share are equally good candidates; the requested box then decides."""


@dataclass(frozen=True)
class FoundSubject:
    """The subject in one frame: its box in shares of the frame, and `mask` (H, W) bool, true on its pixels."""

    box: Box
    mask: NDArray[np.bool_]


class SubjectFrame(Struct, frozen=True):
    """A subject in one frame; boxes are in shares of the frame.

    Errors are None if no box was requested or no subject was found. `center_error`: distance of the two boxes' centers
    as a share of the frame's width. `iou`: 0 if the subject was requested but not found.
    """

    asked: Box | None
    found: Box | None
    center_error: float | None
    iou: float | None


def find_subjects(
    appearances: Sequence[Appearance], frames: NDArray[np.uint8], requested: Sequence[Sequence[Box | None]]
) -> list[list[FoundSubject | None]]:
    """Each of several subjects in each of the frames (F, H, W, 3) uint8 RGB of a clip, no two in the same region.

    Indexed [subject][frame], as is `requested`; None for a frame that does not show the subject. A subject that shares
    its largest region with no other is in that region, whatever box was requested. If several subjects share a region,
    all are assigned together so that the assigned regions are as large as possible in total. Subjects that look alike
    are told apart by the requested boxes only.
    """
    candidates = [[_regions(each) for each in appearance.probabilities(frames)] for appearance in appearances]
    by_frame = [
        _assigned([own[frame] for own in candidates], [boxes[frame] for boxes in requested])
        for frame in range(len(frames))
    ]
    return [[found[subject] for found in by_frame] for subject in range(len(appearances))]


def _assigned(
    candidates: Sequence[Sequence[FoundSubject]], requested: Sequence[Box | None]
) -> list[FoundSubject | None]:
    """For one frame: one of each subject's candidates (largest first), or None."""
    alone = [next(iter(own), None) for own in candidates]
    largest = [found for found in alone if found is not None]
    if not any(_overlap(one, other) for i, one in enumerate(largest) for other in largest[:i]):
        return alone
    places: list[list[FoundSubject | None]] = []  # places[place][subject]
    for subject, own in enumerate(candidates):
        for region in own[: len(candidates)]:  # more are never needed
            place = next((each for each in places if any(r and _overlap(region, r) for r in each)), None)
            if place is None:
                place = [None] * len(candidates)
                places.append(place)
            place[subject] = place[subject] or region
    scores = np.array([[_score(r, box) for r, box in zip(place, requested, strict=True)] for place in places])
    chosen = dict(zip(*reversed(linear_sum_assignment(scores, maximize=True)), strict=True))  # subject -> place
    return [places[chosen[subject]][subject] if subject in chosen else None for subject in range(len(candidates))]


def _overlap(one: FoundSubject, other: FoundSubject) -> bool:
    """Whether more than half of the smaller region is inside the other."""
    return (one.mask & other.mask).sum() > 0.5 * min(one.mask.sum(), other.mask.sum())


def _score(region: FoundSubject | None, requested: Box | None) -> float:
    """How well a region fits a subject: its size in pixels, plus up to TIE_SHARE for overlap with the requested box."""
    if region is None:
        return 0.0
    overlap = 0.0 if requested is None or not requested.visible else iou(requested.clipped(), region.box)
    return float(region.mask.sum()) * (1 + TIE_SHARE * overlap)


def box_adherence(requested: Box | None, found: FoundSubject | None, aspect: float) -> SubjectFrame:
    """Compare the requested box of one frame with the subject found in it. `aspect`: frame width / frame height."""
    box = None if found is None else found.box
    if requested is None or not requested.visible:
        return SubjectFrame(requested, box, None, None)
    if box is None:
        return SubjectFrame(requested, None, None, 0.0)
    target = requested.clipped()
    dx = box.center[0] - target.center[0]
    dy = (box.center[1] - target.center[1]) / aspect
    return SubjectFrame(requested, box, float(np.hypot(dx, dy)), iou(target, box))


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    width = min(one.x2, other.x2) - max(one.x1, other.x1)
    height = min(one.y2, other.y2) - max(one.y1, other.y1)
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (_area(one) + _area(other) - shared)


def _area(box: Box) -> float:
    return (box.x2 - box.x1) * (box.y2 - box.y1)


def _regions(probability: NDArray[np.float64]) -> list[FoundSubject]:
    """All connected regions of a probability map (H, W) that can be the subject, largest first.

    Empty if the largest region covers more than MAX_AREA_SHARE.
    """
    height, width = probability.shape
    likely = (probability >= MIN_PROBABILITY).astype(np.uint8)
    for operation, size in ((cv2.MORPH_CLOSE, 5), (cv2.MORPH_OPEN, 3)):  # size in pixels of a frame 96 wide
        side = max(3, round(width / 96 * size) | 1)
        likely = cv2.morphologyEx(likely, operation, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
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
