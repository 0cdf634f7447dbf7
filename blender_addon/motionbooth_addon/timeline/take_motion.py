"""Loads the requested and the detected motion of a take from its settings and the backend's report (no bpy)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec
from msgspec import Struct

from .._protocol.jobs import GenerateSpec
from .._protocol.motion import Box
from .._protocol.text import Text


class _Frame(Struct, frozen=True):
    found: Box | None = None


class _Subject(Struct, frozen=True):
    name: str
    frames: list[_Frame]
    iou: float | None = None
    center_error: float | None = None
    found_share: float | None = None


class _Control(Struct, frozen=True):
    name: str
    steps: int


class _Difference(Struct, frozen=True):
    subject: float | None = None
    background: float | None = None


class _Contributions(Struct, frozen=True):
    steps: int
    controls: list[_Control]
    guide_difference: _Difference | None = None


class _Report(Struct, frozen=True):
    """The part of the backend's motion report that the extension shows."""

    subjects: list[_Subject]
    flow_error_px: float | None = None
    contributions: _Contributions | None = None


@dataclass(frozen=True)
class TakeMotion:
    """The motion of a take's subjects at the model's frames.

    spec: the request. found: the detected boxes of each subject. verdicts: for each subject, a line on how well it
    followed its boxes. camera_verdict: the same for the camera. contributions: lines on what the controls did. The last
    four are empty without a report.
    """

    spec: GenerateSpec
    found: dict[str, list[Box | None]]
    verdicts: dict[str, Text]
    camera_verdict: Text | None = None
    contributions: tuple[Text, ...] = ()


def report_path(clip: Path) -> Path:
    """The path of a clip's report: clip.report.json for clip.mp4."""
    return clip.with_suffix(".report.json")


def load_take_motion(settings: str, clip: Path) -> TakeMotion | None:
    """Load a take from its settings (a GenerateSpec as JSON) and its report, if there is one.

    The result is cached until the report changes. Returns None if the settings cannot be read.
    """
    report = report_path(clip)
    return _load(settings, report, report.stat().st_mtime if report.is_file() else None)


@lru_cache(maxsize=32)
def _load(settings: str, report_file: Path, _modified: float | None) -> TakeMotion | None:
    try:
        spec = msgspec.json.decode(settings, type=GenerateSpec)
    except msgspec.DecodeError:
        return None
    try:
        report = msgspec.json.decode(report_file.read_bytes(), type=_Report)
    except (OSError, msgspec.DecodeError):
        return TakeMotion(spec, {}, {})
    return TakeMotion(
        spec,
        {subject.name: [frame.found for frame in subject.frames] for subject in report.subjects},
        {subject.name: _verdict(subject) for subject in report.subjects},
        _camera_verdict(report.flow_error_px),
        tuple(_lines(report.contributions)) if report.contributions is not None else (),
    )


def _lines(contributions: _Contributions) -> Iterator[Text]:
    steps = {control.name: control.steps for control in contributions.controls}
    yield Text.of(
        "Of {all} steps: boxes amplified in {boxes}, camera moved in {camera}",
        all=contributions.steps,
        boxes=steps.get("boxes_amplified", 0),
        camera=steps.get("camera", 0),
    )
    difference = contributions.guide_difference
    if difference is None:
        return
    yield Text.of(
        "Guide: subjects held in {subject} steps, background in {background}",
        subject=steps.get("guide_subject", 0),
        background=steps.get("guide_background", 0),
    )
    if difference.subject is not None and difference.background is not None:
        yield Text.of(
            "Colors differ from the guide's by {subject:.0f} in subjects, {background:.0f} elsewhere (CIE Lab)",
            subject=difference.subject,
            background=difference.background,
        )


def _camera_verdict(flow_error_px: float | None) -> Text:
    if flow_error_px is None:
        return Text("Not enough texture to measure the camera path")
    return Text.of("Camera path: off by {pixels:.1f} px per frame", pixels=flow_error_px)


def _verdict(subject: _Subject) -> Text:
    if not subject.found_share or subject.iou is None or subject.center_error is None:
        return Text.of("{name}: not detected", name=subject.name)
    return Text.of(
        "{name}: detected in {share:.0%} of frames, overlap {overlap:.0%}, center off by {error:.1%} of the width",
        name=subject.name,
        share=subject.found_share,
        overlap=subject.iou,
        error=subject.center_error,
    )
