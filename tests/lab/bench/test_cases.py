"""The cases of bench control are held out, fixed and feasible."""

import numpy as np
import pytest
from motionbooth_lab.bench.cases import BASE_CASES, base_cases, subject_cases, without_control
from motionbooth_lab.bench.subjects import unseen_subjects
from motionbooth_lab.toybox.draw import MAX_PAN_PX, WANTOY, is_held_out


def test_the_base_models_prompts_are_held_out_and_all_different() -> None:
    cases = list(base_cases())
    assert len(cases) == BASE_CASES >= 32
    assert len({case.spec.prompt for case in cases}) == BASE_CASES
    assert all(case.combination is not None and is_held_out(*case.combination) for case in cases)


def test_two_runs_have_the_same_cases() -> None:
    assert list(base_cases()) == list(base_cases())


def test_boxes_stay_in_the_frame_and_travel_and_pans_keep_to_the_limit() -> None:
    for case in base_cases():
        for box in case.boxes:
            assert min(box.as_tuple()) >= 0
            assert max(box.as_tuple()) <= 1
        assert abs(case.boxes[-1].center[0] - case.boxes[0].center[0]) > 0.25
        travel = np.array([[offset.dx * 96, offset.dy * 64] for offset in case.camera.offsets])
        assert np.abs(np.diff(travel, axis=0)).max() <= MAX_PAN_PX


def test_the_case_without_control_differs_in_nothing_else() -> None:
    spec = next(base_cases()).spec
    off = without_control(spec)
    assert (off.seed, off.prompt, off.shot) == (spec.seed, spec.prompt, spec.shot)
    assert not off.box_control
    assert not off.camera_control


def test_ten_subjects_with_masked_pictures_have_four_paths_each() -> None:
    subjects = unseen_subjects()
    assert len(subjects) == 10
    for subject in subjects:
        assert all((mask > 0).mean() > 0.08 for mask in subject.masks)
        assert all(
            len(np.unique(picture[mask > 0], axis=0)) >= 3
            for picture, mask in zip(subject.pictures, subject.masks, strict=True)
        )
        cases = list(subject_cases(subject, "0" * 64))
        assert len(cases) == 4
        assert all(f"sks {subject.class_word}" in case.spec.prompt for case in cases)


def test_wantoys_cases_have_its_frames_and_the_same_speeds_a_second() -> None:
    for case, slow in zip(base_cases(), base_cases(WANTOY), strict=True):
        assert slow.spec.prompt == case.spec.prompt
        assert len(slow.boxes) == len(slow.camera.offsets) == slow.spec.shot.frames == 9
        first, second = case.camera.offsets[1], slow.camera.offsets[1]
        assert (second.dx * 16, second.dy * 16) == pytest.approx((first.dx * 8, first.dy * 8))
