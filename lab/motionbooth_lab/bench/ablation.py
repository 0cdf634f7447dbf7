"""`motionbooth bench ablation`: what each loss contributes on the bundled model.

Every recipe trains on the same pictures with the same seeds. For each recipe the bench reports means over subjects (the
first of those of `bench control`), each trained with several seeds. The 95 % confidence intervals are Student's t over
the subjects' means, because the seeds of one subject are not independent. With one subject they are over its seeds.

- `iou_`, `found_`: box adherence, as in `bench control`
- `likeness_`: pixel-wise correlation of the box's content with the training pictures (-1..1); the only figure that sees
  shape and face
- `leak_`: likeness of the same clip when its prompt names the class without the token; lower is better
- `drift_`: how far the color of one of the base's own kinds moved (CIE Lab); lower is better
- `flow_error_`: error of the camera path (pixels per frame); lower is better

`_untrained` are the same figures of the base model, which has never seen the subject.

Each finished run is written to the user's cache at once, so an interrupted bench continues where it stopped.
"""

import hashlib
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import platformdirs
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.evaluation.report import MotionReport
from motionbooth.finetuning.recipes import RECIPES, with_recipe
from motionbooth.models.registry import load_base
from motionbooth.models.settings import TrainSettings
from motionbooth.models.sources import files_digest, source_named
from motionbooth.models.subject_weights import load_subject
from motionbooth.pictures.appearance import Appearance
from motionbooth_protocol.motion import Box
from numpy.typing import NDArray
from rich.progress import Progress
from scipy import stats

from motionbooth_lab.bench.cases import Case, base_cases, subject_cases
from motionbooth_lab.bench.control import (
    PROCESSES,
    color_shift,
    generate_frames,
    generate_prior_clips,
    train_subject,
)
from motionbooth_lab.bench.motion import clip_measures, measured
from motionbooth_lab.bench.subjects import TrainingSet, unseen_subjects

UNTRAINED = "untrained"
SEED_STEP = 10_000
"""Larger than the distance between the seeds of one subject's clips."""

LEAK_CLIPS, DRIFT_CLIPS = 1, 1
THUMBNAIL_PX = 24
"""Side of the squares that are correlated: about the size of a subject in toybox's clips."""


@dataclass(frozen=True)
class Run:
    """One training.

    `subject`: index into `unseen_subjects()`. `seed`: 0 is the bench's own. `steps`: None is the base's own number.
    """

    recipe: str
    subject: int
    seed: int = 0
    steps: int | None = None


class RunFigures(msgspec.Struct, frozen=True):
    """What one training achieved; the fields are explained in the module's docstring. None: could not be measured."""

    iou: float
    found: float
    likeness: float
    leak: float
    drift: float
    flow_error: float | None


UNITS = {"iou": "0..1", "found": "0..1", "likeness": "-1..1", "leak": "-1..1", "drift": "CIE Lab"}
UNITS |= {"flow_error": "px a frame"}


def bench_ablation(
    subjects: int, steps: int | None, recipes: Sequence[str] = tuple(RECIPES), seeds: int = 1, fresh: bool = False
) -> BenchResult:
    """Run the bench: about four minutes for each recipe, subject and seed; two run at a time, with one thread each.

    `steps`: of each training; None is the base's own number. `fresh`: ignore the results of earlier runs.
    """
    names = [UNTRAINED, *recipes]
    runs = [Run(name, subject, seed, steps) for name in names for subject in range(subjects) for seed in range(seeds)]
    figures = {} if fresh else read_results(runs)
    missing = [run for run in runs if run not in figures]
    with Progress(transient=True) as progress:
        bar = progress.add_task("training", total=len(runs), completed=len(figures))
        if missing:
            pool = ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn"), end_with_parent)
            try:
                pool.submit(generate_prior_clips).result()  # once, before two trainings make them at the same time
                futures = {pool.submit(run_and_store, run): run for run in missing}
                for future in as_completed(futures):
                    figures[futures[future]] = future.result()
                    progress.advance(bar)
            finally:
                pool.shutdown(cancel_futures=True)
    measures = []
    for name in names:
        by_subject = [
            [figures[Run(name, subject, seed, steps)] for seed in range(seeds)] for subject in range(subjects)
        ]
        measures += recipe_measures(name, by_subject)
    return BenchResult("ablation", measures)


