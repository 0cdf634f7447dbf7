"""Identity: find a subject by its features, not by its colors alone, and say how much it resembles its pictures.

The product's own measure, without weights and without training. Every picture of the subject is a template in several
sizes and two widths, as a subject that turns looks narrower. It has two kinds of features: CIE Lab values, and the
strength of edges in four orientations relative to the edges around them, which sees outlines. A place in a frame is as
similar as the geometric mean of the masked, normalized cross-correlations of both, minus what pixels in random order
reach by chance. So neither a blob of the right color nor shuffled pixels of the subject are similar, and a gray subject
on gray is found by its edges. Poses that no picture shows and subjects smaller than MIN_SIDE_PX of a frame 96 wide are
missed. `motionbooth bench identity` says on which subjects the constants were chosen, and on which others it measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from motionbooth_protocol.motion import Box
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from motionbooth.pictures.masks import MaskedPicture

FRAME_PX = 96
"""The longer side of the frames that are searched; others are scaled to it."""
MIN_SIDE_PX, MAX_SIDE_PX, SIDE_STEP = 15.0, 90.0, 2**0.25
"""Sizes of the templates: of the longer side of the subject in a frame of FRAME_PX."""
WIDTHS = (0.8, 1.0)
"""Shares of a picture's width: a subject that has turned a little more than in a picture looks narrower."""
MAX_VIEWS = 5
"""Of more pictures, this many are used, evenly spaced."""
MIN_SIMILARITY = 0.48
"""Below, the subject is not recognized. `motionbooth bench identity` measures what is missed and what is false."""
TIE = 0.1
"""How much full overlap with the requested box adds to the similarity when equal subjects are told apart."""

BLUR_PX, NEIGHBORHOOD_PX, MIN_EDGE = 0.7, 4.0, 1.0
"""Blur of the features; the standard deviation of what counts as around an edge; and the strength, in CIE Lab a pixel,
of edges that are noise."""
ORIENTATIONS = 4
BORDER_PX = 8
"""Frames are continued by this much, so that subjects at the edge are found."""
CHANCE_DEVIATIONS = 2.0
"""The correlation of n unrelated pixels has a standard deviation of 1 / sqrt(n)."""

Features = NDArray[np.float32]  # (H, W, channels)
Mask = NDArray[np.float32]  # (H, W), 0 or 1


@dataclass(frozen=True)
class Recognized:
    """A place that resembles a subject: its box in shares of the frame, and its similarity (-1..1)."""

    box: Box
    similarity: float


@dataclass(frozen=True)
class _Template:
    colors: Features
    edges: Features
    mask: Mask
    edge_mask: Mask
    box: tuple[int, int, int, int]
    """The subject's bounds in the template, x1 y1 x2 y2 in pixels."""


@dataclass(frozen=True)
class Views:
    """The templates of a subject."""

    templates: Sequence[_Template]

    @classmethod
    def of(cls, pictures: Sequence[MaskedPicture]) -> Views:
        """From at least one picture whose mask is not empty."""
        chosen = np.unique(np.linspace(0, len(pictures) - 1, min(len(pictures), MAX_VIEWS)).round().astype(int))
        sides = MIN_SIDE_PX * SIDE_STEP ** np.arange(np.floor(np.log(MAX_SIDE_PX / MIN_SIDE_PX) / np.log(SIDE_STEP)))
        return cls([_template(pictures[index], side, share) for index in chosen for side in sides for share in WIDTHS])


def recognize(
    views: Sequence[Views], frame: NDArray[np.uint8], requested: Sequence[Box | None]
) -> list[Recognized | None]:
    """Where a frame (H, W, 3) uint8 RGB shows each subject, no two at the same place; None if there is no place for it.

    Similar subjects share the places so that the sum of the similarities is largest; equal ones are told apart by the
    requested boxes. The similarity may be below MIN_SIMILARITY.
    """
    candidates = [_candidates(each, frame, len(views)) for each in views]
    places: list[Box] = []
    for found in sorted((one for own in candidates for one in own), key=lambda one: -one.similarity):
        if not any(_overlap(found.box, place) for place in places):
            places.append(found.box)
    if not places:
        return [None] * len(views)
    best = [
        [
            max((one for one in own if _overlap(one.box, place)), key=lambda one: one.similarity, default=None)
            for place in places
        ]
        for own in candidates
    ]
    scores = np.array([[_score(one, box) for one in row] for row, box in zip(best, requested, strict=True)])
    found_at = dict(zip(*linear_sum_assignment(scores, maximize=True), strict=True))
    return [best[subject][found_at[subject]] if subject in found_at else None for subject in range(len(views))]


def _score(found: Recognized | None, requested: Box | None) -> float:
    if found is None:
        return -1.0
    return found.similarity + (TIE * _shared(found.box, requested, union=True) if requested is not None else 0.0)


