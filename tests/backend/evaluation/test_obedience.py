"""The subject is found by its looks alone."""

import numpy as np
import pytest
from motionbooth.evaluation.obedience import Appearance, iou, obey
from motionbooth.models.toybox.draw import Clip, draw_clip, kind_scene
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.motion import Box


def looks(kind: str, colour: str, places: tuple[str, ...]) -> Appearance:
    clips = [draw_clip(kind_scene(kind, colour, place), np.random.default_rng(7)) for place in places]
    return Appearance.learn([clip.frames[0] for clip in clips], [clip.masks[0] for clip in clips])


def filmed(kind: str, colour: str, place: str, seed: int) -> Clip:
    return draw_clip(kind_scene(kind, colour, place), np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("kind", "colour", "place"),
    [("ball", "red", "grass"), ("car", "yellow", "sea"), ("fish", "pink", "night"), ("house", "blue", "snow")],
)
def test_a_drawn_subject_is_found_where_it_was_drawn(kind: str, colour: str, place: str) -> None:
    clip = filmed(kind, colour, place, seed=11)
    found = looks(kind, colour, ("road", "sand")).find(clip.frames)
    for subject, drawn in zip(found, clip.boxes_xyxy, strict=True):
        assert subject is not None
        assert iou(subject.box, Box(*map(float, drawn))) > 0.7


def test_nothing_is_found_in_a_clip_without_the_subject() -> None:
    appearance = looks("ball", "red", ("road", "sand"))
    for place in ("sea", "snow", "grass", "night"):
        assert appearance.find(filmed("star", "cyan", place, seed=3).frames) == [None] * 8


def test_the_search_does_not_depend_on_the_size_of_the_frames() -> None:
    clip = filmed("star", "yellow", "sea", seed=4)
    large = clip.frames.repeat(3, 1).repeat(3, 2)
    small_found, large_found = (looks("star", "yellow", ("road",)).find(frames)[0] for frames in (clip.frames, large))
    assert small_found is not None
    assert large_found is not None
    assert iou(small_found.box, large_found.box) > 0.9


def test_masks_without_a_pixel_are_refused_in_a_sentence() -> None:
    with pytest.raises(InvalidInput, match="at least one picture whose mask"):
        Appearance.learn([np.zeros((8, 8, 3), np.uint8)], [np.zeros((8, 8), np.uint8)])


def test_center_error_is_a_share_of_the_width_in_both_directions() -> None:
    clip = filmed("ball", "red", "snow", seed=5)
    subject = looks("ball", "red", ("road",)).find(clip.frames)[0]
    assert subject is not None
    sideways = obey(subject.box.moved(0.1, 0.0).clipped(), subject, aspect=1.5)
    assert sideways.center_error == pytest.approx(0.1, abs=0.051)  # less where the frame's edge clips the asked box
    assert obey(subject.box, subject, 1.5).center_error == pytest.approx(0)
    assert obey(subject.box, subject, 1.5).iou == pytest.approx(1)


def test_a_subject_asked_for_and_not_found_has_no_overlap_and_no_center() -> None:
    answer = obey(Box(0.1, 0.1, 0.4, 0.4), None, 1.5)
    assert (answer.found, answer.center_error, answer.iou) == (None, None, 0.0)


def test_a_frame_that_asks_for_nothing_is_not_judged() -> None:
    assert obey(None, None, 1.5).iou is None
    assert obey(Box(1.2, 0.1, 1.5, 0.4), None, 1.5).iou is None
