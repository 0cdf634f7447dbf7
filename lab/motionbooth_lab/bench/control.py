"""`motionbooth bench control`: how closely the bundled models follow boxes and camera paths.

The bench generates held-out prompts of the base model's own kinds, and ten subjects that it trains first. It reports
the measures of `motionbooth.evaluation`, and the same with both controls off (`_off`, same seeds). `drawn_` is the
upper limit of these measures: drawn clips of the same scenes, encoded and decoded. For the identity of the subjects see
identity.py.

If a latent frame has several frames, `flow_error` compares the middle frames of the latent frames, and
`flow_error_every_frame` all consecutive ones.
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
import numpy as np
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.evaluation.contact_sheet import Row, write_contact_sheet
from motionbooth.finetuning.prior_preservation import generated_backgrounds, prior_clips
from motionbooth.generation.sampling import generate_clip
from motionbooth.jobs.runner import run_job
from motionbooth.models.base import Base
from motionbooth.models.subject_weights import load_subject
from motionbooth.pictures.appearance import Appearance
from motionbooth.progress.time_left import Stage
from motionbooth_protocol.jobs import GenerateSpec, Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.motion import Box, CameraPath, Offset
from motionbooth_protocol.text import Text
from numpy.typing import NDArray
from rich.progress import Progress

from motionbooth_lab.bench.bundled import TOYBOX_MODEL, Model, bundled_base
from motionbooth_lab.bench.cases import BASE_CASES, TOKEN, Case, base_cases, subject_cases, without_control
from motionbooth_lab.bench.identity import (
    Identity,
    codec_db,
    galleries_of,
    identity_measures,
    identity_of,
    through_codec,
)
from motionbooth_lab.bench.kinds import KindClassifier
from motionbooth_lab.bench.motion import Motion, motion_measures, motion_of
from motionbooth_lab.bench.photographs import photographed_subjects
from motionbooth_lab.bench.subjects import SOLIDS, TrainingSet, unseen_subjects
from motionbooth_lab.toybox.backgrounds import PLACES
from motionbooth_lab.toybox.draw import HEIGHT_PX, WIDTH_PX, draw_clip, has_contrast, kind_scene
from motionbooth_lab.toybox.identity import Gallery

UNSEEN = 10
"""Subjects that the bundled models were not trained on."""

PROCESSES = 2
"""The model uses one thread."""

DRIFT_CLIPS = 2
"""Clips of the base model's own kinds that are generated again after each fine-tuning, to measure drift."""


Result = TypeVar("Result")


@dataclass(frozen=True)
class CaseResult:
    """A generated case, measured with the controls and without (`_off`). `frames`: with the controls."""

    case: Case
    frames: NDArray[np.uint8]
    motion: Motion
    motion_off: Motion
    seconds: float

    def row(self) -> Row:
        """A row of a contact sheet."""
        found = [frame.found for frame in self.motion.report.subjects[0].frames]
        return Row(self.case.spec.prompt, self.frames, [self.case.boxes], [found], self.case.camera)