def _candidates(views: Views, frame: NDArray[np.uint8], count: int) -> list[Recognized]:
    """The `count` most similar places that do not overlap, the best first."""
    height, width = frame.shape[:2]
    scale = FRAME_PX / max(height, width)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=interpolation)
    rows, columns = small.shape[:2]
    around = ((BORDER_PX, BORDER_PX), (BORDER_PX, BORDER_PX), (0, 0))
    colors, edges = _features(small)
    colors, edges = np.pad(colors, around, "edge"), np.pad(edges, around)
    found = []
    for template in views.templates:
        if template.mask.shape[0] <= colors.shape[0] and template.mask.shape[1] <= colors.shape[1]:
            for x, y, similarity in _peaks(template, colors, edges, count):
                x1, y1, x2, y2 = (
                    (edge + corner - BORDER_PX) / size
                    for edge, corner, size in zip(template.box, (x, y, x, y), (columns, rows) * 2, strict=True)
                )
                found.append(Recognized(Box(x1, y1, x2, y2), similarity))
    kept: list[Recognized] = []
    for one in sorted(found, key=lambda one: -one.similarity):
        if one.box.visible and not any(_overlap(one.box, other.box) for other in kept):
            kept.append(one)
    return kept[:count]


def _peaks(template: _Template, colors: Features, edges: Features, count: int) -> Iterator[tuple[int, int, float]]:
    """x, y and similarity of the `count` best places of a template that are at least half its size apart."""
    both = [
        _correlation(colors, template.colors, template.mask),
        _correlation(edges, template.edges, template.edge_mask),
    ]
    similarity = np.sqrt(both[0] * both[1]) - CHANCE_DEVIATIONS / np.sqrt(template.mask.sum())
    height, width = (max(1, side // 2) for side in template.mask.shape)
    for _ in range(count):
        y, x = np.unravel_index(similarity.argmax(), similarity.shape)
        yield int(x), int(y), float(similarity[y, x])
        similarity[max(0, y - height) : y + height + 1, max(0, x - width) : x + width + 1] = -1


def _correlation(image: Features, template: Features, mask: Mask) -> NDArray[np.float64]:
    """Masked, normalized cross-correlation at each place, 0..1; negative ones and plain areas are 0."""
    masks = np.ascontiguousarray(np.repeat(mask[..., None], template.shape[2], axis=2))
    found = cv2.matchTemplate(image, template, cv2.TM_CCOEFF_NORMED, mask=masks).astype(np.float64)
    return np.where(np.isfinite(found) & (found < 1 + 1e-3), found, 0).clip(0, 1)  # a plain area divides by nearly 0


def _template(picture: MaskedPicture, side: float, share: float) -> _Template:
    """The picture in this share of its width, scaled so that the longer side of the subject has `side` pixels."""
    margin = 2
    rows, columns = np.nonzero(picture.mask)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    scale = side / max(bottom - top, (right - left) * share)
    pad = int(np.ceil(2 * margin / (scale * share)))
    padded = np.pad(picture.rgb, ((pad, pad), (pad, pad), (0, 0)), "edge")
    masked = np.pad((picture.mask > 0).astype(np.float32), pad)
    part = slice(top, bottom + 2 * pad), slice(left, right + 2 * pad)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small, cover = (
        cv2.resize(each[part], None, fx=scale * share, fy=scale, interpolation=interpolation)
        for each in (padded, masked)
    )
    mask = (cover >= 0.5 * cover.max()).astype(np.float32)
    colors, edges = _features(small)
    rows, columns = np.nonzero(mask)
    kept = tuple(slice(max(0, each.min() - margin), each.max() + 1 + margin) for each in (rows, columns))
    x, y = columns - kept[1].start, rows - kept[0].start
    return _Template(
        colors=np.ascontiguousarray(colors[kept]),
        edges=np.ascontiguousarray(edges[kept]),
        mask=mask[kept],
        edge_mask=cv2.dilate(mask, np.ones((3, 3), np.uint8))[kept].astype(np.float32),
        box=(int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1),
    )


def _features(picture: NDArray[np.uint8]) -> tuple[Features, Features]:
    """CIE Lab values (H, W, 3), and edges in each orientation (H, W, 4), of a picture (H, W, 3) uint8 RGB."""
    lab = cv2.GaussianBlur(cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), (0, 0), BLUR_PX)
    slopes = np.stack([cv2.Sobel(lab, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1))])
    steepest = (slopes**2).sum(0).argmax(-1)
    dx, dy = np.take_along_axis(slopes, steepest[None, ..., None], -1)[..., 0]
    strength, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    turns = np.arange(ORIENTATIONS, dtype=np.float32) * np.pi / ORIENTATIONS
    edges = strength[..., None] * np.maximum(0, np.cos(2 * (angle[..., None] - turns)))
    around = cv2.GaussianBlur(strength**2, (0, 0), NEIGHBORHOOD_PX)
    edges = cv2.GaussianBlur(edges, (0, 0), BLUR_PX) / np.sqrt(around + MIN_EDGE**2)[..., None]
    return lab, edges.astype(np.float32)


def _overlap(one: Box, other: Box) -> bool:
    """Whether more than half of the smaller box is inside the other."""
    return _shared(one, other, union=False) > 0.5


def _shared(one: Box, other: Box, union: bool) -> float:
    """The area that two boxes share, as a share of their union or of the smaller one."""
    width = min(one.x2, other.x2) - max(one.x1, other.x1)
    height = min(one.y2, other.y2) - max(one.y1, other.y1)
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(box.x2 - box.x1) * (box.y2 - box.y1) for box in (one, other)]
    return shared / (sum(areas) - shared if union else min(areas))
