"""Identity by features: gray on gray, equal subjects, frames of other sizes, and what is no subject."""

import cv2
import numpy as np
import pytest
from motionbooth.evaluation.box_adherence import iou
from motionbooth.evaluation.identity import MIN_SIMILARITY, Views, recognize
from motionbooth.evaluation.report import MotionReport, TargetSubject, motion_report
from motionbooth.pictures.appearance import Appearance
from motionbooth.pictures.masks import MaskedPicture
from motionbooth_protocol.motion import Box, CameraPath

WIDTH, HEIGHT = 192, 128


def cat(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A gray cat (S, S, 3) on the same gray, which only its outline and its face show, and its mask (S, S)."""
    picture, mask = np.full((size, size), 128, np.uint8), np.zeros((size, size), np.uint8)

    def at(*shares: float) -> list[tuple[int, int]]:
        return [(round(x * size), round(y * size)) for x, y in zip(shares[::2], shares[1::2], strict=True)]

    for ears in ((0.22, 0.1, 0.2, 0.5, 0.45, 0.3), (0.78, 0.1, 0.8, 0.5, 0.55, 0.3)):
        cv2.fillPoly(mask, [np.array(at(*ears))], 255)
    cv2.ellipse(mask, at(0.5, 0.55)[0], (round(0.33 * size), round(0.3 * size)), 0, 0, 360, 255, -1)
    edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    picture[mask > 0] = 132
    picture[edge] = 112
    for x in (0.37, 0.63):
        cv2.circle(picture, at(x, 0.5)[0], round(0.06 * size), 100, -1)
    cv2.fillPoly(picture, [np.array(at(0.45, 0.62, 0.55, 0.62, 0.5, 0.7))], 150)
    return np.repeat(picture[..., None], 3, 2), mask


def frame_with(*places: tuple[int, int, int]) -> tuple[np.ndarray, list[Box]]:
    """A noisy gray frame with a cat of each (x, y, size), and the cats' boxes."""
    frame = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    boxes = []
    for x, y, size in places:
        picture, mask = cat(size)
        part = frame[y : y + size, x : x + size]
        part[mask > 0] = picture[mask > 0]
        rows, columns = np.nonzero(mask)
        edges = (x + columns.min(), y + rows.min(), x + columns.max() + 1, y + rows.max() + 1)
        boxes.append(Box(*(float(e) / side for e, side in zip(edges, (WIDTH, HEIGHT) * 2, strict=True))))
    noise = np.random.default_rng(3).normal(0, 2, frame.shape[:2])[..., None]
    return (frame + noise).round().clip(0, 255).astype(np.uint8), boxes


@pytest.fixture(scope="module")
def pictures() -> list[MaskedPicture]:
    return [MaskedPicture(picture, (mask > 0).astype(np.float32), False) for picture, mask in map(cat, (96, 60))]


def report_of(frame: np.ndarray, boxes: list[Box | None], pictures: list[MaskedPicture]) -> MotionReport:
    appearance = Appearance.from_pictures([each.rgb for each in pictures], [each.mask for each in pictures])
    target = TargetSubject("cat", appearance, boxes, Views.of(pictures))
    return motion_report(np.stack([frame] * len(boxes)), [target], CameraPath.still(len(boxes)))


def test_a_gray_cat_on_gray_is_found_though_its_colors_do_not_show_it(pictures: list[MaskedPicture]) -> None:
    frame, (box,) = frame_with((70, 40, 64))
    (subject,) = report_of(frame, [box, box], pictures).subjects
    assert subject.iou is not None
    assert subject.iou < 0.2, "by its colors, it is not found"
    assert subject.identity is not None
    assert subject.identity > MIN_SIMILARITY
    assert subject.recognized_iou is not None
    assert subject.recognized_iou > 0.75


def test_its_shuffled_pixels_and_the_empty_frame_lose(pictures: list[MaskedPicture]) -> None:
    views = Views.of(pictures)
    frame, _ = frame_with((70, 40, 64))
    (true,) = recognize([views], frame, [None])
    pixels = frame[40:104, 70:134].reshape(-1, 3)
    frame[40:104, 70:134] = pixels[np.random.default_rng(0).permutation(len(pixels))].reshape(64, 64, 3)
    (shuffled,) = recognize([views], frame, [None])
    (empty,) = recognize([views], frame_with()[0], [None])
    assert true is not None
    assert shuffled is not None
    assert empty is not None
    assert true.similarity - shuffled.similarity >= 0.3
    assert empty.similarity < MIN_SIMILARITY


def test_two_equal_subjects_that_touch_are_told_apart_by_their_boxes(pictures: list[MaskedPicture]) -> None:
    views = Views.of(pictures)
    frame, boxes = frame_with((20, 40, 64), (64, 40, 64))
    for order in ([0, 1], [1, 0]):
        found = recognize([views, views], frame, [boxes[index] for index in order])
        for index, place in zip(order, found, strict=True):
            assert place is not None
            assert iou(place.box, boxes[index]) > 0.75


def test_a_frame_without_a_requested_box_does_not_count(pictures: list[MaskedPicture]) -> None:
    frame, (box,) = frame_with((70, 40, 64))
    (subject,) = report_of(frame, [box, None], pictures).subjects
    (never,) = report_of(frame, [None, None], pictures).subjects
    assert subject.recognized_iou is not None
    assert subject.recognized_iou > 0.75
    assert (never.identity, never.recognized_iou) == (None, None)


def test_the_wrong_place_and_the_wrong_size_of_frame(pictures: list[MaskedPicture]) -> None:
    """A portrait frame of four times the size, with the cat where no box asks for it."""
    frame, _ = frame_with((8, 8, 64))
    large = cv2.resize(frame[:, :84], None, fx=4, fy=4)
    (subject,) = report_of(large, [Box(0.6, 0.7, 0.9, 0.9)], pictures).subjects
    assert subject.identity is not None
    assert subject.identity > MIN_SIMILARITY
    assert subject.recognized_iou == 0
