"""`motionbooth bench control`: how well the bundled model keeps to boxes and camera paths.

For held-out prompts of its own kinds and for ten subjects that it trains on the spot: the measures of `evaluation`,
and the same for the same seeds with both controls off (`_off`). `drawn_` is the most that the measures can show: drawn
clips of the same scenes, through the decoder. And who is it, of 20: `who.py`.
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
from motionbooth.evaluation.contact_sheet import Row, Sheet, write_contact_sheet
from motionbooth.evaluation.identity import Gallery
from motionbooth.evaluation.report import AskedSubject, MotionReport, mean_of, motion_report
from motionbooth.finetuning.prior_preservation import generated_places, ordinary_clips
from motionbooth.generation.sampling import decode, film
from motionbooth.jobs.runner import run
from motionbooth.models.registry import Base, load_base
from motionbooth.models.sources import source_named
from motionbooth.models.subject_weights import load_subject
from motionbooth.pictures.appearance import Appearance
from motionbooth.progress.time_left import Stage
from motionbooth_protocol.jobs import GenerateSpec, Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.motion import Box, CameraPath, Offset
from numpy.typing import NDArray
from rich.progress import Progress

from motionbooth_lab.bench.identity import Identity, codec_db, encode, galleries_of, identity_measures, identity_of
from motionbooth_lab.bench.kinds import KindClassifier
from motionbooth_lab.bench.pairs import BASE_PAIRS, TOKEN, Filming, base_filmings, subject_filmings, without_control
from motionbooth_lab.bench.photographs import photographed_subjects
from motionbooth_lab.bench.subjects import SOLIDS, TrainingSet, unseen_subjects
from motionbooth_lab.toybox.backgrounds import PLACES
from motionbooth_lab.toybox.draw import HEIGHT_PX, WIDTH_PX, draw_clip, has_contrast, kind_scene

PROCESSES = 2
"""The model computes with one thread."""

DRIFT_CLIPS = 2
"""Clips of the base's own kinds that are filmed again after each fine-tuning."""


Result = TypeVar("Result")


@dataclass(frozen=True)
class Tally:
    """The reports of many clips, and how their figures are summed up."""

    reports: Sequence[MotionReport]

    def measures(self, prefix: str, suffix: str) -> list[Measure]:
        """Means over the frames of all clips; the center error is a median."""
        frames = [frame for report in self.reports for frame in report.subjects[0].frames]
        center_errors = [frame.center_error for frame in frames if frame.center_error is not None]
        flow_error = mean_of([frame.error_px for report in self.reports for frame in report.camera])
        figures = (
            ("iou", float(np.mean([frame.iou or 0.0 for frame in frames])), "0..1"),
            ("center_error", float(np.median(center_errors)) if center_errors else 1.0, "frame widths"),
            ("found_share", len(center_errors) / len(frames), "0..1"),
            ("flow_error", float("nan") if flow_error is None else flow_error, "px a frame"),
        )
        return [Measure(f"{prefix}{name}{suffix}", value, unit) for name, value, unit in figures]


@dataclass(frozen=True)
class Filmed:
    """One filming: what came with the controls and without (`_off`), and what was measured on both."""

    filming: Filming
    frames: NDArray[np.uint8]
    report: MotionReport
    report_off: MotionReport
    seconds: float

    def row(self) -> Row:
        """For a contact sheet."""
        found = [frame.found for frame in self.report.subjects[0].frames]
        return Row(self.filming.spec.prompt, self.frames, [self.filming.boxes], [found], self.filming.camera)


@dataclass(frozen=True)
class FilmedKind:
    """A kind of the base's own: `drawn` is the report of a real clip of the same, `recognized` by the classifier."""

    filmed: Filmed
    drawn: MotionReport
    recognized: bool


@dataclass(frozen=True)
class FilmedSubject:
    """A trained subject: its pictures, its clips, who they show, and how far two of the base's kinds changed color."""

    pictures: list[NDArray[np.uint8]]
    filmed: list[Filmed]
    training_seconds: float
    shifts: list[float]
    identity: Identity


