"""The motion report sums up what the metrics say of each frame."""

import cv2
import msgspec
import numpy as np
import pytest
from motionbooth.evaluation.generated_shot import report_table
from motionbooth.evaluation.report import MotionReport, TargetSubject, adherence_order, motion_report, shot_report
from motionbooth.pictures.appearance import Appearance
from motionbooth_lab.toybox.backgrounds import draw_texture
from motionbooth_lab.toybox.draw import Clip, draw_clip, kind_scene
from motionbooth_protocol.motion import Box, CameraPath, Offset, Shot, SubjectTrack
from rich.console import Console


def drawn() -> Clip:
    return draw_clip(kind_scene("heart", "pink", "wall"), np.random.default_rng(21))


def camera_of(clip: Clip) -> CameraPath:
    return CameraPath([Offset(float(x) / 96, float(y) / 64) for x, y in clip.camera_px])


def asked_of(clip: Clip) -> TargetSubject:
    appearance = Appearance.from_pictures([clip.frames[0]], [clip.masks[0]])
    return TargetSubject("heart", appearance, [Box(*map(float, box)) for box in clip.boxes_xyxy])


def test_a_drawn_clip_obeys_what_it_was_drawn_from() -> None:
    clip = drawn()
    report = motion_report(clip.frames, [asked_of(clip)], camera_of(clip))
    (subject,) = report.subjects
    assert subject.iou is not None
    assert subject.iou > 0.85
    assert subject.center_error is not None
    assert subject.center_error < 0.02
    assert subject.found_share == 1
    assert report.flow_error_px is not None
    assert report.flow_error_px < 0.4
    assert report.mean_flow_error_px is not None
    assert report.mean_flow_error_px < 0.8
    assert (report.width, report.height, len(subject.frames), len(report.camera)) == (96, 64, 8, 7)


def test_the_wrong_boxes_and_the_wrong_camera_are_reported() -> None:
    clip = drawn()
    right = asked_of(clip)
    wrong = TargetSubject("heart", right.appearance, [Box(0.0, 0.0, 0.1, 0.1)] * 8)
    report = motion_report(clip.frames, [wrong], CameraPath.straight(2.0, 0.0, 8))
    assert report.subjects[0].iou == pytest.approx(0, abs=0.1)
    assert report.flow_error_px is not None
    assert report.flow_error_px > 5


def test_frames_that_ask_for_nothing_do_not_count() -> None:
    clip = drawn()
    right = asked_of(clip)
    report = motion_report(clip.frames, [TargetSubject("heart", right.appearance, [None] * 8)], camera_of(clip))
    assert report.subjects[0].iou is None
    assert report.subjects[0].found_share is None


def test_a_report_survives_json() -> None:
    clip = drawn()
    report = motion_report(clip.frames, [asked_of(clip)], camera_of(clip))
    assert msgspec.json.decode(msgspec.json.encode(report), type=MotionReport) == report


def test_a_camera_path_of_another_length_than_the_clip_is_never_measured() -> None:
    with pytest.raises(ValueError, match="zip"):
        motion_report(drawn().frames, [], CameraPath.still(5))


def test_a_subject_that_is_not_found_or_not_known_is_not_scenery_either() -> None:
    """Its box is left out: what moves there would be measured as the camera's motion in a plain sky."""
    frames = np.stack(
        [draw_texture("night", np.random.default_rng(0))[100:164, 100 + 2 * f : 196 + 2 * f] for f in range(8)]
    )
    boxes = [Box((8 * f) / 96, 10 / 64, (8 * f + 40) / 96, 50 / 64) for f in range(8)]
    for f, frame in enumerate(frames):
        frame[10:50, 8 * f : 8 * f + 40] = (240, 200, 20)
    green = Appearance.from_pictures(
        [np.full((64, 64, 3), (20, 220, 40), np.uint8)], [np.full((64, 64), 255, np.uint8)]
    )
    shot = Shot("s", 1, 8, 8, 96, 64, CameraPath.straight(16 / 96, 0, 8), [SubjectTrack("frog", "frog", boxes)])
    report, unknown = (shot_report(frames, shot, appearances) for appearances in ({"frog": green}, {}))
    assert report.subjects[0].found_share == 0
    assert unknown.subjects == []
    for flow_error in (report.flow_error_px, unknown.flow_error_px):
        assert flow_error is not None
        assert flow_error < 0.3


