"""The subject is found by its appearance alone."""

import cv2
import numpy as np
import pytest
from motionbooth.evaluation.box_adherence import FoundSubject, box_adherence, find_subjects, iou
from motionbooth.pictures.appearance import Appearance
from motionbooth_lab.toybox.backgrounds import draw_texture
from motionbooth_lab.toybox.draw import Clip, draw_clip, kind_scene
from motionbooth_protocol.motion import Box
from numpy.typing import NDArray


def find_subject(appearance: Appearance, frames: NDArray[np.uint8]) -> list[FoundSubject | None]:
    return find_subjects([appearance], frames, [[None] * len(frames)])[0]


def appearance_of(kind: str, colour: str, places: tuple[str, ...]) -> Appearance:
    clips = [draw_clip(kind_scene(kind, colour, place), np.random.default_rng(7)) for place in places]
    return Appearance.from_pictures([clip.frames[0] for clip in clips], [clip.masks[0] for clip in clips])


def drawn(kind: str, colour: str, place: str, seed: int) -> Clip:
    return draw_clip(kind_scene(kind, colour, place), np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("kind", "colour", "place"),
    [("ball", "red", "grass"), ("car", "yellow", "sea"), ("fish", "pink", "night"), ("house", "blue", "snow")],
)
def test_a_drawn_subject_is_found_where_it_was_drawn(kind: str, colour: str, place: str) -> None:
    clip = drawn(kind, colour, place, seed=11)
    found = find_subject(appearance_of(kind, colour, ("road", "sand")), clip.frames)
    for subject, box in zip(found, clip.boxes_xyxy, strict=True):
        assert subject is not None
        assert iou(subject.box, Box(*map(float, box))) > 0.7


def test_nothing_is_found_in_a_clip_without_the_subject() -> None:
    appearance = appearance_of("ball", "red", ("road", "sand"))
    for place in ("sea", "snow", "grass", "night"):
        assert find_subject(appearance, drawn("star", "cyan", place, seed=3).frames) == [None] * 8


def test_the_search_does_not_depend_on_the_size_of_the_frames() -> None:
    clip = drawn("star", "yellow", "sea", seed=4)
    large = clip.frames.repeat(3, 1).repeat(3, 2)
    appearance = appearance_of("star", "yellow", ("road",))
    small_found, large_found = (find_subject(appearance, frames)[0] for frames in (clip.frames, large))
    assert small_found is not None
    assert large_found is not None
    assert iou(small_found.box, large_found.box) > 0.9


def test_center_error_is_a_share_of_the_width_in_both_directions() -> None:
    clip = drawn("ball", "red", "snow", seed=5)
    subject = find_subject(appearance_of("ball", "red", ("road",)), clip.frames)[0]
    assert subject is not None
    sideways = box_adherence(subject.box.moved(0.1, 0.0).clipped(), subject, aspect=1.5)
    assert sideways.center_error == pytest.approx(0.1, abs=0.051)  # less where the frame's edge clips the asked box
    assert box_adherence(subject.box, subject, 1.5).center_error == pytest.approx(0)
    assert box_adherence(subject.box, subject, 1.5).iou == pytest.approx(1)


def test_a_subject_asked_for_and_not_found_has_no_overlap_and_no_center() -> None:
    answer = box_adherence(Box(0.1, 0.1, 0.4, 0.4), None, 1.5)
    assert (answer.found, answer.center_error, answer.iou) == (None, None, 0.0)


def test_a_frame_that_asks_for_nothing_is_not_judged() -> None:
    assert box_adherence(None, None, 1.5).iou is None
    assert box_adherence(Box(1.2, 0.1, 1.5, 0.4), None, 1.5).iou is None


