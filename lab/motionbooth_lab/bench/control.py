"""`motionbooth bench control`: how closely the bundled model follows boxes and camera paths.

The bench generates held-out prompts of the base model's own kinds, and ten subjects that it trains first. It reports
the measures of `motionbooth.evaluation`, and the same with both controls off (`_off`, same seeds). `drawn_` is the
upper limit of these measures: drawn clips of the same scenes, encoded and decoded. For the identity of the subjects see
identity.py.
"""

import hashlib
import multiprocessing
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import cv2
import msgspec
import numpy as np
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.control.settings import Suppress
from motionbooth.evaluation.contact_sheet import Row, write_contact_sheet
from motionbooth.evaluation.report import MotionReport, TargetSubject, mean_of, motion_report
from motionbooth.finetuning.prior_preservation import generated_backgrounds, prior_clips
from motionbooth.generation.sampling import decode, generate_clip
from motionbooth.jobs.runner import run_job
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import source_named
from motionbooth.models.subject_weights import load_subject
from motionbooth.pictures.appearance import Appearance
from motionbooth.progress.time_left import Stage
from motionbooth_protocol.jobs import GenerateSpec, Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.motion import Box, CameraPath, Offset
from motionbooth_protocol.text import Text
from numpy.typing import NDArray
from rich.progress import Progress

from motionbooth_lab.bench.cases import BASE_CASES, TOKEN, Case, base_cases, subject_cases, without_control
from motionbooth_lab.bench.identity import Identity, codec_db, encode, galleries_of, identity_measures, identity_of
from motionbooth_lab.bench.kinds import KindClassifier
from motionbooth_lab.bench.photographs import photographed_subjects
from motionbooth_lab.bench.subjects import SOLIDS, TrainingSet, unseen_subjects
from motionbooth_lab.toybox.backgrounds import PLACES
from motionbooth_lab.toybox.draw import HEIGHT_PX, WIDTH_PX, draw_clip, has_contrast, kind_scene
from motionbooth_lab.toybox.identity import Gallery

PROCESSES = 2
"""The model uses one thread."""

DRIFT_CLIPS = 2
"""Clips of the base model's own kinds that are generated again after each fine-tuning, to measure drift."""


Result = TypeVar("Result")


def clip_measures(reports: Sequence[MotionReport], prefix: str = "", suffix: str = "") -> list[Measure]:
    """Means over the frames of all clips; the center error is a median.

    `flow_share`: the share of the frames whose scenery has texture, without which no flow can be measured.
    """
    frames = [frame for report in reports for frame in report.subjects[0].frames]
    center_errors = [frame.center_error for frame in frames if frame.center_error is not None]
    flows = [frame.error_px for report in reports for frame in report.camera]
    flow_error = mean_of(flows)
    figures = (
        ("iou", float(np.mean([frame.iou or 0.0 for frame in frames])), "0..1"),
        ("center_error", float(np.median(center_errors)) if center_errors else 1.0, "frame widths"),
        ("found_share", len(center_errors) / len(frames), "0..1"),
        ("flow_error", float("nan") if flow_error is None else flow_error, "px a frame"),
        ("flow_share", float(np.mean([error is not None for error in flows])), "0..1"),
    )
    return [Measure(f"{prefix}{name}{suffix}", value, unit) for name, value, unit in figures]


@dataclass(frozen=True)
class CaseResult:
    """A generated case, measured with the controls and without (`_off`). `frames`: with the controls."""

    case: Case
    frames: NDArray[np.uint8]
    report: MotionReport
    report_off: MotionReport
    seconds: float

    def row(self) -> Row:
        """A row of a contact sheet."""
        found = [frame.found for frame in self.report.subjects[0].frames]
        return Row(self.case.spec.prompt, self.frames, [self.case.boxes], [found], self.case.camera)


@dataclass(frozen=True)
class KindResult:
    """A case of a base model's own kind. `drawn`: report of a drawn clip; `recognized`: by the classifier."""

    result: CaseResult
    drawn: MotionReport
    recognized: bool


@dataclass(frozen=True)
class SubjectResult:
    """A trained subject. `shifts`: how far the color of each of the base model's own kinds moved (CIE Lab)."""

    pictures: list[NDArray[np.uint8]]
    results: list[CaseResult]
    training_seconds: float
    shifts: list[float]
    identity: Identity