def end_with_parent() -> None:
    """End this process of the pool when the bench is killed; results that are finished are already in the cache."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def recipe_measures(recipe: str, figures: Sequence[Sequence[RunFigures]]) -> list[Measure]:
    """The means and intervals of one recipe; `figures[subject][seed]`."""
    name = recipe.replace("-", "_")
    return [
        with_interval(
            f"{figure}_{name}", _independent([[_value(one, figure) for one in seeds] for seeds in figures]), unit
        )
        for figure, unit in UNITS.items()
    ]


def with_interval(name: str, values: Sequence[float], unit: str) -> Measure:
    """The mean of independent `values` with its 95 % confidence interval (Student's t). One value has no interval."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Measure(name, mean, unit)
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Measure(name, mean, unit, mean - half, mean + half)


def _value(figures: RunFigures, name: str) -> float:
    value = getattr(figures, name)
    return float("nan") if value is None else value


def _independent(values: Sequence[Sequence[float]]) -> list[float]:
    """`values[subject][seed]`: the mean of each subject, or the values of the only one."""
    if len(values) == 1:
        return list(values[0])
    return [float(np.nanmean(of_subject)) for of_subject in values]


def read_results(runs: Sequence[Run]) -> dict[Run, RunFigures]:
    """The cached results; a missing or damaged file is left out."""
    found = {}
    for run in runs:
        try:
            found[run] = msgspec.json.decode(result_file(run).read_bytes(), type=RunFigures)
        except (FileNotFoundError, msgspec.DecodeError):
            continue
    return found


def result_file(run: Run) -> Path:
    """Where the result of `run` is cached.

    The name depends on the model's files, the training settings with the recipe's changes, and the subject's pictures.
    Settings at their defaults are left out, so that a new setting does not invalidate the results.
    """
    source = source_named("toybox")
    subject = unseen_subjects()[run.subject]
    settings = source.settings.full if run.recipe == UNTRAINED else with_recipe(source.settings.full, run.recipe)
    model = files_digest([path for path in sorted(source.folder.rglob("*")) if path.is_file()])
    digest = hashlib.sha256(msgspec.json.encode([model, changed_settings(settings), run.steps]))
    for pixels in (*subject.pictures, *subject.masks):
        digest.update(pixels.tobytes())
    name = f"{run.recipe}-{subject.name}-{run.seed}-{digest.hexdigest()[:16]}.json"
    return platformdirs.user_cache_path("motionbooth") / "bench_ablation" / name


def changed_settings(settings: TrainSettings) -> dict[str, object]:
    """The settings that differ from their defaults."""
    fields = msgspec.structs.fields(settings)
    return {field.name: value for field in fields if (value := getattr(settings, field.name)) != field.default}


def run_and_store(run: Run) -> RunFigures:
    """Carry out `run` and write its result to the cache."""
    figures = carry_out(run)
    file = result_file(run)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_bytes(msgspec.json.encode(figures))
    partial.replace(file)
    return figures


def carry_out(run: Run) -> RunFigures:
    """Train one subject by one recipe (UNTRAINED: not at all), and generate clips of it as `bench control` does."""
    subject = unseen_subjects()[run.subject]
    tuned = load_base(source_named("toybox"))
    if run.recipe != UNTRAINED:
        with tempfile.TemporaryDirectory(prefix="motionbooth-bench-") as folder:
            load_subject(tuned, train_subject(subject, Path(folder) / "training", run.recipe, run.steps, run.seed))
    appearance = Appearance.from_pictures(subject.pictures, subject.masks)
    cases = [with_seed(case, run.seed) for case in subject_cases(subject, weights="0" * 64)]
    clips = [generate_frames(tuned, case.spec) for case in cases]
    others = [generate_frames(tuned, without_token(case).spec) for case in cases[:LEAK_CLIPS]]

    def likeness_of(clips: Sequence[NDArray[np.uint8]]) -> float:
        return float(np.mean([likeness(clip, case.boxes, subject) for clip, case in zip(clips, cases, strict=False)]))

    return run_figures(
        [measured(clip, case, appearance) for clip, case in zip(clips, cases, strict=True)],
        likeness=likeness_of(clips),
        leak=likeness_of(others),
        drift=float(np.mean([color_shift(tuned, case) for case in list(base_cases())[:DRIFT_CLIPS]])),
    )


def run_figures(reports: Sequence[MotionReport], likeness: float, leak: float, drift: float) -> RunFigures:
    """Sum up the motion reports of a run's clips."""
    measures = BenchResult("", clip_measures(reports))
    flow_error = measures.value("flow_error")
    return RunFigures(
        iou=measures.value("iou"),
        found=measures.value("found_share"),
        likeness=likeness,
        leak=leak,
        drift=drift,
        flow_error=None if np.isnan(flow_error) else flow_error,
    )


def with_seed(case: Case, seed: int) -> Case:
    """The same boxes and camera with another seed; 0 changes nothing."""
    spec = case.spec
    return replace(case, spec=msgspec.structs.replace(spec, seed=spec.seed + SEED_STEP * seed))


def without_token(case: Case) -> Case:
    """The same clip with the subject's class word only, without its token."""
    spec = case.spec
    (track,) = spec.shot.subjects
    shot = msgspec.structs.replace(spec.shot, subjects=[msgspec.structs.replace(track, token="")])
    prompt = spec.prompt.replace(f"{track.token} ", "")
    return replace(case, spec=msgspec.structs.replace(spec, shot=shot, prompt=prompt))


def likeness(clip: NDArray[np.uint8], boxes: Sequence[Box], subject: TrainingSet) -> float:
    """Mean over the frames of the best pixel-wise correlation with any of the training pictures (-1..1).

    clip (F, H, W, 3). Only the subject's pixels count. The mean of each color channel over these pixels is subtracted,
    so a uniform patch of the right color does not correlate.
    """
    thumbnails = [_thumbnail(picture, mask) for picture, mask in zip(subject.pictures, subject.masks, strict=True)]
    height, width = clip.shape[1:3]
    found = []
    for frame, box in zip(clip, boxes, strict=True):
        x1, y1, x2, y2 = (round(edge * size) for edge, size in zip(box.as_tuple(), (width, height) * 2, strict=True))
        seen = _resized(frame[max(y1, 0) : y2, max(x1, 0) : x2]).astype(np.float64)
        found.append(max(_correlation(seen[mask], thumb[mask]) for thumb, mask in thumbnails))
    return float(np.mean(found))


def _thumbnail(picture: NDArray[np.uint8], mask: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The subject's bounding rectangle scaled to a small square (N, N, 3), and its mask (N, N)."""
    rows, columns = np.nonzero(mask)
    part = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    return _resized(picture[part]).astype(np.float64), _resized(mask[part]) > 127


def _resized(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.resize(picture, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Pearson's correlation of two lists of pixels (N, 3), each channel centered separately."""
    a, b = a - a.mean(0), b - b.mean(0)
    return float((a * b).sum() / max(np.sqrt((a**2).sum() * (b**2).sum()), 1e-9))
