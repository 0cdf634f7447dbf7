"""`motionbooth bench identity`: does the built-in measure of identity recognize a subject, and nothing else?

Subjects are pasted on toybox's textures, 96 x 64 pixels, each in a view of which the measure has no template. There are
two sets, and a constant may be chosen on the first one only:

- Tuning set, shown with `--tuning`: the eight rendered solids of `bench control`, and since the first look at the
  measured set eight characters that turn their sides to the camera. WIDTHS was chosen on those and on eight characters
  of the galleries, all other constants of `evaluation/identity.py` on the solids.
- Measured set: the eight subjects of `held_out`, of other kinds, on other backgrounds and with other seeds.
  It was looked at twice: before and after WIDTHS.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.evaluation.box_adherence import iou
from motionbooth.evaluation.identity import MIN_SIMILARITY, Recognized, Views, recognize
from motionbooth.pictures.masks import MaskedPicture
from motionbooth_protocol.motion import Box
from numpy.typing import NDArray

from motionbooth_lab.bench.held_out import held_out_subjects, turning_subjects
from motionbooth_lab.bench.identity import pasted
from motionbooth_lab.bench.subjects import SOLIDS, TrainingSet, unseen_subjects
from motionbooth_lab.toybox.backgrounds import draw_texture
from motionbooth_lab.toybox.draw import HEIGHT_PX, WIDTH_PX

Frame = NDArray[np.uint8]
PAIR = (0.3, 0.7)
"""Where the centers of two equal subjects are, as shares of the frame's width."""
TUNING_SEED, SEED = 41, 43
"""Seeds of the textures."""


def bench_identity(tuning: bool = False) -> BenchResult:
    """Run the bench on the measured set, or on the tuning set: a minute or two."""
    if tuning:
        solids = [subject for subject in unseen_subjects() if subject.name in SOLIDS]
        return _measured([*solids, *turning_subjects()], TUNING_SEED)
    return _measured(held_out_subjects(), SEED)


def _measured(subjects: Sequence[TrainingSet], seed: int) -> BenchResult:
    titles = [subject.name.replace(" ", "_") for subject in subjects]
    names = ("true", "shuffled", "others", "textures", "single", "pairs")
    seen: dict[str, list[list[float]]] = {name: [[] for _ in subjects] for name in names}
    for index, subject in enumerate(subjects):
        for view, views, texture in _views(subject, seed):
            frame, box = _shown(subject, view, texture, [0.5])
            best = _best(views, frame)
            seen["true"][index].append(best.similarity)
            seen["single"][index].append(iou(box[0], best.box) if best.similarity >= MIN_SIMILARITY else 0.0)
            seen["shuffled"][index].append(_best(views, _shuffled(frame, texture, view)).similarity)
            seen["textures"][index].append(_best(views, texture).similarity)
            other = subjects[(index + 1 + view) % len(subjects)]
            seen["others"][index].append(_best(views, _shown(other, 2, texture, [0.5])[0]).similarity)
            seen["pairs"][index] += _pair(subject, view, views, texture)
    gaps, pairs = np.mean(seen["true"], 1) - np.mean(seen["shuffled"], 1), np.mean(seen["pairs"], 1)
    false = np.concatenate([np.ravel(seen["others"]), np.ravel(seen["textures"])])
    figures = {
        "identity_true": np.mean(seen["true"]),
        "identity_shuffled": np.mean(seen["shuffled"]),
        "identity_shuffled_gap": gaps.mean(),
        "identity_shuffled_gap_worst": gaps.min(),
        "recognized_share": np.mean(np.array(seen["true"]) >= MIN_SIMILARITY),
        "recognized_iou": np.mean(seen["single"]),
        "false_share": np.mean(false >= MIN_SIMILARITY),
        "two_equal_subjects_iou": pairs.mean(),
        "two_equal_subjects_iou_worst": pairs.min(),
        **{f"{name}_shuffled_gap": gap for name, gap in zip(titles, gaps, strict=True)},
        **{f"{name}_pair_iou": pair for name, pair in zip(titles, pairs, strict=True)},
    }
    return BenchResult("identity", [Measure(name, float(value), "0..1") for name, value in figures.items()])


def _views(subject: TrainingSet, seed: int) -> Iterator[tuple[int, Views, Frame]]:
    """Each picture's number, the templates of the other pictures, and a texture that contrasts with the subject."""
    for view in range(len(subject.pictures)):
        known = [number for number in range(len(subject.pictures)) if number != view]
        pictures = [
            MaskedPicture(subject.pictures[number], (subject.masks[number] > 127).astype(np.float32), False)
            for number in known
        ]
        place = subject.places[view % len(subject.places)]
        yield view, Views.of(pictures), draw_texture(place, np.random.default_rng([seed, view]))[:HEIGHT_PX, :WIDTH_PX]


def _shown(subject: TrainingSet, view: int, texture: Frame, centers: Sequence[float]) -> tuple[Frame, list[Box]]:
    """The texture with the subject at each of the centers, and its bounds there."""
    side = 0.45 + 0.06 * view  # of the frame's height
    half_width = side / 2 * HEIGHT_PX / WIDTH_PX
    frame, boxes = texture, []
    for x in centers:
        box = Box(x - half_width, 0.5 - side / 2, x + half_width, 0.5 + side / 2)
        frame, cover = pasted(frame, subject.pictures[view], subject.masks[view], box)
        rows, columns = np.nonzero(cover > 0.5)
        x1, x2 = float(columns.min()) / WIDTH_PX, float(columns.max() + 1) / WIDTH_PX
        boxes.append(Box(x1, float(rows.min()) / HEIGHT_PX, x2, float(rows.max() + 1) / HEIGHT_PX))
    return frame, boxes


def _best(views: Views, frame: Frame) -> Recognized:
    (found,) = recognize([views], frame, [None])
    assert found is not None
    return found


def _shuffled(frame: Frame, texture: Frame, seed: int) -> Frame:
    """The frame with the subject's pixels, which differ from the texture, in random order."""
    own = np.argwhere((frame != texture).any(2))
    mixed = np.random.default_rng(seed).permutation(len(own))
    shuffled = frame.copy()
    shuffled[tuple(own.T)] = frame[tuple(own[mixed].T)]
    return shuffled


def _pair(subject: TrainingSet, view: int, views: Views, texture: Frame) -> list[float]:
    """The IoU of each of two equal subjects beside each other, told apart by requested boxes of which each is off."""
    frame, boxes = _shown(subject, view, texture, PAIR)
    found = recognize([views, views], frame, [box.moved(0.05, 0.05) for box in boxes])
    return [
        iou(box, place.box) if place is not None and place.similarity >= MIN_SIMILARITY else 0.0
        for box, place in zip(boxes, found, strict=True)
    ]
