"""The figure of likeness sees shapes, and the film that shows a leak differs in the token alone."""

import cv2
import numpy as np
import pytest
from motionbooth.evaluation.report import CameraFrame, MotionReport, SubjectFrame, SubjectReport
from motionbooth_lab.bench.ablation import Learned, bench_ablation, likeness, summed_up, with_seed, without_token
from motionbooth_lab.bench.pairs import subject_filmings
from motionbooth_lab.bench.subjects import TrainingSet, unseen_subjects
from motionbooth_protocol.motion import Box

BOX = Box(0.25, 0.25, 0.75, 0.75)


def filmed(subject: TrainingSet, number: int) -> np.ndarray:
    """Two frames with the subject, cut out of one of its pictures, in BOX."""
    rows, columns = np.nonzero(subject.masks[number])
    part = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    frame = np.full((64, 96, 3), 90, np.uint8)
    frame[16:48, 24:72] = cv2.resize(subject.pictures[number][part], (48, 32), interpolation=cv2.INTER_AREA)
    return np.stack([frame, frame])


def test_the_subject_itself_is_like_it_and_others_are_less() -> None:
    robot, duck = unseen_subjects()[:2]
    assert likeness(filmed(robot, 1), [BOX] * 2, robot) > 0.95
    assert likeness(filmed(duck, 1), [BOX] * 2, robot) < 0.5


def test_a_blot_of_its_mean_colour_is_not_like_it() -> None:
    robot = unseen_subjects()[0]
    blot = np.zeros((2, 64, 96, 3), np.uint8) + robot.pictures[0][robot.masks[0] > 0].mean(0).astype(np.uint8)
    assert abs(likeness(blot, [BOX] * 2, robot)) < 0.05


def test_the_film_without_the_token_is_otherwise_the_same() -> None:
    robot = unseen_subjects()[0]
    filming = next(subject_filmings(robot, "0" * 64))
    plain = without_token(filming)
    assert plain.spec.prompt == filming.spec.prompt.replace("sks robot", "robot")
    assert plain.spec.shot.subjects[0].phrase == "robot"
    assert (plain.spec.seed, plain.boxes) == (filming.spec.seed, filming.boxes)


def one_run(iou: float, drift: float) -> Learned:
    """A subject's training whose clip overlaps its box so."""
    frame = SubjectFrame(BOX, BOX, 0.0, iou)
    subject = SubjectReport("robot", iou, 0.0, 1.0, [frame])
    report = MotionReport(96, 64, [subject], 0.5, [CameraFrame((0.0, 0.0), (0.5, 0.0), 0.5, 0.5)])
    return Learned([report], likeness=0.5, leak=0.1, drift=drift)


def test_intervals_are_over_subjects_and_not_over_their_seeds() -> None:
    learned = [[one_run(iou, 8.0) for iou in seeds] for seeds in ((0.5, 0.7), (0.6, 0.8), (0.9, 0.9), (0.4, 0.4))]
    figures = {measure.name: measure for measure in summed_up("no-region", learned)}
    iou = figures["iou_no_region"]
    means = [0.6, 0.7, 0.9, 0.4]
    half = 3.1824 * np.std(means, ddof=1) / 2  # Student's t for 3 degrees of freedom, from a table
    assert (iou.value, iou.low, iou.high) == pytest.approx((0.65, 0.65 - half, 0.65 + half), abs=1e-4)
    drift = figures["drift_no_region"]
    assert (drift.value, drift.low, drift.high) == pytest.approx((8, 8, 8))
    assert figures["flow_error_no_region"].value == pytest.approx(0.5)


def test_one_subject_has_an_interval_over_its_seeds_and_one_run_has_none() -> None:
    (iou, *_) = summed_up("motionbooth", [[one_run(0.5, 8.0), one_run(0.7, 8.0)]])
    assert iou.low is not None
    assert iou.low < 0.5 < iou.value < 0.7
    (iou, *_) = summed_up("motionbooth", [[one_run(0.5, 8.0)]])
    assert (iou.low, iou.high) == (None, None)


def test_other_seeds_have_the_same_boxes_and_never_each_others_noise() -> None:
    filmings = list(subject_filmings(unseen_subjects()[0], "0" * 64))
    assert [with_seed(filming, 0) for filming in filmings] == filmings
    others = [with_seed(filming, seed) for filming in filmings for seed in range(3)]
    assert len({other.spec.seed for other in others}) == len(others)
    assert {tuple(other.boxes) for other in others} == {tuple(filming.boxes) for filming in filmings}


@pytest.mark.slow
def test_the_bench_itself_repeats_over_subjects_and_seeds() -> None:
    result = bench_ablation(2, 1, ["no-preservation"], seeds=2)
    for figure in ("iou", "found", "likeness", "leak", "drift", "flow_error"):
        (measure,) = (each for each in result.measures if each.name == f"{figure}_no_preservation")
        assert measure.low is not None
        assert measure.high is not None
        assert measure.low <= measure.value <= measure.high
