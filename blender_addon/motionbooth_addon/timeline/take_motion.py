"""What a finished take was asked to show, and what was found in it. Free of bpy.

The backend measures each clip; its report lies beside the clip, see `report_path`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec import Struct

from .._protocol.jobs import GenerateSpec
from .._protocol.motion import Box


class _Frame(Struct, frozen=True):
    found: Box | None = None
    center_error: float | None = None
    iou: float | None = None


class _Subject(Struct, frozen=True):
    name: str
    frames: list[_Frame]
    iou: float | None = None
    center_error: float | None = None
    found_share: float | None = None


class _Report(Struct, frozen=True):
    """As much of the backend's motion report as is shown."""

    subjects: list[_Subject]
    flow_error_px: float | None = None


@dataclass(frozen=True)
class TakeMotion:
    """Boxes of a take's subjects at the model's frames. Without a report nothing is found, and `verdicts` is empty.

    verdicts: for each subject a line on how well it kept to its boxes.
    """

    spec: GenerateSpec
    found: dict[str, list[Box | None]]
    verdicts: dict[str, str]
    camera_verdict: str = ""


def report_path(clip: Path) -> Path:
    """Where a clip's report lies: clip.mp4 has clip.report.json."""
    return clip.with_suffix(".report.json")


def load_take_motion(settings: str, clip: Path) -> TakeMotion | None:
    """From a take's settings (a GenerateSpec as JSON) and its report, if there is one; None where they are no such."""
    try:
        spec = msgspec.json.decode(settings, type=GenerateSpec)
    except msgspec.DecodeError:
        return None
    try:
        report = msgspec.json.decode(report_path(clip).read_bytes(), type=_Report)
    except (OSError, msgspec.DecodeError):
        return TakeMotion(spec, {}, {})
    return TakeMotion(
        spec,
        {subject.name: [frame.found for frame in subject.frames] for subject in report.subjects},
        {subject.name: _verdict(subject) for subject in report.subjects},
        _camera_verdict(report.flow_error_px),
    )


def _camera_verdict(flow_error_px: float | None) -> str:
    if flow_error_px is None:
        return "no texture to see the camera move by"
    return f"camera off by {flow_error_px:.1f} px a frame"


def _verdict(subject: _Subject) -> str:
    if not subject.found_share or subject.iou is None or subject.center_error is None:
        return f"{subject.name}: not found in the take"
    return (
        f"{subject.name}: found in {subject.found_share:.0%} of the frames, overlap {subject.iou:.0%}, centre off by "
        f"{subject.center_error:.1%} of the width"
    )
