"""The motion report of a clip: box obedience of each subject and the camera's flow error, per frame and in sum."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.motion import Box, CameraPath, Shot
from msgspec import Struct
from numpy.typing import NDArray

from motionbooth.evaluation.box_adherence import FoundSubject, box_adherence, find_subjects
from motionbooth.evaluation.camera_adherence import Flow, asked_flow_px, flow_error_px, scenery_flows_px
from motionbooth.pictures.appearance import Appearance


@dataclass(frozen=True)
class AskedSubject:
    """A subject as the shot asks for it: its looks, and its box in each frame (None where it is out of frame)."""

    name: str
    appearance: Appearance
    boxes: Sequence[Box | None]


class SubjectFrame(Struct, frozen=True):
    """A subject in one frame. Boxes are shares of the frame; errors are None where there is nothing to compare."""

    asked: Box | None
    found: Box | None
    center_error: float | None
    iou: float | None


class SubjectReport(Struct, frozen=True):
    """A subject over a clip.

    `iou`: mean over the frames that ask for the subject, 0 where it was not found. `center_error`: median over the
    frames in which it was found, as a share of the frame's width. `found_share`: the share of the frames that ask for
    it in which it was found. None where no frame asks, or none found it.
    """

    name: str
    iou: float | None
    center_error: float | None
    found_share: float | None
    frames: list[SubjectFrame]


class CameraFrame(Struct, frozen=True):
    """The scenery's motion from one frame to the next, in pixels (right, down).

    `found_px`: the median over the scenery, and `error_px` how far it is from what was asked. `mean_error_px`: the mean
    end-point error over all pixels of the scenery that have texture. None where too little of it has any.
    """

    asked_px: tuple[float, float]
    found_px: tuple[float, float] | None
    error_px: float | None
    mean_error_px: float | None = None


class MotionReport(Struct, frozen=True):
    """What a clip made of what was asked. `width`, `height`: the frames measured, in pixels.

    `flow_error_px`, `mean_flow_error_px`: means of the frames' `error_px` and `mean_error_px`, pixels a frame; None
    where the scenery has no texture in any frame.
    """

    width: int
    height: int
    subjects: list[SubjectReport]
    flow_error_px: float | None
    camera: list[CameraFrame]
    mean_flow_error_px: float | None = None


def motion_report(frames: NDArray[np.uint8], subjects: Sequence[AskedSubject], camera: CameraPath) -> MotionReport:
    """Measure a clip (F, H, W, 3) uint8 RGB of the model's own frames; of a clip at the scene's rate, take those first.

    Raises InvalidInput if the clip, the boxes and the camera path differ in length.
    """
    _check_lengths(len(frames), subjects, camera)
    _, height, width, _ = frames.shape
    found = find_subjects([subject.appearance for subject in subjects], frames, [subject.boxes for subject in subjects])
    reports = [_subject_report(*pair, aspect=width / height) for pair in zip(subjects, found, strict=True)]
    flows = scenery_flows_px(frames, _hidden(found, len(frames)))
    seen = [_camera_frame(*pair) for pair in zip(asked_flow_px(camera, width, height), flows, strict=True)]
    return MotionReport(
        width=width,
        height=height,
        subjects=reports,
        flow_error_px=mean_of([frame.error_px for frame in seen]),
        camera=seen,
        mean_flow_error_px=mean_of([frame.mean_error_px for frame in seen]),
    )


def mean_of(values: Sequence[float | None]) -> float | None:
    """Of those that could be measured."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _camera_frame(asked: NDArray[np.float64], flow: Flow) -> CameraFrame:
    wanted = (float(asked[0]), float(asked[1]))
    if not len(flow):
        return CameraFrame(wanted, None, None)
    median = np.median(flow, axis=0)
    return CameraFrame(
        asked_px=wanted,
        found_px=(float(median[0]), float(median[1])),
        error_px=float(np.linalg.norm(median - asked)),
        mean_error_px=float(flow_error_px(flow, asked).mean()),
    )


def shot_report(frames: NDArray[np.uint8], shot: Shot, looks: Mapping[str, Appearance]) -> MotionReport:
    """Measure the model's frames of a shot; subjects that `looks` does not have, by their name, are left out."""
    asked = [AskedSubject(track.name, looks[track.name], track.boxes) for track in shot.subjects if track.name in looks]
    return motion_report(frames, asked, shot.camera)


def write_report(path: Path, report: MotionReport) -> None:
    """As JSON, to be read by people too. Raises InvalidInput where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    except OSError as error:
        raise InvalidInput(
            "The report cannot be written to {path} ({reason}). Name another file.", path=path, reason=error.strerror
        ) from error


def obedience_order(report: MotionReport) -> tuple[float, float]:
    """What takes of one shot are sorted by, the best first: most overlap with the boxes, then least flow error."""
    overlaps = [subject.iou for subject in report.subjects if subject.iou is not None]
    flow_error = float("inf") if report.flow_error_px is None else report.flow_error_px
    return (-float(np.mean(overlaps)) if overlaps else 0.0, flow_error)


def _check_lengths(count: int, subjects: Sequence[AskedSubject], camera: CameraPath) -> None:
    if len(camera.offsets) != count:
        raise InvalidInput(
            "The clip has {count} frames and the camera path {offsets}; a report needs the model's frames.",
            count=count,
            offsets=len(camera.offsets),
        )
    for subject in subjects:
        if len(subject.boxes) != count:
            raise InvalidInput(
                'The clip has {count} frames, but "{subject}" has {boxes} boxes.',
                count=count,
                subject=subject.name,
                boxes=len(subject.boxes),
            )


def _subject_report(asked: AskedSubject, found: Sequence[FoundSubject | None], aspect: float) -> SubjectReport:
    answers = [box_adherence(box, place, aspect) for box, place in zip(asked.boxes, found, strict=True)]
    wanted = [answer for answer in answers if answer.iou is not None]
    errors = [answer.center_error for answer in wanted if answer.center_error is not None]
    return SubjectReport(
        name=asked.name,
        iou=float(np.mean([answer.iou or 0.0 for answer in wanted])) if wanted else None,
        center_error=float(np.median(errors)) if errors else None,
        found_share=len(errors) / len(wanted) if wanted else None,
        frames=[
            SubjectFrame(box, answer.found, answer.center_error, answer.iou)
            for box, answer in zip(asked.boxes, answers, strict=True)
        ],
    )


def _hidden(found: Sequence[Sequence[FoundSubject | None]], count: int) -> list[NDArray[np.bool_] | None]:
    """For each frame the pixels of all subjects in it: the camera is measured on the rest."""
    hidden: list[NDArray[np.bool_] | None] = []
    for frame in range(count):
        masks = [place[frame].mask for place in found if place[frame] is not None]  # type: ignore[union-attr]
        hidden.append(np.logical_or.reduce(masks) if masks else None)
    return hidden