@dataclass(frozen=True)
class KindResult:
    """A case of a base model's own kind. `drawn`: of a drawn clip; `recognized`: by the classifier."""

    result: CaseResult
    drawn: Motion
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
    model: Model = TOYBOX_MODEL,
    pictures: Path | None = None,
    photographs: Path | None = None,
    unseen: int = UNSEEN,
    kinds: int = BASE_CASES,
) -> BenchResult:
    """Run the bench on a bundled model: about 40 minutes in two processes of one thread each.

    `pictures`: folder for two contact sheets, base.png and subjects.png. `photographs`: measure only the subjects in
    this folder (one folder each). `unseen`: otherwise so many of the UNSEEN subjects, evenly spaced, and `kinds` of the
    BASE_CASES.
    """
    if photographs is None:
        subjects = [unseen_subjects()[number * UNSEEN // unseen] for number in range(unseen)]
    else:
        subjects = photographed_subjects(photographs)
    galleries = galleries_of(subjects)
    numbers = [number * BASE_CASES // kinds for number in range(kinds)] if photographs is None else []
    with (
        Progress(transient=True) as progress,
        tempfile.TemporaryDirectory(prefix="motionbooth-bench-") as folder,
        ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool,
    ):
        bar = progress.add_task("generating", total=len(numbers) + len(subjects))

        def collected(future: Future[Result]) -> Result:
            result = future.result()
            progress.advance(bar)
            return result

        prior = pool.submit(generate_prior_clips, model) if subjects else None
        generated = [pool.submit(run_kind, number, model) for number in numbers]
        if prior is not None:
            prior.result()  # once, and before the first training is timed
        trained = [pool.submit(run_subject, each, galleries, Path(folder), model) for each in subjects]
        kind_results, subject_results = list(map(collected, generated)), list(map(collected, trained))
    if pictures is not None:
        write_pictures(pictures, kind_results, subject_results)
    measures = kind_measures(kind_results) if kind_results else []
    if subjects:
        solid = [each for each in subjects if photographs is not None or each.name in SOLIDS]
        measures += [*subject_measures(subject_results), codec_db(bundled_base(model), solid)]
    name = "control" if photographs is None else "control-photographs"
    name = name if model.name == "toybox" else f"{name}-{model.name}"
    name = "-".join([name, *(f"{setting}-{value}" for setting, value in model.control)])
    return BenchResult(name, [*measures, bundle_size(model)])


def kind_measures(kinds: Sequence[KindResult]) -> list[Measure]:
    """Measures of the base model's own kinds, in combinations that it was not trained on."""
    return [
        *motion_measures([kind.result.motion for kind in kinds]),
        *motion_measures([kind.result.motion_off for kind in kinds], suffix="_off"),
        *motion_measures([kind.drawn for kind in kinds], "drawn_"),
        Measure("class_accuracy", float(np.mean([kind.recognized for kind in kinds])), "0..1"),
        Measure("clip_seconds", float(np.mean([kind.result.seconds for kind in kinds])), "s"),
    ]


def subject_measures(subjects: Sequence[SubjectResult]) -> list[Measure]:
    """Measures of the subjects, each trained from about five pictures."""
    results = [result for subject in subjects for result in subject.results]
    return [
        *motion_measures([result.motion for result in results], "subject_"),
        *motion_measures([result.motion_off for result in results], "subject_", "_off"),
        *identity_measures([subject.identity for subject in subjects]),
        Measure("drift", float(np.mean([shift for subject in subjects for shift in subject.shifts])), "CIE Lab"),
        Measure("finetune_seconds", float(np.mean([subject.training_seconds for subject in subjects])), "s"),
    ]


def bundle_size(model: Model) -> Measure:
    """Size of all files of the bundled model."""
    files = [path for path in model.source.folder.rglob("*") if path.is_file()]
    return Measure("bundle_mb", sum(path.stat().st_size for path in files) / 1e6, "MB")


def write_pictures(folder: Path, kinds: Sequence[KindResult], subjects: Sequence[SubjectResult]) -> None:
    """Every fourth of the base model's clips; one clip of each subject, next to two of its training pictures."""
    if kinds:
        write_contact_sheet(folder / "base.png", [kind.result.row() for kind in kinds[::4]])
    if subjects:
        rows = [replace(subject.results[0].row(), pictures=subject.pictures[1:3]) for subject in subjects]
        write_contact_sheet(folder / "subjects.png", rows)


# The parts that run in worker processes


@cache
def _classifier(model: Model) -> KindClassifier:
    return KindClassifier.train(bundled_base(model))


def generate_prior_clips(model: Model = TOYBOX_MODEL) -> None:
    """Generate the prior-preservation clips and backgrounds that every training needs, into the cache."""
    base = bundled_base(model)
    prior_clips(base, base.settings.full)
    generated_backgrounds(base, base.settings.full)


def run_kind(number: int, model: Model = TOYBOX_MODEL) -> KindResult:
    """Run one of the held-out prompts of the base model."""
    case = list(base_cases(model.clip_format))[number]
    assert case.combination is not None
    appearance = appearance_of_kind(*case.combination[:2])
    result = _run_case(bundled_base(model), case, appearance)
    places = [frame.found for frame in result.motion.report.subjects[0].frames]
    found = [(f, box) for f, box in enumerate(places) if box is not None]
    frames, boxes = result.frames[[f for f, _ in found]], [box for _, box in found]
    named = _classifier(replace(model, control=())).kind(frames, boxes) if found else None
    return KindResult(result, _measure_drawn(case, appearance, model), named == case.combination[0])


def run_subject(
    subject: TrainingSet, galleries: Mapping[str, Gallery], folder: Path, model: Model = TOYBOX_MODEL
) -> SubjectResult:
    """Train a subject and generate it on its four paths."""
    started = time.monotonic()
    weights = train_subject(subject, folder / subject.name, model=model)
    seconds = time.monotonic() - started
    tuned = bundled_base.__wrapped__(model)  # a separate copy
    load_subject(tuned, weights)
    appearance = Appearance.from_pictures(subject.pictures, subject.masks)
    cases = list(subject_cases(subject, sha256_of(weights), model.clip_format))
    results = [_run_case(tuned, case, appearance) for case in cases]
    shifts = [color_shift(tuned, case, model) for case in list(base_cases(model.clip_format))[:DRIFT_CLIPS]]
    clips = [(each.frames, each.case.boxes) for each in results]
    untrained = [(generate_frames(bundled_base(model), case.spec), case.boxes) for case in cases]
    identity = identity_of(bundled_base(model), subject, galleries, clips, untrained)
    return SubjectResult(list(subject.pictures), results, seconds, shifts, identity)


def _run_case(base: Base, case: Case, appearance: Appearance) -> CaseResult:
    started = time.monotonic()
    frames = generate_frames(base, case.spec)
    seconds = time.monotonic() - started
    off = generate_frames(base, without_control(case.spec))
    motion, motion_off = (motion_of(clip, case, appearance, base.temporal) for clip in (frames, off))
    return CaseResult(case, frames, motion, motion_off, seconds)


def generate_frames(base: Base, spec: GenerateSpec) -> NDArray[np.uint8]:
    return generate_clip(base, spec).numpy()


def _measure_drawn(case: Case, appearance: Appearance, model: Model) -> Motion:
    """Measure a drawn clip of the same scene with another path, encoded and decoded."""
    assert case.combination is not None
    rng = np.random.default_rng([31, case.spec.seed])
    clip = draw_clip(kind_scene(*case.combination), rng, clip_format=model.clip_format)
    boxes = [Box(*map(float, box)) for box in clip.boxes_xyxy]
    travel = clip.camera_px / (WIDTH_PX, HEIGHT_PX)
    camera = CameraPath([Offset(float(x), float(y)) for x, y in travel])
    base = bundled_base(model)
    frames = through_codec(base, clip.frames)
    return motion_of(frames, replace(case, boxes=boxes, camera=camera), appearance, base.temporal)


def train_subject(
    subject: TrainingSet,
    folder: Path,
    recipe: str = "motionbooth",
    steps: int | None = None,
    seed: int = 0,
    model: Model = TOYBOX_MODEL,
) -> Path:
    """Train in `folder` as a job does. Returns the subject's file. `seed`: 0 is the bench's own."""
    folder.mkdir()
    pictures = [
        Picture(_stored(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), folder), _stored(mask, folder))
        for picture, mask in zip(subject.pictures, subject.masks, strict=True)
    ]
    spec = TrainSpec(
        SubjectSpec(subject.name, TOKEN, subject.class_word, pictures),
        model=model.name,
        seed=3 + seed,
        steps=steps,
        recipe=recipe,
    )
    return run_job(spec, lambda sha256: folder / sha256, folder, _Silent())["subject"]


def _stored(pixels: NDArray[np.uint8], folder: Path) -> str:
    data = cv2.imencode(".png", pixels)[1].tobytes()
    name = hashlib.sha256(data).hexdigest()
    (folder / name).write_bytes(data)
    return name


def color_shift(tuned: Base, case: Case, model: Model = TOYBOX_MODEL) -> float:
    """How far fine-tuning moved the mean color of a base model's own kind (CIE Lab, in the middle of its box)."""
    before, after = (middle_lab(generate_frames(base, case.spec), case.boxes) for base in (bundled_base(model), tuned))
    return float(np.linalg.norm(after - before))


class _Silent:
    """A Reporter that discards everything."""

    def plan(self, stages: Sequence[Stage]) -> None:
        return

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        return


def appearance_of_kind(kind: str, color: str) -> Appearance:
    """Appearance of the kind in drawn pictures."""
    places = [place for place in PLACES if has_contrast(color, place)][:4]
    clips = [
        draw_clip(kind_scene(kind, color, place), np.random.default_rng([29, number]))
        for number, place in enumerate(places)
    ]
    return Appearance.from_pictures([clip.frames[0] for clip in clips], [clip.masks[0] for clip in clips])


def middle_lab(frames: NDArray[np.uint8], boxes: Sequence[Box]) -> NDArray[np.float64]:
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