def bench_control(
    pictures: Path | None = None, suppress: Suppress | None = None, photographs: Path | None = None
) -> BenchResult:
    """Run the whole bench on the bundled model: about 40 minutes in two processes of one thread each.

    `pictures`: a folder for two contact sheets of what was generated, base.png and subjects.png. `suppress`: which
    words the boxes suppress, instead of the model's own choice; two runs compare the two. `photographs`: measure the
    subjects of this folder's folders instead of the bench's own, and nothing of the base's kinds.
    """
    subjects = unseen_subjects() if photographs is None else photographed_subjects(photographs)
    galleries = galleries_of(subjects)
    pairs = BASE_PAIRS if photographs is None else 0
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

        ordinary = pool.submit(film_ordinary_clips)
        kinds = [pool.submit(film_kind, number, suppress) for number in range(pairs)]
        ordinary.result()  # once, and before the first training is timed
        learned = [pool.submit(learn_and_film, each, galleries, Path(folder), suppress) for each in subjects]
        filmed_kinds, filmed_subjects = list(map(collected, kinds)), list(map(collected, learned))
    if pictures is not None:
        write_pictures(pictures, filmed_kinds, filmed_subjects)
    solid = [each for each in subjects if photographs is not None or each.name in SOLIDS]
    measures = [*subject_measures(filmed_subjects), codec_db(_base(), solid), bundle_size()]
    if kinds:
        measures = [*kind_measures(filmed_kinds), *measures]
    name = "control" if photographs is None else "control-photographs"
    return BenchResult(name if suppress is None else f"{name}-suppress-{suppress}", measures)


def kind_measures(kinds: Sequence[FilmedKind]) -> list[Measure]:
    """The base's own kinds, in combinations that it never saw."""
    return [
        *Tally([kind.filmed.report for kind in kinds]).measures("", ""),
        *Tally([kind.filmed.report_off for kind in kinds]).measures("", "_off"),
        *Tally([kind.drawn for kind in kinds]).measures("drawn_", ""),
        Measure("class_accuracy", float(np.mean([kind.recognized for kind in kinds])), "0..1"),
        Measure("clip_seconds", float(np.mean([kind.filmed.seconds for kind in kinds])), "s"),
    ]


def subject_measures(subjects: Sequence[FilmedSubject]) -> list[Measure]:
    """Subjects that the base never saw, trained from about five pictures each."""
    filmed = [filmed for subject in subjects for filmed in subject.filmed]
    return [
        *Tally([clip.report for clip in filmed]).measures("subject_", ""),
        *Tally([clip.report_off for clip in filmed]).measures("subject_", "_off"),
        *identity_measures([subject.identity for subject in subjects]),
        Measure("drift", float(np.mean([shift for subject in subjects for shift in subject.shifts])), "CIE Lab"),
        Measure("finetune_seconds", float(np.mean([subject.training_seconds for subject in subjects])), "s"),
    ]


def bundle_size() -> Measure:
    """All files of the bundled model."""
    files = [path for path in source_named("toybox").folder.rglob("*") if path.is_file()]
    return Measure("bundle_mb", sum(path.stat().st_size for path in files) / 1e6, "MB")


def write_pictures(folder: Path, kinds: Sequence[FilmedKind], subjects: Sequence[FilmedSubject]) -> None:
    """Every fourth of the base's clips; one clip of each subject, beside two pictures that it was trained from."""
    if kinds:
        write_contact_sheet(folder / "base.png", Sheet([kind.filmed.row() for kind in kinds[::4]]))
    rows = [replace(subject.filmed[0].row(), pictures=subject.pictures[1:3]) for subject in subjects]
    write_contact_sheet(folder / "subjects.png", Sheet(rows))


# The parts that run in processes of their own


@cache
def _base(suppress: Suppress | None = None) -> Base:
    base = load_base(source_named("toybox"))
    if suppress is not None:
        base.settings = msgspec.structs.replace(base.settings, suppress=suppress)
    return base


@cache
def _classifier() -> KindClassifier:
    return KindClassifier.train(_base().vae)


def film_ordinary_clips() -> None:
    """What every training needs once."""
    ordinary_clips(_base(), _base().settings.full, lambda done, steps: None)
    generated_places(_base(), _base().settings.full, lambda done, steps: None)


def film_kind(number: int, suppress: Suppress | None = None) -> FilmedKind:
    """One of the base's held-out prompts."""
    filming = list(base_filmings())[number]
    assert filming.combination is not None
    looks = _looks_of_kind(*filming.combination[:2])
    filmed = _film_both(_base(suppress), filming, looks)
    found = [(f, frame.found) for f, frame in enumerate(filmed.report.subjects[0].frames) if frame.found is not None]
    named = _classifier().kind(filmed.frames[[f for f, _ in found]], [box for _, box in found]) if found else None
    return FilmedKind(filmed, _measure_drawn(filming, looks), named == filming.combination[0])


