"""`motionbooth bench control`: how well the bundled model keeps to boxes and camera paths.

For held-out prompts of its own kinds and for five subjects that it learns on the spot: the measures of `evaluation`,
and the same for the same seeds with both controls off (`_off`). `drawn_` is the most that the measures can show: drawn
clips of the same scenes, through the decoder.
"""

import hashlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from motionbooth_protocol.jobs import GenerateSpec, Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.motion import Box, CameraPath, Offset
from numpy.typing import NDArray
from rich.progress import Progress

from motionbooth.bench.kinds import KindClassifier
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.bench.pairs import TOKEN, Filming, base_filmings, subject_filmings, without_control
from motionbooth.bench.subjects import TrainingSet, unseen_subjects
from motionbooth.evaluation.obedience import Appearance
from motionbooth.evaluation.report import AskedSubject, MotionReport, motion_report
from motionbooth.models.registry import Base, load_base
from motionbooth.models.sources import source_named
from motionbooth.models.toybox.autoencoder import latents_of_frames
from motionbooth.models.toybox.backgrounds import PLACES
from motionbooth.models.toybox.draw import HEIGHT_PX, WIDTH_PX, draw_clip, has_contrast, kind_scene
from motionbooth.sampling import decode, film
from motionbooth.subject.ordinary import ordinary_clips
from motionbooth.subject.weights import load_subject
from motionbooth.work import run

DRIFT_CLIPS = 2
"""Clips of the base's own kinds that are filmed again after each fine-tuning."""


@dataclass
class Tally:
    """The reports of many clips, and how their figures are summed up."""

    reports: list[MotionReport] = field(default_factory=list)

    def measures(self, prefix: str, suffix: str) -> list[Measure]:
        """Means over the frames of all clips; the centre error is a median."""
        frames = [frame for report in self.reports for frame in report.subjects[0].frames]
        centre_errors = [frame.center_error for frame in frames if frame.center_error is not None]
        flow_errors = [frame.error_px for report in self.reports for frame in report.camera]
        figures = (
            ("iou", float(np.mean([frame.iou or 0.0 for frame in frames])), "0..1"),
            ("center_error", float(np.median(centre_errors)) if centre_errors else 1.0, "frame widths"),
            ("found_share", len(centre_errors) / len(frames), "0..1"),
            ("flow_error", float(np.mean(flow_errors)), "px a frame"),
        )
        return [Measure(f"{prefix}{name}{suffix}", value, unit) for name, value, unit in figures]


def bench_control() -> BenchResult:
    """Run the whole bench on the bundled model; about half an hour on two cores."""
    with Progress(transient=True) as progress, tempfile.TemporaryDirectory(prefix="motionbooth-bench-") as folder:
        bench = ControlBench(progress, Path(folder))
        measures = [*bench.base_measures(), *bench.subject_measures(), bench.bundle_size()]
    return BenchResult("control", measures)


