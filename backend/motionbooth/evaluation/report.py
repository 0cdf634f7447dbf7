"""The motion report of a clip: box adherence of each subject and the camera's flow error, by frame and overall."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import tee
from pathlib import Path

import msgspec
import numpy as np
from motionbooth_protocol.motion import Box, CameraPath, Shot
from msgspec import Struct
from numpy.typing import NDArray

from motionbooth.evaluation.box_adherence import FoundSubject, SubjectFrame, box_adherence, find_subjects, iou
from motionbooth.evaluation.camera_adherence import (
    Flow,
    flow_error_px,
    requested_flows_px,
    scenery_flows_px,
)
from motionbooth.evaluation.identity import MIN_SIMILARITY, Recognized, Views, recognize
from motionbooth.pictures.appearance import Appearance

Array = NDArray[np.float64]


@dataclass(frozen=True)
class TargetSubject:
    """A subject as the shot specifies it."""

    name: str
    appearance: Appearance
    boxes: Sequence[Box | None]
    """Its box in each frame, in shares of the frame; None if it is out of frame."""
    views: Views | None = None
    """Its templates; without them, its identity is not measured."""


class SubjectReport(Struct, frozen=True):
    """A subject over a clip. A measure is None if it has no frames."""

    name: str
    iou: float | None
    """Mean over the frames in which the shot has a box for it; a frame in which it was not found counts as 0."""
    center_error: float | None
    """Median over the frames in which it was found, as a share of the frame's width."""
    found_share: float | None
    """The share of the frames with a box in which it was found."""
    frames: list[SubjectFrame]
    identity: float | None = None
    """Mean over the frames with a box of how similar the most similar place is to the subject's pictures, 0..1; see
    identity.py. None if the pictures are not known."""
    recognized_iou: float | None = None
    """Mean IoU of that place with the box; a frame in which it is not similar enough counts as 0."""


class CameraFrame(Struct, frozen=True):
    """The scenery's motion from one frame to the next, in pixels. None if too little of the scenery has texture."""

    asked_px: tuple[float, float]
    """(right, down) that the camera's path asks for: the median over the scenery if it differs."""
    found_px: tuple[float, float] | None
    """(right, down) found: the median over the scenery."""
    error_px: float | None
    """Distance of the two. If the camera does more than pan: the median end-point error over the scenery."""
    mean_error_px: float | None = None
    """Mean end-point error over all textured pixels of the scenery."""


class ControlUse(Struct, frozen=True):
    """A control that acted on a clip."""

    name: str
    """boxes (that suppress), boxes_amplified, camera, scenery (its merging), trained_subjects, style, guide_subject or
    guide_background."""
    steps: int
    """The number of sampling steps in which it acted."""
    strength: float | None = None
    """As requested, for a style and a guide."""


class GuideDifference(Struct, frozen=True):
    """Mean distance of the clip's colors from its guide's, in CIE Lab (2 is just visible); None for no pixels."""

    subject: float | None
    background: float | None


class Contributions(Struct, frozen=True):
    """What each control contributed to a clip."""

    steps: int
    """All sampling steps."""
    controls: list[ControlUse]
    guide_difference: GuideDifference | None = None


class MotionReport(Struct, frozen=True):
    """How well a clip follows its shot."""

    width: int
    """Width of the measured frames in pixels."""
    height: int
    subjects: list[SubjectReport]
    flow_error_px: float | None
    """Mean of the frames' `error_px`, in pixels a frame; None if the scenery has no texture in any frame."""
    camera: list[CameraFrame]
    mean_flow_error_px: float | None = None
    """Mean of the frames' `mean_error_px`."""
    contributions: Contributions | None = None
    """None if the clip is measured without the model that generated it."""


def motion_report(
    frames: NDArray[np.uint8],
    subjects: Sequence[TargetSubject],
    camera: CameraPath,
    others: Sequence[Sequence[Box | None]] = (),
) -> MotionReport:
    """Measure a clip (F, H, W, 3) uint8 RGB, which has the model's frames, as the boxes and the camera path have.

    `others`: the boxes of subjects whose appearance is not known, which are no scenery either.
    """
    _, height, width, _ = frames.shape
    found = find_subjects([subject.appearance for subject in subjects], frames, [subject.boxes for subject in subjects])
    recognized = _recognized(frames, subjects)
    reports = [_subject_report(*each, aspect=width / height) for each in zip(subjects, found, recognized, strict=True)]
    hidden = _hidden(found, subjects, others, (height, width)) or [None] * len(frames)
    flows, same = tee(scenery_flows_px(frames, hidden))
    asked = requested_flows_px(camera, (flow.points for flow in same), width, height)
    middle = requested_flows_px(camera, [np.array([(0.5, 0.5)])] * (len(frames) - 1), width, height)
    pan = not camera.homographies
    motion = [_camera_frame(*each, pan) for each in zip(middle, asked, flows, strict=True)]
    return MotionReport(
        width=width,
        height=height,
        subjects=reports,
        flow_error_px=mean_of([frame.error_px for frame in motion]),
        camera=motion,
        mean_flow_error_px=mean_of([frame.mean_error_px for frame in motion]),
    )


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean of the values that are not None; None if all are."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _camera_frame(middle: Array, asked: Array, flow: Flow, pan: bool) -> CameraFrame:
    """`middle` (1, 2): the motion asked for in the middle of the frame; `asked` (N, 2): for the flow's pixels."""
    if not len(flow):
        return CameraFrame((float(middle[0, 0]), float(middle[0, 1])), None, None)
    requested, found = np.median(asked, axis=0), np.median(flow.motion, axis=0)
    errors = flow_error_px(flow.motion, asked)
    return CameraFrame(
        asked_px=(float(requested[0]), float(requested[1])),
        found_px=(float(found[0]), float(found[1])),
        error_px=float(np.linalg.norm(found - requested) if pan else np.median(errors)),
        mean_error_px=float(errors.mean()),
    )


