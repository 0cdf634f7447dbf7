"""`motionbooth bench ablation`: does each loss earn its place on the bundled model?

Every recipe learns from the same pictures and seeds.

For each recipe, means over subjects that it learned (the first of those of `bench control`), each from several seeds,
with intervals of 95 % confidence by Student's t over the subjects' means (a subject's seeds are not independent of each
other; with one subject the interval is over its seeds):

- `iou_`, `found_`: box obedience, as `bench control` measures it
- `likeness_`: correlation of what is in the asked box with the training pictures, pixel for pixel (-1..1): the one
  figure that sees shape and face
- `leak_`: likeness of what comes when the class is filmed without the token; less is better
- `drift_`: how far one of the base's own kinds changes colour (CIE Lab); less is better
- `flow_error_`: the camera's path (px a frame); less is better

`_untrained` are the same figures of the base, which has never seen the subject.
"""

import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
from motionbooth.bench.measures import BenchResult, Measure, with_interval
from motionbooth.evaluation.report import MotionReport
from motionbooth.finetuning.recipes import RECIPES
from motionbooth.models.registry import load_base
from motionbooth.models.sources import source_named
from motionbooth.models.subject_weights import load_subject
from motionbooth.pictures.appearance import Appearance
from motionbooth_protocol.motion import Box
from numpy.typing import NDArray
from rich.progress import Progress

from motionbooth_lab.bench.control import (
    PROCESSES,
    Tally,
    colour_shift,
    film_frames,
    film_ordinary_clips,
    learn_set,
    measured,
)
from motionbooth_lab.bench.pairs import Filming, base_filmings, subject_filmings
from motionbooth_lab.bench.subjects import TrainingSet, unseen_subjects

UNTRAINED = "untrained"
SEED_STEP = 10_000
"""More than the seeds of one subject's clips are apart."""

LEAK_CLIPS, DRIFT_CLIPS = 1, 1
THUMB_PX = 24
"""Side of the squares that are correlated: about the size at which toybox films a subject."""


@dataclass(frozen=True)
class Learned:
    """What one recipe made of one subject."""

    reports: list[MotionReport]
    likeness: float
    leak: float
    drift: float


def bench_ablation(
    subjects: int, steps: int | None, recipes: Sequence[str] = tuple(RECIPES), seeds: int = 1
) -> BenchResult:
    """About 10 minutes for two subjects and one seed, in two processes of one thread each.

    `steps`: None is the base's own. `seeds`: of each training and its clips.
    """
    recipes = [UNTRAINED, *recipes]
    with (
        Progress(transient=True) as progress,
        tempfile.TemporaryDirectory(prefix="motionbooth-bench-") as folder,
        ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool,
    ):
        bar = progress.add_task("learning", total=len(recipes) * subjects * seeds)
        pool.submit(film_ordinary_clips).result()  # once, before two trainings film them both
        futures = {
            recipe: [
                [pool.submit(learn_with, recipe, number, steps, Path(folder), seed) for seed in range(seeds)]
                for number in range(subjects)
            ]
            for recipe in recipes
        }
        learned: dict[str, list[list[Learned]]] = {recipe: [[] for _ in range(subjects)] for recipe in recipes}
        for recipe, of_recipe in futures.items():
            for of_subject, done in zip(of_recipe, learned[recipe], strict=True):
                for future in of_subject:
                    done.append(future.result())
                    progress.advance(bar)
    return BenchResult("ablation", [measure for recipe in recipes for measure in summed_up(recipe, learned[recipe])])


def summed_up(recipe: str, learned: Sequence[Sequence[Learned]]) -> list[Measure]:
    """The figures of one recipe; `learned[subject][seed]`."""
    name = recipe.replace("-", "_")
    units = {"iou": "0..1", "found": "0..1", "likeness": "-1..1", "leak": "-1..1", "drift": "CIE Lab"}
    units |= {"flow_error": "px a frame"}
    runs = [[_figures(one) for one in of_subject] for of_subject in learned]
    return [
        with_interval(f"{figure}_{name}", _independent([[one[figure] for one in seeds] for seeds in runs]), unit)
        for figure, unit in units.items()
    ]