class ControlBench:
    """One run of the bench: the model, the clock and where the pictures lie."""

    def __init__(self, progress: Progress, folder: Path) -> None:
        self._progress, self._folder = progress, folder
        self._source = source_named("toybox")
        self._base = load_base(self._source)
        self._clip_seconds: list[float] = []

    def base_measures(self) -> list[Measure]:
        """The base's own kinds, in combinations that it never saw."""
        controlled, free, drawn = Tally(), Tally(), Tally()
        classifier = KindClassifier.train(self._base.vae)
        right, named = 0, 0
        for filming in self._progress.track(list(base_filmings()), description="held-out prompts"):
            assert filming.combination is not None
            looks = _looks_of_kind(*filming.combination[:2])
            frames = self._film(self._base, filming.spec)
            report = _measure(frames, filming, looks)
            drawn.reports.append(self._measure_drawn(filming, looks))
            controlled.reports.append(report)
            free.reports.append(_measure(self._film(self._base, without_control(filming.spec)), filming, looks))
            found = [(f, frame.found) for f, frame in enumerate(report.subjects[0].frames) if frame.found is not None]
            named += 1
            if found:
                kind = classifier.kind(frames[[f for f, _ in found]], [box for _, box in found])
                right += kind == filming.combination[0]
        return [
            *controlled.measures("", ""),
            *free.measures("", "_off"),
            *drawn.measures("drawn_", ""),
            Measure("class_accuracy", right / named, "0..1"),
        ]

    def subject_measures(self) -> list[Measure]:
        """Subjects that the base never saw, learned from five pictures each."""
        controlled, free = Tally(), Tally()
        training_seconds, shifts = [], []
        ordinary_clips(self._base, self._base.settings.lora.clips, lambda done, steps: None)
        for subject in self._progress.track(unseen_subjects(), description="subjects"):
            started = time.monotonic()
            weights = self._learn(subject)
            training_seconds.append(time.monotonic() - started)
            tuned = load_base(self._source)
            load_subject(tuned, weights)
            looks = Appearance.learn(subject.pictures, subject.masks)
            for filming in subject_filmings(subject, _sha256(weights)):
                controlled.reports.append(_measure(self._film(tuned, filming.spec), filming, looks))
                free.reports.append(_measure(self._film(tuned, without_control(filming.spec)), filming, looks))
            shifts += [self._colour_shift(tuned, filming) for filming in list(base_filmings())[:DRIFT_CLIPS]]
        return [
            *controlled.measures("subject_", ""),
            *free.measures("subject_", "_off"),
            Measure("drift", float(np.mean(shifts)), "CIE Lab"),
            Measure("finetune_seconds", float(np.mean(training_seconds)), "s"),
            Measure("clip_seconds", float(np.mean(self._clip_seconds)), "s"),
        ]

    def bundle_size(self) -> Measure:
        """All files of the bundled model."""
        files = [path for path in self._source.folder.rglob("*") if path.is_file()]
        return Measure("bundle_mb", sum(path.stat().st_size for path in files) / 1e6, "MB")

    def _film(self, base: Base, spec: GenerateSpec) -> NDArray[np.uint8]:
        started = time.monotonic()
        frames = film(base, spec, lambda done, steps: None).numpy()
        self._clip_seconds.append(time.monotonic() - started)
        return frames

    def _measure_drawn(self, filming: Filming, looks: Appearance) -> MotionReport:
        """A drawn clip of the same scene, on a way of its own, as the decoder shows it."""
        assert filming.combination is not None
        clip = draw_clip(kind_scene(*filming.combination), np.random.default_rng([31, filming.spec.seed]))
        latents = torch.from_numpy(latents_of_frames(clip.frames)).transpose(0, 1)[None]  # (1, C, F, h, w)
        boxes = [Box(*map(float, box)) for box in clip.boxes_xyxy]
        travel = clip.camera_px / (WIDTH_PX, HEIGHT_PX)
        camera = CameraPath([Offset(float(x), float(y)) for x, y in travel])
        return _measure(decode(self._base, latents)[0].numpy(), replace(filming, boxes=boxes, camera=camera), looks)

    def _learn(self, subject: TrainingSet) -> Path:
        """Train as a job does; returns the subject's file."""
        scratch = self._folder / subject.name
        scratch.mkdir()
        pictures = [
            Picture(self._stored(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)), self._stored(mask))
            for picture, mask in zip(subject.pictures, subject.masks, strict=True)
        ]
        spec = TrainSpec(SubjectSpec(subject.name, TOKEN, subject.class_word, pictures), seed=3)
        return run(spec, lambda sha256: self._folder / sha256, scratch, _Silent())["subject"]

    def _stored(self, pixels: NDArray[np.uint8]) -> str:
        data = cv2.imencode(".png", pixels)[1].tobytes()
        name = hashlib.sha256(data).hexdigest()
        (self._folder / name).write_bytes(data)
        return name

    def _colour_shift(self, tuned: Base, filming: Filming) -> float:
        """How far a base kind's mean colour, in the middle of its box, moved by learning a subject."""
        before, after = (_middle_lab(self._film(base, filming.spec), filming.boxes) for base in (self._base, tuned))
        return float(np.linalg.norm(after - before))


class _Silent:
    """A Reporter that tells nobody."""

    def progress(self, stage: str, step: int, steps: int, note: str = "") -> None:
        return


def _measure(frames: NDArray[np.uint8], filming: Filming, looks: Appearance) -> MotionReport:
    return motion_report(frames, [AskedSubject("subject", looks, filming.boxes)], filming.camera)


def _looks_of_kind(kind: str, colour: str) -> Appearance:
    """Learned from drawn pictures of the kind, as a user's subject is from photographs."""
    places = [place for place in PLACES if has_contrast(colour, place)][:4]
    clips = [
        draw_clip(kind_scene(kind, colour, place), np.random.default_rng([29, number]))
        for number, place in enumerate(places)
    ]
    return Appearance.learn([clip.frames[0] for clip in clips], [clip.masks[0] for clip in clips])


def _middle_lab(frames: NDArray[np.uint8], boxes: Sequence[Box]) -> NDArray[np.float64]:
    """Mean CIE Lab colour of the middle quarter of each frame's box."""
    height, width = frames.shape[1:3]
    means = []
    for frame, box in zip(frames, boxes, strict=True):
        lab = cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        (x, y), half_w, half_h = box.center, (box.x2 - box.x1) / 4, (box.y2 - box.y1) / 4
        rows = slice(int((y - half_h) * height), int((y + half_h) * height) + 1)
        columns = slice(int((x - half_w) * width), int((x + half_w) * width) + 1)
        means.append(lab[rows, columns].mean((0, 1)))
    return np.mean(means, 0)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