def test_scenery_of_which_half_stands_still_is_told_by_the_mean_alone() -> None:
    texture = draw_texture("wall", np.random.default_rng(0))
    frames = np.stack([texture[100:164, 100 + 4 * f : 196 + 4 * f] for f in range(5)])
    frames[:, :28] = frames[0, :28]  # not quite half of it
    report = motion_report(frames, [], CameraPath.straight(20 / 96, 0, 5))
    assert report.flow_error_px is not None
    assert report.flow_error_px < 0.3
    assert report.mean_flow_error_px is not None
    assert report.mean_flow_error_px > 1


def test_scenery_without_texture_has_no_figure_and_says_so() -> None:
    frames = np.full((5, 64, 96, 3), (120, 170, 220), np.uint8)
    report = motion_report(frames, [], CameraPath.straight(0.3, 0, 5))
    assert (report.flow_error_px, report.mean_flow_error_px) == (None, None)
    assert {(frame.found_px, frame.error_px, frame.mean_error_px) for frame in report.camera} == {(None, None, None)}
    assert adherence_order(report) > adherence_order(msgspec.structs.replace(report, flow_error_px=99.0))
    console = Console(record=True, width=120)
    console.print(report_table(report, []))
    assert console.export_text().count("no texture") == 2
    assert msgspec.json.decode(msgspec.json.encode(report), type=MotionReport) == report


def zoomed(frames: int = 5) -> tuple[np.ndarray, CameraPath]:
    """A wall that grows by 4 % and turns by 2 degrees from frame to frame, about the center."""
    texture, pictures, maps = draw_texture("wall", np.random.default_rng(0)), [], []
    for f in range(frames):
        a, b = 1.04**f * np.cos(np.radians(2 * f)), 1.04**f * np.sin(np.radians(2 * f))
        to_frame = np.array([[a, -b, 48 - 148 * a + 132 * b], [b, a, 32 - 148 * b - 132 * a]])
        pictures.append(cv2.warpAffine(texture, to_frame, (96, 64), flags=cv2.INTER_LINEAR))
        shares = np.array([[a, -b / 1.5, 0.5 - a / 2 + b / 3], [b * 1.5, a, 0.5 - 0.75 * b - a / 2], [0, 0, 1]])
        maps.append(tuple(map(tuple, shares.tolist())))
    return np.stack(pictures), CameraPath(CameraPath.still(frames).offsets, maps)


def test_a_zoom_with_a_roll_is_measured_at_each_pixel() -> None:
    frames, camera = zoomed()
    report = motion_report(frames, [], camera)
    assert report.mean_flow_error_px is not None
    assert report.flow_error_px is not None
    assert report.mean_flow_error_px < 0.25
    still = motion_report(frames, [], CameraPath(camera.offsets, [camera.homographies[0]] * 5))
    other = motion_report(frames[[0] * 5], [], camera)
    for wrong in (still, other):  # a corner moves by 2.3 px a frame and by 2.0 more as it turns
        assert wrong.mean_flow_error_px is not None
        assert wrong.flow_error_px is not None
        assert wrong.mean_flow_error_px > 1
        assert wrong.flow_error_px > 1


def test_a_pan_given_as_homographies_has_the_same_mean_error() -> None:
    clip = drawn()
    camera = camera_of(clip)
    maps = [((1.0, 0.0, -d.dx), (0.0, 1.0, -d.dy), (0.0, 0.0, 1.0)) for d in camera.offsets]
    pan, same = (motion_report(clip.frames, [], path) for path in (camera, CameraPath(camera.offsets, maps)))
    assert same.mean_flow_error_px == pytest.approx(pan.mean_flow_error_px)


def test_scenery_that_ends_behind_the_camera_is_an_error_and_no_failure() -> None:
    frames, camera = zoomed(2)
    turned = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (-3.0, 0.0, 1.0))
    error = motion_report(frames, [], CameraPath(camera.offsets, [camera.homographies[0], turned])).mean_flow_error_px
    assert error is not None
    assert 100 < error < 100 * 200
