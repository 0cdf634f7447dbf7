"""Checks of a mask that was found: signs that it is not the subject's, so that a person should look at it.

GrabCut mistakes the sea for the dog if the sea differs more from the picture's border. It cannot tell, but it can be
run again from other initializations: if the results differ, the mask is doubtful.
"""

from __future__ import annotations

import cv2
import numpy as np
from motionbooth_protocol.motion import Box
from motionbooth_protocol.text import Text

from motionbooth.pictures.images import Mask, Rgb
from motionbooth.pictures.masks import MARGIN, NO_HINT, Finder, Hint, Seed, find_mask

SEEDS = (Seed(margin=0.02), Seed(margin=0.14), Seed(core=0.5))
MIN_AGREEMENT = 0.75
"""Smallest IoU with the masks from the other seeds. On 21 photographs of four subjects, of which GrabCut cut out 9
wrongly, these seeds and the border check below flag 8 of the 9 and 4 of the 12 correct ones (0.85: 6 of the 12)."""

MAX_BORDER_SHARE = 0.1  # of one side of the picture that the mask touches
MIN_LARGEST_SHARE = 0.75  # of the mask's pixels that are in its largest connected part
MAX_FILL_SHARE = 0.9  # of the hint's box that the mask fills: a subject is rarely a rectangle

BORDER, PIECES = Text("it reaches the picture's border"), Text("it is in pieces")
FULL_HINT, OUTSIDE_HINT = Text("it fills its hint's box"), Text("its hint's point is outside it")
OTHERWISE = Text("a search from other starting points finds something else")


def doubts_about(rgb: Rgb, mask: Mask, hint: Hint = NO_HINT, finder: Finder | None = None) -> tuple[Text, ...]:
    """The reasons to doubt a mask (H, W) of a picture (H, W, 3) uint8; () for none.

    `finder`: what found the mask; None for GrabCut, which is run again from other seeds.
    """
    found = mask > 0.5
    doubts = []
    if hint.box is None and _touches_the_border(found, MARGIN if finder is None else 0.0):
        doubts.append(BORDER)
    if hint.box is not None and _fill(found, hint.box) > MAX_FILL_SHARE:
        doubts.append(FULL_HINT)
    if hint.point is not None and not found[_pixel(hint.point, found.shape)]:
        doubts.append(OUTSIDE_HINT)
    if _largest_share(found) < MIN_LARGEST_SHARE:
        doubts.append(PIECES)
    if finder is None and min(_overlap(found, find_mask(rgb, hint, seed) > 0.5) for seed in SEEDS) < MIN_AGREEMENT:
        doubts.append(OTHERWISE)
    return tuple(doubts)


def _touches_the_border(found: np.ndarray, margin: float) -> bool:
    """The border includes GrabCut's margin, which is background to GrabCut in any case; a network has none."""
    y, x = (round((margin + 0.01) * side) + 1 for side in found.shape)
    sides = (found[:y].any(0), found[-y:].any(0), found[:, :x].any(1), found[:, -x:].any(1))
    return any(side.mean() > MAX_BORDER_SHARE for side in sides)


def _fill(found: np.ndarray, box: Box) -> float:
    height, width = found.shape
    x1, y1, x2, y2 = (max(0, round(edge)) for edge in np.array(box.as_tuple()) * (width, height, width, height))
    part = found[y1:y2, x1:x2]
    return float(part.mean()) if part.size else 0.0


def _pixel(point: tuple[float, float], size: tuple[int, ...]) -> tuple[int, int]:
    height, width = size
    return min(int(point[1] * height), height - 1), min(int(point[0] * width), width - 1)


def _largest_share(found: np.ndarray) -> float:
    count, _, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    return float(areas.max() / areas.sum()) if count > 1 else 1.0


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / max((one | other).sum(), 1))