def bench_control(
    pictures: Path | None = None, suppress: Suppress | None = None, photographs: Path | None = None
) -> BenchResult:
    """Run the bench on the bundled model: about 40 minutes in two processes of one thread each.

    `pictures`: folder for two contact sheets, base.png and subjects.png. `suppress`: which words the boxes suppress,
    instead of the model's own setting. `photographs`: measure only the subjects in this folder (one folder each).
    """
    subjects = unseen_subjects() if photographs is None else photographed_subjects(photographs)
    galleries = galleries_of(subjects)
    pairs = BASE_CASES if photographs is None else 0
    with (
        Progress(transient=True) as progress,
        tempfile.TemporaryDirectory(prefix="motionbooth-bench-") as folder,
        ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool,
    ):
        bar = progress.add_task("generating", total=pairs + len(subjects))

        def collected(future: Future[Result]) -> Result:
            result = future.result()
            progress.advance(bar)
            return result

        prior = pool.submit(generate_prior_clips)
        kinds = [pool.submit(run_kind, number, suppress) for number in range(pairs)]
        prior.result()  # once, and before the first training is timed
        trained = [pool.submit(run_subject, each, galleries, Path(folder), suppress) for each in subjects]
        kind_results, subject_results = list(map(collected, kinds)), list(map(collected, trained))
    if pictures is not None:
        write_pictures(pictures, kind_results, subject_results)
    solid = [each for each in subjects if photographs is not None or each.name in SOLIDS]
    measures = [*subject_measures(subject_results), codec_db(_base(), solid), bundle_size()]
    if kinds:
        measures = [*kind_measures(kind_results), *measures]
    name = "control" if photographs is None else "control-photographs"
    return BenchResult(name if suppress is None else f"{name}-suppress-{suppress}", measures)


def kind_measures(kinds: Sequence[KindResult]) -> list[Measure]:
    """Measures of the base model's own kinds, in combinations that it was not trained on."""
    return [
        *clip_measures([kind.result.report for kind in kinds]),
        *clip_measures([kind.result.report_off for kind in kinds], suffix="_off"),
        *clip_measures([kind.drawn for kind in kinds], "drawn_"),
        Measure("class_accuracy", float(np.mean([kind.recognized for kind in kinds])), "0..1"),
        Measure("clip_seconds", float(np.mean([kind.result.seconds for kind in kinds])), "s"),
    ]


def subject_measures(subjects: Sequence[SubjectResult]) -> list[Measure]:
    """Measures of the subjects, each trained from about five pictures."""
    results = [result for subject in subjects for result in subject.results]
    return [
        *clip_measures([result.report for result in results], "subject_"),
        *clip_measures([result.report_off for result in results], "subject_", "_off"),
        *identity_measures([subject.identity for subject in subjects]),
        Measure("drift", float(np.mean([shift for subject in subjects for shift in subject.shifts])), "CIE Lab"),
        Measure("finetune_seconds", float(np.mean([subject.training_seconds for subject in subjects])), "s"),
    ]


def bundle_size() -> Measure:
    """Size of all files of the bundled model."""
    files = [path for path in source_named("toybox").folder.rglob("*") if path.is_file()]
    return Measure("bundle_mb", sum(path.stat().st_size for path in files) / 1e6, "MB")


def write_pictures(folder: Path, kinds: Sequence[KindResult], subjects: Sequence[SubjectResult]) -> None:
    """Every fourth of the base model's clips; one clip of each subject, next to two of its training pictures."""
    if kinds:
        write_contact_sheet(folder / "base.png", [kind.result.row() for kind in kinds[::4]])
    rows = [replace(subject.results[0].row(), pictures=subject.pictures[1:3]) for subject in subjects]
    write_contact_sheet(folder / "subjects.png", rows)


# The parts that run in worker processes


@cache
def _base(suppress: Suppress | None = None) -> Base:
    base = load_base(source_named("toybox"))
    if suppress is not None:
        control = msgspec.structs.replace(base.settings.control, suppress=suppress)
        base.settings = msgspec.structs.replace(base.settings, control=control)
    return base


@cache
def _classifier() -> KindClassifier:
    return KindClassifier.train(_base().vae)


def generate_prior_clips() -> None:
    """Generate the prior-preservation clips and backgrounds that every training needs, into the cache."""
    prior_clips(_base(), _base().settings.full)
    generated_backgrounds(_base(), _base().settings.full)


def run_kind(number: int, suppress: Suppress | None = None) -> KindResult:
    """Run one of the held-out prompts of the base model."""
    case = list(base_cases())[number]
    assert case.combination is not None
    appearance = _appearance_of_kind(*case.combination[:2])
    result = _run_case(_base(suppress), case, appearance)
    found = [(f, frame.found) for f, frame in enumerate(result.report.subjects[0].frames) if frame.found is not None]
    named = _classifier().kind(result.frames[[f for f, _ in found]], [box for _, box in found]) if found else None
    return KindResult(result, _measure_drawn(case, appearance), named == case.combination[0])


