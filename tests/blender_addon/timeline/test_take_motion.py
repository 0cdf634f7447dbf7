from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from motionbooth.evaluation.box_adherence import SubjectFrame
from motionbooth.evaluation.report import (
    Contributions,
    ControlUse,
    GuideDifference,
    MotionReport,
    SubjectReport,
    motion_report,
)
from motionbooth_addon._protocol.jobs import GenerateSpec
from motionbooth_addon._protocol.motion import Box, CameraPath, Shot, SubjectTrack
from motionbooth_addon.timeline.take_motion import load_take_motion, report_path
from refused import assert_says

BOX = Box(0.1, 0.1, 0.5, 0.5)
TRACK = SubjectTrack(name="Imp", class_word="toy", boxes=[BOX, BOX])
SHOT = Shot(
    name="hop", frame_start=1, frame_end=24, fps=24, width=96, height=64, camera=CameraPath.still(2), subjects=[TRACK]
)
SETTINGS = msgspec.json.encode(GenerateSpec(shot=SHOT, prompt="a toy")).decode()


def report(found: Box | None, share: float | None) -> bytes:
    """A report as the backend writes it."""
    frames = [SubjectFrame(asked=None, found=found, center_error=0.02, iou=0.5) for _ in range(2)]
    subject = SubjectReport(name="Imp", iou=0.5, center_error=0.02, found_share=share, frames=frames)
    return msgspec.json.encode(MotionReport(width=96, height=64, subjects=[subject], flow_error_px=0.42, camera=[]))


def test_the_backends_report_is_loaded(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    report_path(clip).write_bytes(report(BOX, 1.0))
    take = load_take_motion(SETTINGS, clip)
    assert take is not None
    assert take.spec.shot.subjects == [TRACK]
    assert [box.as_tuple() for box in take.found["Imp"] if box] == [BOX.as_tuple()] * 2
    assert str(take.verdicts["Imp"]) == "Imp: detected in 100% of frames, overlap 50%, center off by 2.0% of the width"
    assert_says(take.camera_verdict, pixels=0.42)


def test_without_a_flow_error_the_camera_verdict_says_why(tmp_path: Path) -> None:
    frames = np.full((4, 64, 96, 3), (120, 170, 220), np.uint8)
    measured = motion_report(frames, [], CameraPath.straight(0.3, 0, 4))
    report_path(tmp_path / "clip.mp4").write_bytes(msgspec.json.encode(measured))
    take = load_take_motion(SETTINGS, tmp_path / "clip.mp4")
    assert take is not None
    assert str(take.camera_verdict) == "Not enough texture to measure the camera path"


def test_what_the_controls_contributed_is_reported(tmp_path: Path) -> None:
    uses = [ControlUse("boxes_amplified", 10), ControlUse("camera", 2), ControlUse("guide_background", 14, 0.3)]
    shares = Contributions(20, uses, GuideDifference(12.4, 3.3))
    full = msgspec.structs.replace(msgspec.json.decode(report(BOX, 1.0), type=MotionReport), contributions=shares)
    report_path(tmp_path / "clip.mp4").write_bytes(msgspec.json.encode(full))
    take = load_take_motion(SETTINGS, tmp_path / "clip.mp4")
    assert take is not None
    assert [str(line) for line in take.contributions] == [
        "Of 20 steps: boxes amplified in 10, camera moved in 2",
        "Guide: subjects held in 0 steps, background in 14",
        "Colors differ from the guide's by 12 in subjects, 3 elsewhere (CIE Lab)",
    ]


def test_an_undetected_subject_is_reported(tmp_path: Path) -> None:
    report_path(tmp_path / "clip.mp4").write_bytes(report(None, 0.0))
    take = load_take_motion(SETTINGS, tmp_path / "clip.mp4")
    assert take is not None
    assert str(take.verdicts["Imp"]) == "Imp: not detected"
    assert not np.any(take.found["Imp"])


@pytest.mark.parametrize("content", [None, b"", b"{}", b"no json"])
def test_without_a_report_the_request_is_loaded(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        report_path(tmp_path / "clip.mp4").write_bytes(content)
    take = load_take_motion(SETTINGS, tmp_path / "clip.mp4")
    assert take is not None
    assert (take.found, take.verdicts) == ({}, {})


@pytest.mark.parametrize("settings", ["", "{}", "no json"])
def test_a_take_without_settings_is_not_loaded(settings: str, tmp_path: Path) -> None:
    assert load_take_motion(settings, tmp_path / "clip.mp4") is None
