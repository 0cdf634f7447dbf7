"""The cases of `bench control`: prompts that the bundled models were not trained on, moving boxes, panning cameras.

All of them follow from fixed seeds that were chosen before the first run.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import Box, CameraPath, Offset, Shot, SubjectTrack
from msgspec import structs

from motionbooth_lab.bench.subjects import TrainingSet
from motionbooth_lab.toybox.backgrounds import PLACES
from motionbooth_lab.toybox.draw import (
    HEIGHT_PX,
    MAX_PAN_PX,
    TOYBOX,
    WIDTH_PX,
    ClipFormat,
    held_out_combinations,
    kind_scene,
)

BASE_CASES = 32
TOKEN = "sks"

Combination = tuple[str, str, str]
"""(kind, color, background)."""


@dataclass(frozen=True)
class Case:
    """A clip to generate. `combination`: of the base model's own kinds; None for a trained subject."""

    spec: GenerateSpec
    boxes: list[Box]
    camera: CameraPath
    combination: Combination | None = None


def base_cases(clip_format: ClipFormat = TOYBOX) -> Iterator[Case]:
    """`BASE_CASES` of the held-out prompts, evenly spaced, each with its own seed, path and pan."""
    for number in range(BASE_CASES):
        rng = np.random.default_rng([17, number])
        yield _base_case(number, rng, 1000 + number, clip_format, clip_format)


def long_cases(count: int, clip_format: ClipFormat) -> Iterator[Case]:
    """So many of the held-out prompts, with paths, pans and seeds of their own. The path takes the whole clip."""
    path_format = ClipFormat(clip_format.frames)
    for number in range(count):
        rng = np.random.default_rng([43, number])
        case = _base_case(
            (number * BASE_CASES + BASE_CASES // 2) // count, rng, 7000 + number, clip_format, path_format
        )
        yield replace(case, spec=structs.replace(case.spec, long_shot="windows"))


def _base_case(
    number: int, rng: np.random.Generator, seed: int, clip_format: ClipFormat, path_format: ClipFormat
) -> Case:
    """`path_format` paces the subject's path."""
    held_out = held_out_combinations()
    combination = held_out[number * len(held_out) // BASE_CASES]
    scene = kind_scene(*combination)
    points = np.concatenate([part.points for part in scene.parts])
    extent = np.ptp(points, axis=0) / 2  # half width and height of the figure in its own units
    boxes, camera = random_track(extent, rng, path_format), random_pan(rng, clip_format)
    track = SubjectTrack(name=scene.phrase, class_word=scene.phrase, boxes=list(boxes))
    return Case(_spec(scene.caption, track, camera, seed, clip_format), boxes, camera, combination)


def subject_cases(subject: TrainingSet, weights: str, clip_format: ClipFormat = TOYBOX) -> Iterator[Case]:
    """A trained subject on four paths in four places. `weights`: SHA-256 of its file."""
    for number, place in enumerate(subject.places):
        rng = np.random.default_rng([23, sum(subject.name.encode()), number])
        boxes, camera = random_track(np.array([0.95, 1.0]), rng, clip_format), random_pan(rng, clip_format)
        track = SubjectTrack(subject.name, subject.class_word, list(boxes), TOKEN, weights)
        prompt = f"a {track.phrase} {PLACES[place]}"
        yield Case(_spec(prompt, track, camera, 2000 + number, clip_format), boxes, camera)


def random_track(extent: np.ndarray, rng: np.random.Generator, clip_format: ClipFormat = TOYBOX) -> list[Box]:
    """A box with the figure's aspect ratio on an eased, curved path across the frame, always fully inside it.

    `extent`: half width and half height of the figure in its own units, about 1.
    """
    half_px = rng.uniform(16, 21) * extent
    low, high = half_px + 1, np.array([WIDTH_PX, HEIGHT_PX]) - half_px - 1
    start = np.array([low[0], rng.uniform(low[1], high[1])])
    end = np.array([high[0], rng.uniform(low[1], high[1])])
    if rng.random() < 0.5:
        start, end = end, start
    bend = rng.uniform(low, high)
    share = np.linspace(0, 1, clip_format.frames)[:, None]
    share = share * share * (3 - 2 * share) * clip_format.pace
    centers = (1 - share) ** 2 * start + 2 * share * (1 - share) * bend + share**2 * end
    size = np.array([WIDTH_PX, HEIGHT_PX])
    return [Box(*map(float, (*((c - half_px) / size), *((c + half_px) / size)))) for c in centers]


def random_pan(rng: np.random.Generator, clip_format: ClipFormat = TOYBOX) -> CameraPath:
    """A steady pan of up to MAX_PAN_PX per frame at 8 fps: horizontal, vertical or both. One in eight stands still."""
    speed = clip_format.pace * rng.uniform(-MAX_PAN_PX, MAX_PAN_PX, 2)
    direction = int(rng.integers(8))
    if direction == 0:
        speed[:] = 0
    elif direction < 4:
        speed[1] = 0
    elif direction < 6:
        speed[0] = 0
    travel = np.arange(clip_format.frames)[:, None] * speed / (WIDTH_PX, HEIGHT_PX)
    return CameraPath([Offset(float(x), float(y)) for x, y in travel])


def without_control(spec: GenerateSpec) -> GenerateSpec:
    """The same clip with box control and camera control off."""
    return GenerateSpec(spec.shot, spec.prompt, seed=spec.seed, box_control=False, camera_control=False)


def _spec(prompt: str, track: SubjectTrack, camera: CameraPath, seed: int, clip_format: ClipFormat) -> GenerateSpec:
    shot = Shot("bench", 1, clip_format.frames, clip_format.fps, WIDTH_PX, HEIGHT_PX, camera, [track])
    return GenerateSpec(shot, prompt, seed=seed)