def run_subject(
    subject: TrainingSet, galleries: Mapping[str, Gallery], folder: Path, suppress: Suppress | None = None
) -> SubjectResult:
    """Train a subject and generate it on its four paths."""
    started = time.monotonic()
    weights = train_subject(subject, folder / subject.name)
    seconds = time.monotonic() - started
    tuned = _base.__wrapped__(suppress)  # a separate copy
    load_subject(tuned, weights)
    appearance = Appearance.from_pictures(subject.pictures, subject.masks)
    cases = list(subject_cases(subject, sha256_of(weights)))
    results = [_run_case(tuned, case, appearance) for case in cases]
    shifts = [color_shift(tuned, case) for case in list(base_cases())[:DRIFT_CLIPS]]
    clips = [(each.frames, each.case.boxes) for each in results]
    untrained = [(generate_frames(_base(suppress), case.spec), case.boxes) for case in cases]
    identity = identity_of(_base(), subject, galleries, clips, untrained)
    return SubjectResult(list(subject.pictures), results, seconds, shifts, identity)


def _run_case(base: Base, case: Case, appearance: Appearance) -> CaseResult:
    started = time.monotonic()
    frames = generate_frames(base, case.spec)
    seconds = time.monotonic() - started
    off = generate_frames(base, without_control(case.spec))
    return CaseResult(case, frames, measured(frames, case, appearance), measured(off, case, appearance), seconds)


def generate_frames(base: Base, spec: GenerateSpec) -> NDArray[np.uint8]:
    return generate_clip(base, spec).numpy()


def _measure_drawn(case: Case, appearance: Appearance) -> MotionReport:
    """Measure a drawn clip of the same scene with another path, encoded and decoded."""
    assert case.combination is not None
    clip = draw_clip(kind_scene(*case.combination), np.random.default_rng([31, case.spec.seed]))
    latents = encode(_base(), clip.frames)
    boxes = [Box(*map(float, box)) for box in clip.boxes_xyxy]
    travel = clip.camera_px / (WIDTH_PX, HEIGHT_PX)
    camera = CameraPath([Offset(float(x), float(y)) for x, y in travel])
    return measured(decode(_base(), latents)[0].numpy(), replace(case, boxes=boxes, camera=camera), appearance)


def train_subject(
    subject: TrainingSet, folder: Path, recipe: str = "motionbooth", steps: int | None = None, seed: int = 0
) -> Path:
    """Train in `folder` as a job does. Returns the subject's file. `seed`: 0 is the bench's own."""
    folder.mkdir()
    pictures = [
        Picture(_stored(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), folder), _stored(mask, folder))
        for picture, mask in zip(subject.pictures, subject.masks, strict=True)
    ]
    spec = TrainSpec(
        SubjectSpec(subject.name, TOKEN, subject.class_word, pictures), seed=3 + seed, steps=steps, recipe=recipe
    )
    return run_job(spec, lambda sha256: folder / sha256, folder, _Silent())["subject"]


def _stored(pixels: NDArray[np.uint8], folder: Path) -> str:
    data = cv2.imencode(".png", pixels)[1].tobytes()
    name = hashlib.sha256(data).hexdigest()
    (folder / name).write_bytes(data)
    return name


def color_shift(tuned: Base, case: Case) -> float:
    """How far fine-tuning moved the mean color of a base model's own kind (CIE Lab, in the middle of its box)."""
    before, after = (_middle_lab(generate_frames(base, case.spec), case.boxes) for base in (_base(), tuned))
    return float(np.linalg.norm(after - before))


class _Silent:
    """A Reporter that discards everything."""

    def plan(self, stages: Sequence[Stage]) -> None:
        return

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        return


def measured(frames: NDArray[np.uint8], case: Case, appearance: Appearance) -> MotionReport:
    return motion_report(frames, [TargetSubject("subject", appearance, case.boxes)], case.camera)


def _appearance_of_kind(kind: str, color: str) -> Appearance:
    """Appearance of the kind in drawn pictures."""
    places = [place for place in PLACES if has_contrast(color, place)][:4]
    clips = [
        draw_clip(kind_scene(kind, color, place), np.random.default_rng([29, number]))
        for number, place in enumerate(places)
    ]
    return Appearance.from_pictures([clip.frames[0] for clip in clips], [clip.masks[0] for clip in clips])


def _middle_lab(frames: NDArray[np.uint8], boxes: Sequence[Box]) -> NDArray[np.float64]:
    """Mean CIE Lab color of the middle quarter of each frame's box."""
    height, width = frames.shape[1:3]
    means = []
    for frame, box in zip(frames, boxes, strict=True):
        lab = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        (x, y), half_w, half_h = box.center, (box.x2 - box.x1) / 4, (box.y2 - box.y1) / 4
        rows = slice(int((y - half_h) * height), int((y + half_h) * height) + 1)
        columns = slice(int((x - half_w) * width), int((x + half_w) * width) + 1)
        means.append(lab[rows, columns].mean((0, 1)))
    return np.mean(means, 0)


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
