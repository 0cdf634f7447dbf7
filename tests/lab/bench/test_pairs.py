"""What `bench control` films is held out, fixed, and possible."""

import numpy as np
from motionbooth_lab.bench.pairs import BASE_PAIRS, base_filmings, subject_filmings, without_control
from motionbooth_lab.bench.subjects import unseen_subjects
from motionbooth_lab.toybox.draw import MAX_PAN_PX, is_held_out


def test_the_bases_prompts_are_at_least_32_all_held_out_and_never_twice_the_same() -> None:
    filmings = list(base_filmings())
    assert len(filmings) == BASE_PAIRS >= 32
    assert len({filming.spec.prompt for filming in filmings}) == BASE_PAIRS
    assert all(filming.combination is not None and is_held_out(*filming.combination) for filming in filmings)


def test_two_runs_film_the_same() -> None:
    assert list(base_filmings()) == list(base_filmings())


def test_boxes_stay_in_the_frame_and_travel_and_pans_keep_to_the_limit() -> None:
    for filming in base_filmings():
        for box in filming.boxes:
            assert min(box.as_tuple()) >= 0
            assert max(box.as_tuple()) <= 1
        assert abs(filming.boxes[-1].center[0] - filming.boxes[0].center[0]) > 0.25
        travel = np.array([[offset.dx * 96, offset.dy * 64] for offset in filming.camera.offsets])
        assert np.abs(np.diff(travel, axis=0)).max() <= MAX_PAN_PX


def test_the_twin_differs_in_nothing_but_control() -> None:
    spec = next(base_filmings()).spec
    twin = without_control(spec)
    assert (twin.seed, twin.prompt, twin.shot) == (spec.seed, spec.prompt, spec.shot)
    assert not twin.box_control
    assert not twin.camera_control


def test_ten_subjects_with_masked_pictures_take_four_ways_each() -> None:
    subjects = unseen_subjects()
    assert len(subjects) == 10
    for subject in subjects:
        assert all((mask > 0).mean() > 0.08 for mask in subject.masks)
        assert all(
            len(np.unique(picture[mask > 0], axis=0)) >= 3
            for picture, mask in zip(subject.pictures, subject.masks, strict=True)
        )
        filmings = list(subject_filmings(subject, "0" * 64))
        assert len(filmings) == 4
        assert all(f"sks {subject.class_word}" in filming.spec.prompt for filming in filmings)
