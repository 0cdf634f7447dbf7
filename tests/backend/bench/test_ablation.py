"""The figure of likeness sees shapes, and the film that shows a leak differs in the token alone."""

import cv2
import numpy as np
from motionbooth.bench.ablation import likeness, without_token
from motionbooth.bench.pairs import subject_filmings
from motionbooth.bench.subjects import TrainingSet, unseen_subjects
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