def duck(radius: int, colour: tuple[int, int, int] = (240, 200, 40)) -> np.ndarray:
    """A picture of a duck, 2 radius pixels a side, grey around it."""
    picture = np.full((2 * radius, 2 * radius, 3), 128, np.uint8)
    cv2.circle(picture, (radius, radius), radius - 1, colour, -1)
    cv2.circle(picture, (radius, radius), radius // 3, (230, 110, 30), -1)
    return picture


def of_ducks(*colours: tuple[int, int, int]) -> list[Appearance]:
    pictures = [duck(24, colour) for colour in colours]
    return [
        Appearance.from_pictures([picture], [(picture != 128).any(axis=2).astype(np.uint8)]) for picture in pictures
    ]


def swimming(*ducks: np.ndarray) -> tuple[np.ndarray, list[list[Box]]]:
    """Four frames of a sea with the ducks side by side, moving to the right, and each duck's boxes."""
    sea = draw_texture("sea", np.random.default_rng(3))
    frames = np.stack([sea[50:114, 50:146]] * 4)
    boxes: list[list[Box]] = [[] for _ in ducks]
    for f, frame in enumerate(frames):
        for number, picture in enumerate(ducks):
            size, x, y = len(picture), 8 + 45 * number + 2 * f, 18
            part = frame[y : y + size, x : x + size]
            part[:] = np.where((picture != 128).any(axis=2, keepdims=True), picture, part)
            boxes[number].append(Box(x / 96, y / 64, (x + size) / 96, (y + size) / 64))
    return frames, boxes


YELLOW, DARKER = (240, 200, 40), (214, 168, 30)


def overlaps(
    appearances: list[Appearance], frames: np.ndarray, boxes: list[list[Box]], asked: list[list[Box]] | None = None
) -> list[float]:
    """The mean IoU of each subject with its true boxes."""
    found = find_subjects(appearances, frames, asked or boxes)
    return [
        float(np.mean([iou(box, place.box) if place else 0 for box, place in zip(*pair, strict=True)]))
        for pair in zip(boxes, found, strict=True)
    ]


@pytest.mark.parametrize("radii", [(12, 12), (10, 14), (14, 10)])
@pytest.mark.parametrize("other", [YELLOW, DARKER])
def test_two_ducks_are_two_ducks(radii: tuple[int, int], other: tuple[int, int, int]) -> None:
    frames, boxes = swimming(duck(radii[0]), duck(radii[1], other))
    assert min(overlaps(of_ducks(YELLOW, other), frames, boxes)) > 0.8


def test_the_asked_boxes_tell_equal_ducks_apart_and_unequal_ones_not() -> None:
    frames, boxes = swimming(duck(12), duck(12))
    elsewhere = [[Box(0.0, 0.9, 0.1, 1.0)] * 4] * 2
    found = find_subjects(of_ducks(YELLOW, YELLOW), frames, elsewhere)
    assert all(one and other and iou(one.box, other.box) == 0 for one, other in zip(*found, strict=True))
    assert min(overlaps(of_ducks(YELLOW, YELLOW), frames, boxes[::-1])) > 0.8  # each is where it was asked to be
    frames, boxes = swimming(duck(12), duck(12, (60, 160, 230)))
    swapped = [boxes[1], boxes[0]]
    assert min(overlaps(of_ducks(YELLOW, (60, 160, 230)), frames, boxes, swapped)) > 0.8  # found where they are


def test_a_duck_that_is_missing_is_not_found_in_the_other() -> None:
    frames, boxes = swimming(duck(12))
    there, missing = find_subjects(of_ducks(YELLOW, YELLOW), frames, [boxes[0], [Box(0.6, 0.3, 0.9, 0.7)] * 4])
    assert all(there)
    assert missing == [None] * 4
    missing, there = find_subjects(of_ducks(YELLOW, YELLOW), frames, [[Box(0.6, 0.3, 0.9, 0.7)] * 4, boxes[0]])
    assert all(there)
    assert missing == [None] * 4


def test_alone_a_subject_is_found_whatever_was_asked() -> None:
    frames, boxes = swimming(duck(14), duck(10))
    (found,) = find_subjects(of_ducks(YELLOW), frames, [boxes[1]])
    alone = find_subject(of_ducks(YELLOW)[0], frames)
    assert [place and place.box for place in found] == [place and place.box for place in alone]
    assert all(place and iou(place.box, box) > 0.8 for place, box in zip(found, boxes[0], strict=True))
