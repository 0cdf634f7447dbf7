"""What `bench control` measures in a clip: how closely its subject follows the boxes and its scenery the camera."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from motionbooth.bench.measures import Measure
from motionbooth.evaluation.report import CameraFrame, MotionReport, TargetSubject, mean_of, motion_report
from motionbooth.pictures.appearance import Appearance
from motionbooth_protocol.motion import CameraPath
from numpy.typing import NDArray

from motionbooth_lab.bench.cases import Case


@dataclass(frozen=True)
class Motion:
    """What was measured in a clip. `pan`: the scenery's motion from one latent frame to the next, per frame."""

    report: MotionReport
    pan: list[CameraFrame]


def motion_of(frames: NDArray[np.uint8], case: Case, appearance: Appearance, temporal: int) -> Motion:
    """Measure a clip of a model with `temporal` frames in a latent frame."""
    report = measured(frames, case, appearance)
    return Motion(report, report.camera if temporal == 1 else latent_pan(frames, case, appearance, temporal))


def latent_pan(frames: NDArray[np.uint8], case: Case, appearance: Appearance, temporal: int) -> list[CameraFrame]:
    """The scenery's motion in pixels per frame from the middle frame of each latent frame to that of the next."""
    middles = [0, *range((temporal + 1) // 2, len(frames), temporal)]
    seen = replace(
        case,
        boxes=[case.boxes[f] for f in middles],
        camera=CameraPath([case.camera.offsets[f] for f in middles]),
    )
    camera = measured(frames[middles], seen, appearance).camera
    return [_per_frame(*pair) for pair in zip(camera, np.diff(middles), strict=True)]


def _per_frame(motion: CameraFrame, frames: int) -> CameraFrame:
    """A motion over several frames as the mean motion of each."""

    def share(px: tuple[float, float]) -> tuple[float, float]:
        return px[0] / frames, px[1] / frames

    if motion.found_px is None or motion.error_px is None:
        return CameraFrame(share(motion.asked_px), None, None)
    return CameraFrame(share(motion.asked_px), share(motion.found_px), motion.error_px / frames)


def measured(frames: NDArray[np.uint8], case: Case, appearance: Appearance) -> MotionReport:
    return motion_report(frames, [TargetSubject("subject", appearance, case.boxes)], case.camera)


def clip_measures(
    reports: Sequence[MotionReport],
    prefix: str = "",
    suffix: str = "",
    pans: Sequence[Sequence[CameraFrame]] | None = None,
) -> list[Measure]:
    """Means over the frames of all clips; the center error is a median. `pans`: the scenery's motions of each clip.

    `flow_share`: the share of the frames whose scenery has texture, without which no flow can be measured.
    """
    frames = [frame for report in reports for frame in report.subjects[0].frames]
    center_errors = [frame.center_error for frame in frames if frame.center_error is not None]
    flows = [frame.error_px for pan in pans or [report.camera for report in reports] for frame in pan]
    flow_error = mean_of(flows)
    figures = (
        ("iou", float(np.mean([frame.iou or 0.0 for frame in frames])), "0..1"),
        ("center_error", float(np.median(center_errors)) if center_errors else 1.0, "frame widths"),
        ("found_share", len(center_errors) / len(frames), "0..1"),
        ("flow_error", float("nan") if flow_error is None else flow_error, "px a frame"),
        ("flow_share", float(np.mean([error is not None for error in flows])), "0..1"),
    )
    return [Measure(f"{prefix}{name}{suffix}", value, unit) for name, value, unit in figures]


def motion_measures(seen: Sequence[Motion], prefix: str = "", suffix: str = "") -> list[Measure]:
    """The measures of clips of one model."""
    reports, pans = [each.report for each in seen], [each.pan for each in seen]
    gain = Measure(f"{prefix}camera_gain{suffix}", camera_gain(seen), "of the asked travel")
    measures = [*clip_measures(reports, prefix, suffix, pans), gain]
    if len(pans[0]) == len(reports[0].camera):
        return measures
    every_frame = mean_of([report.flow_error_px for report in reports])
    name = f"{prefix}flow_error_every_frame{suffix}"
    return [*measures, Measure(name, float("nan") if every_frame is None else every_frame, "px a frame")]


def camera_gain(seen: Sequence[Motion]) -> float:
    """The share of the asked travel that the scenery moved along it; NaN if no camera moves."""
    moves = [(frame.asked_px, frame.found_px) for each in seen for frame in each.pan if frame.found_px is not None]
    asked, found = np.array(moves, float).reshape(-1, 2, 2).transpose(1, 0, 2)
    travel = float((asked**2).sum())
    return float((asked * found).sum()) / travel if travel else float("nan")