def _figures(learned: Learned) -> dict[str, float]:
    """Of one subject, trained once."""
    tally = BenchResult("", Tally(learned.reports).measures("", ""))
    measured_on_clips = {"iou": "iou", "found": "found_share", "flow_error": "flow_error"}
    own = {"likeness": learned.likeness, "leak": learned.leak, "drift": learned.drift}
    return own | {figure: tally.value(name) for figure, name in measured_on_clips.items()}


def _independent(values: Sequence[Sequence[float]]) -> list[float]:
    """`values[subject][seed]`: the mean of each subject, or those of the only one."""
    if len(values) == 1:
        return list(values[0])
    return [float(np.nanmean(of_subject)) for of_subject in values]


def learn_with(recipe: str, number: int, steps: int | None, folder: Path, seed: int = 0) -> Learned:
    """Learn one subject by one recipe (or not at all: UNTRAINED), and generate clips of it as `bench control` does.

    `seed`: 0 is the bench's own, of the training and of the clips.
    """
    subject = unseen_subjects()[number]
    tuned = load_base(source_named("toybox"))
    if recipe != UNTRAINED:
        load_subject(tuned, learn_set(subject, folder / f"{recipe}-{subject.name}-{seed}", recipe, steps, seed))
    looks = Appearance.from_pictures(subject.pictures, subject.masks)
    filmings = [with_seed(filming, seed) for filming in subject_filmings(subject, weights="0" * 64)]
    clips = [film_frames(tuned, filming.spec) for filming in filmings]
    others = [film_frames(tuned, without_token(filming).spec) for filming in filmings[:LEAK_CLIPS]]

    def likeness_of(films: Sequence[NDArray[np.uint8]]) -> float:
        return float(np.mean([likeness(film, of.boxes, subject) for film, of in zip(films, filmings, strict=False)]))

    return Learned(
        reports=[measured(clip, filming, looks) for clip, filming in zip(clips, filmings, strict=True)],
        likeness=likeness_of(clips),
        leak=likeness_of(others),
        drift=float(np.mean([colour_shift(tuned, filming) for filming in list(base_filmings())[:DRIFT_CLIPS]])),
    )


def with_seed(filming: Filming, seed: int) -> Filming:
    """The same boxes and camera from another seed; 0 leaves it as it is."""
    spec = filming.spec
    return replace(filming, spec=msgspec.structs.replace(spec, seed=spec.seed + SEED_STEP * seed))


def without_token(filming: Filming) -> Filming:
    """The same film of any other member of the subject's class."""
    spec = filming.spec
    (track,) = spec.shot.subjects
    shot = msgspec.structs.replace(spec.shot, subjects=[msgspec.structs.replace(track, token="")])
    prompt = spec.prompt.replace(f"{track.token} ", "")
    return replace(filming, spec=msgspec.structs.replace(spec, shot=shot, prompt=prompt))


def likeness(clip: NDArray[np.uint8], boxes: Sequence[Box], subject: TrainingSet) -> float:
    """Mean over the frames of the best correlation with any of the training pictures, each pixel against its own.

    clip (F, H, W, 3). Only the subject's own pixels count; each colour channel about its mean over them, so that a blot
    of the right colours alone is not like it.
    """
    thumbs = [_thumb(picture, mask) for picture, mask in zip(subject.pictures, subject.masks, strict=True)]
    height, width = clip.shape[1:3]
    found = []
    for frame, box in zip(clip, boxes, strict=True):
        x1, y1, x2, y2 = (round(edge * size) for edge, size in zip(box.as_tuple(), (width, height) * 2, strict=True))
        seen = _resized(frame[max(y1, 0) : y2, max(x1, 0) : x2]).astype(np.float64)
        found.append(max(_correlation(seen[mask], thumb[mask]) for thumb, mask in thumbs))
    return float(np.mean(found))


def _thumb(picture: NDArray[np.uint8], mask: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The subject cut out along its bounds, as a small square, and which of its pixels are the subject's."""
    rows, columns = np.nonzero(mask)
    part = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    return _resized(picture[part]).astype(np.float64), _resized(mask[part]) > 127


def _resized(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.resize(picture, (THUMB_PX, THUMB_PX), interpolation=cv2.INTER_AREA)


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Of two lists of pixels (N, 3)."""
    a, b = a - a.mean(0), b - b.mean(0)
    return float((a * b).sum() / max(np.sqrt((a**2).sum() * (b**2).sum()), 1e-9))
