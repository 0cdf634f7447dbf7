"""The motion report sums up what the metrics say of each frame."""

import msgspec
import numpy as np
import pytest
from motionbooth.evaluation.obedience import Appearance
from motionbooth.evaluation.report import AskedSubject, MotionReport, motion_report
from motionbooth.models.toybox.draw import Clip, draw_clip, kind_scene
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.motion import Box, CameraPath, Offset


def drawn() -> Clip:
    return draw_clip(kind_scene("heart", "pink", "wall"), np.random.default_rng(21))


def camera_of(clip: Clip) -> CameraPath:
    return CameraPath([Offset(float(x) / 96, float(y) / 64) for x, y in clip.camera_px])


def asked_of(clip: Clip) -> AskedSubject:
    appearance = Appearance.learn([clip.frames[0]], [clip.masks[0]])
    return AskedSubject("heart", appearance, [Box(*map(float, box)) for box in clip.boxes_xyxy])


def test_a_drawn_clip_obeys_what_it_was_drawn_from() -> None:
    clip = drawn()
    report = motion_report(clip.frames, [asked_of(clip)], camera_of(clip))
    (subject,) = report.subjects
    assert subject.iou is not None
    assert subject.iou > 0.85
    assert subject.center_error is not None
    assert subject.center_error < 0.02
    assert subject.found_share == 1
    assert report.flow_error_px < 0.4
    assert (report.width, report.height, len(subject.frames), len(report.camera)) == (96, 64, 8, 7)


def test_the_wrong_boxes_and_the_wrong_camera_are_told() -> None:
    clip = drawn()
    right = asked_of(clip)
    wrong = AskedSubject("heart", right.appearance, [Box(0.0, 0.0, 0.1, 0.1)] * 8)
    report = motion_report(clip.frames, [wrong], CameraPath.straight(2.0, 0.0, 8))
    assert report.subjects[0].iou == pytest.approx(0, abs=0.1)
    assert report.flow_error_px > 5


def test_frames_that_ask_for_nothing_do_not_count() -> None:
    clip = drawn()
    right = asked_of(clip)
    report = motion_report(clip.frames, [AskedSubject("heart", right.appearance, [None] * 8)], camera_of(clip))
    assert report.subjects[0].iou is None
    assert report.subjects[0].found_share is None


def test_a_report_survives_json() -> None:
    clip = drawn()
    report = motion_report(clip.frames, [asked_of(clip)], camera_of(clip))
    assert msgspec.json.decode(msgspec.json.encode(report), type=MotionReport) == report


def test_clips_boxes_and_camera_of_different_lengths_are_refused_in_a_sentence() -> None:
    clip = drawn()
    with pytest.raises(InvalidInput, match="8 frames and the camera path 5"):
        motion_report(clip.frames, [], CameraPath.still(5))
    short = AskedSubject("heart", asked_of(clip).appearance, [None])
    with pytest.raises(InvalidInput, match='"heart" has 1 boxes'):
        motion_report(clip.frames, [short], CameraPath.still(8))