def shot_report(
    frames: NDArray[np.uint8],
    shot: Shot,
    appearances: Mapping[str, Appearance],
    views: Mapping[str, Views] | None = None,
) -> MotionReport:
    """Measure the model's frames of a shot. `appearances` and `views` are by the subjects' names.

    Of subjects without an appearance, only the boxes are used: to measure the scenery around them.
    """
    targets = [
        TargetSubject(track.name, appearances[track.name], track.boxes, (views or {}).get(track.name))
        for track in shot.subjects
        if track.name in appearances
    ]
    others = [track.boxes for track in shot.subjects if track.name not in appearances]
    return motion_report(frames, targets, shot.camera, others)


def write_report(path: Path, report: MotionReport) -> None:
    """Write the report as indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def adherence_order(report: MotionReport) -> tuple[float, float]:
    """The sort key of takes, the best first: largest overlap with the boxes, then smallest flow error."""
    overlaps = [subject.iou for subject in report.subjects if subject.iou is not None]
    flow_error = float("inf") if report.flow_error_px is None else report.flow_error_px
    return (-float(np.mean(overlaps)) if overlaps else 0.0, flow_error)


Recognition = list[Recognized | None]  # of a subject, in each frame


def _recognized(frames: NDArray[np.uint8], subjects: Sequence[TargetSubject]) -> list[Recognition | None]:
    """Each subject in each frame in which it has a box; None for a subject without views."""
    views = {index: subject.views for index, subject in enumerate(subjects) if subject.views is not None}
    found: list[Recognition | None] = [[] if index in views else None for index in range(len(subjects))]
    for number, frame in enumerate(frames):
        asked = {index: box for index in views if (box := subjects[index].boxes[number]) is not None}
        here = dict(zip(asked, recognize([views[index] for index in asked], frame, [*asked.values()]), strict=True))
        for index in views:
            of_subject = found[index]
            assert of_subject is not None
            of_subject.append(here.get(index))
    return found


def _recognized_iou(box: Box | None, place: Recognized | None) -> float | None:
    if box is None or not box.visible:
        return None
    if place is None or place.similarity < MIN_SIMILARITY:
        return 0.0
    return iou(box.clipped(), place.box.clipped())


def _subject_report(
    target: TargetSubject, found: Sequence[FoundSubject | None], recognized: Recognition | None, aspect: float
) -> SubjectReport:
    frames = [box_adherence(box, place, aspect) for box, place in zip(target.boxes, found, strict=True)]
    compared = [frame for frame in frames if frame.iou is not None]
    errors = [frame.center_error for frame in compared if frame.center_error is not None]
    return SubjectReport(
        name=target.name,
        iou=mean_of([frame.iou for frame in compared]),
        center_error=float(np.median(errors)) if errors else None,
        found_share=len(errors) / len(compared) if compared else None,
        frames=frames,
        identity=mean_of([None if place is None else max(place.similarity, 0.0) for place in recognized or []]),
        recognized_iou=None
        if recognized is None
        else mean_of([_recognized_iou(*pair) for pair in zip(target.boxes, recognized, strict=True)]),
    )


def _hidden(
    found: Sequence[Sequence[FoundSubject | None]],
    subjects: Sequence[TargetSubject],
    others: Sequence[Sequence[Box | None]],
    size: tuple[int, int],
) -> list[NDArray[np.bool_] | None]:
    """For each frame of `size` (H, W), what is not scenery: the boxes, and each subject, which may be elsewhere."""
    masks = [
        [box_mask(box, size) if place is None else box_mask(box, size) | place.mask for place, box in pairs]
        for pairs in (zip(places, target.boxes, strict=True) for places, target in zip(found, subjects, strict=True))
    ]
    masks += [[box_mask(box, size) for box in boxes] for boxes in others]
    return list(np.logical_or.reduce(masks)) if masks else []


def box_mask(box: Box | None, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels (H, W) inside a box."""
    mask = np.zeros(size, bool)
    if box is not None and box.visible:
        inside = box.clipped()
        rows, columns = (
            slice(int(low * side), int(np.ceil(high * side)))
            for low, high, side in ((inside.y1, inside.y2, size[0]), (inside.x1, inside.x2, size[1]))
        )
        mask[rows, columns] = True
    return mask
