"""What each control contributed to a clip: the sampling steps in which it acted, and what was kept of a guide."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from motionbooth_protocol.jobs import GenerateSpec
from msgspec.structs import replace
from numpy.typing import NDArray

from motionbooth.control.guide import is_guided
from motionbooth.evaluation.report import Contributions, ControlUse, GuideDifference, MotionReport, shot_report
from motionbooth.generation.guide import BlobPath, read_guide
from motionbooth.generation.sampling import plan_shot
from motionbooth.models.base import Base
from motionbooth.pictures.appearance import Appearance


def clip_report(
    base: Base,
    spec: GenerateSpec,
    frames: NDArray[np.uint8],
    appearances: Mapping[str, Appearance],
    blob_path: BlobPath,
) -> MotionReport:
    """`shot_report` of a clip that was generated from `spec`, with the contributions of the controls."""
    report = shot_report(frames, spec.shot, appearances)
    return replace(report, contributions=contributions(base, spec, frames, blob_path))


def contributions(base: Base, spec: GenerateSpec, frames: NDArray[np.uint8], blob_path: BlobPath) -> Contributions:
    """Those of a clip's (F, H, W, 3) controls; controls that did not act are left out."""
    plans = plan_shot(base, spec)
    counted: dict[str, tuple[int, float | None]] = {
        "boxes": (sum(plan.boxes is not None for plan in plans), None),
        "boxes_amplified": (sum(plan.boxes is not None and plan.boxes.amplify for plan in plans), None),
        "camera": (sum(plan.free is not None or bool(plan.fractions) for plan in plans), None),
        "scenery": (sum(plan.scenery is not None for plan in plans), None),
        "trained_subjects": (len(plans) * any(track.weights for track in spec.shot.subjects), None),
        "style": (len(plans), spec.styles[0].strength) if spec.styles else (0, None),
    }
    if spec.guide is not None:
        levels = base.noise_levels(len(plans))
        for name in ("subject", "background"):
            strength = getattr(spec.guide, f"{name}_strength")
            counted[f"guide_{name}"] = sum(is_guided(level, strength) for level in levels), strength
    uses = [ControlUse(name, steps, strength) for name, (steps, strength) in counted.items() if steps]
    return Contributions(len(plans), uses, guide_difference(base, spec, frames, blob_path))


def guide_difference(
    base: Base, spec: GenerateSpec, frames: NDArray[np.uint8], blob_path: BlobPath
) -> GuideDifference | None:
    """How far the clip is from its guide; None without one."""
    guide = read_guide(spec, base.settings, blob_path)
    if guide is None:
        return None
    regions = guide.regions
    places = [(share > 0.5).numpy() for share in (regions.subjects, regions.background + regions.kept)]
    return GuideDifference(*(lab_difference(frames, guide.pixels, place) if place.any() else None for place in places))


def lab_difference(one: NDArray[np.uint8], other: NDArray[np.uint8], where: NDArray[np.bool_]) -> float:
    """The mean distance of two clips' (F, H, W, 3) colors in CIE Lab over some pixels (F, H, W).

    After a blur by two pixels: of color, not of grain.
    """
    distances = [
        np.linalg.norm(_lab(first) - _lab(second), axis=-1)[inside]
        for first, second, inside in zip(one, other, where, strict=True)
    ]
    return float(np.concatenate(distances).mean())


def _lab(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    blurred = cv2.GaussianBlur(frame.astype(np.float32) / 255, (0, 0), 2)
    return np.asarray(cv2.cvtColor(blurred, cv2.COLOR_RGB2LAB), np.float32)