def learn_and_film(
    subject: TrainingSet, galleries: Mapping[str, Gallery], folder: Path, suppress: Suppress | None = None
) -> FilmedSubject:
    """Train one of the subjects and generate it on its four paths."""
    started = time.monotonic()
    weights = learn_set(subject, folder / subject.name)
    seconds = time.monotonic() - started
    tuned = _base.__wrapped__(suppress)  # one of its own
    load_subject(tuned, weights)
    looks = Appearance.from_pictures(subject.pictures, subject.masks)
    filmings = list(subject_filmings(subject, sha256_of(weights)))
    filmed = [_film_both(tuned, filming, looks) for filming in filmings]
    shifts = [color_shift(tuned, filming) for filming in list(base_filmings())[:DRIFT_CLIPS]]
    clips = [(each.frames, each.filming.boxes) for each in filmed]
    untrained = [(film_frames(_base(suppress), filming.spec), filming.boxes) for filming in filmings]
    identity = identity_of(_base(), subject, galleries, clips, untrained)
    return FilmedSubject(list(subject.pictures), filmed, seconds, shifts, identity)


def _film_both(base: Base, filming: Filming, looks: Appearance) -> Filmed:
    started = time.monotonic()
    frames = film_frames(base, filming.spec)
    seconds = time.monotonic() - started
    off = film_frames(base, without_control(filming.spec))
    return Filmed(filming, frames, measured(frames, filming, looks), measured(off, filming, looks), seconds)


def film_frames(base: Base, spec: GenerateSpec) -> NDArray[np.uint8]:
    return film(base, spec, lambda done, steps: None).numpy()


def _measure_drawn(filming: Filming, looks: Appearance) -> MotionReport:
    """A drawn clip of the same scene, on a way of its own, as the decoder shows it."""
    assert filming.combination is not None
    clip = draw_clip(kind_scene(*filming.combination), np.random.default_rng([31, filming.spec.seed]))
    latents = encode(_base(), clip.frames)
    boxes = [Box(*map(float, box)) for box in clip.boxes_xyxy]
    travel = clip.camera_px / (WIDTH_PX, HEIGHT_PX)
    camera = CameraPath([Offset(float(x), float(y)) for x, y in travel])
    return measured(decode(_base(), latents)[0].numpy(), replace(filming, boxes=boxes, camera=camera), looks)


def learn_set(
    subject: TrainingSet, folder: Path, recipe: str = "motionbooth", steps: int | None = None, seed: int = 0
) -> Path:
    """Train in `folder` as a job does; returns the subject's file. `seed`: 0 is the bench's own."""
    folder.mkdir()
    pictures = [
        Picture(_stored(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), folder), _stored(mask, folder))
        for picture, mask in zip(subject.pictures, subject.masks, strict=True)
    ]
    spec = TrainSpec(
        SubjectSpec(subject.name, TOKEN, subject.class_word, pictures), seed=3 + seed, steps=steps, recipe=recipe
    )
    return run(spec, lambda sha256: folder / sha256, folder, _Silent())["subject"]


def _stored(pixels: NDArray[np.uint8], folder: Path) -> str:
    data = cv2.imencode(".png", pixels)[1].tobytes()
    name = hashlib.sha256(data).hexdigest()
    (folder / name).write_bytes(data)
    return name


def color_shift(tuned: Base, filming: Filming) -> float:
    """How far a base kind's mean color, in the middle of its box, moved by learning a subject."""
    before, after = (_middle_lab(film_frames(base, filming.spec), filming.boxes) for base in (_base(), tuned))
    return float(np.linalg.norm(after - before))


class _Silent:
    """A Reporter that tells nobody."""

    def plan(self, stages: Sequence[Stage]) -> None:
        return

    def progress(self, stage: str, step: int, steps: int, note: str = "") -> None:
        return


def measured(frames: NDArray[np.uint8], filming: Filming, looks: Appearance) -> MotionReport:
    return motion_report(frames, [AskedSubject("subject", looks, filming.boxes)], filming.camera)


def _looks_of_kind(kind: str, color: str) -> Appearance:
    """Learned from drawn pictures of the kind, as a user's subject is from photographs."""
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
