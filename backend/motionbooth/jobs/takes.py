"""Takes: one shot filmed from several seeds, each measured, the best first."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec
from numpy.typing import NDArray
from rich.table import Table

from motionbooth.evaluation.report import MotionReport, obedience_order, shot_report, write_report
from motionbooth.generation.sampling import film_takes
from motionbooth.generation.video import write_clip
from motionbooth.jobs.model_cache import WarmBase
from motionbooth.jobs.runner import known_looks
from motionbooth.models.registry import Base
from motionbooth.models.sources import source_named
from motionbooth.progress.reporting import Reporter
from motionbooth.progress.stages import generate_stages


@dataclass(frozen=True)
class Take:
    """A clip on disk, filmed from `seed`, and what was measured on it."""

    seed: int
    clip: Path
    report: MotionReport


def film_best_of(
    spec: GenerateSpec, count: int, together: int, out: Path, blob_path: Callable[[str], Path], reporter: Reporter
) -> list[Take]:
    """Film `count` takes from successive seeds, `spec.seed` the first, and rank them: the best first.

    The model is loaded once. `together` takes are filmed in one batch, or fewer where a GPU's memory holds no more; 1
    gives each the very bits of a job of its own. One take is `out` itself; several are named after it, their rank and
    their seed, each with its report as JSON beside it. Ctrl+C leaves the takes out that are not filmed yet. Raises
    InvalidInput for an `out` that is no mp4, and MotionBoothError as `work.run` does.
    """
    if out.suffix.lower() != ".mp4":
        raise InvalidInput("A clip's file ends in .mp4, got {out}.", out=out)
    reporter.plan(generate_stages(source_named(spec.model).settings, spec, count))
    reporter.progress("loading the model", 0, 1)
    base = WarmBase().knowing(spec, blob_path)
    reporter.progress("loading the model", 1, 1)
    looks = known_looks(spec.shot, blob_path)
    _make_folder(out.parent)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}-") as scratch:
        filmed: list[Take] = []
        try:
            for seed, frames in _film(base, spec, range(spec.seed, spec.seed + count), together, reporter):
                path = Path(scratch) / f"{seed}.mp4"
                reporter.progress("encoding", len(filmed), count)
                write_clip(path, frames, spec.shot.fps, spec.shot.scene_frames)
                reporter.progress("encoding", len(filmed) + 1, count)
                reporter.progress("measuring", len(filmed), count)
                filmed.append(Take(seed, path, shot_report(frames, spec.shot, looks)))
                reporter.progress("measuring", len(filmed), count)
        except KeyboardInterrupt:
            if not filmed:
                raise
        filmed.sort(key=lambda take: obedience_order(take.report))
        names = (
            [out] if count == 1 else [out.with_stem(f"{out.stem}_{i}_seed{t.seed}") for i, t in enumerate(filmed, 1)]
        )
        return [_placed(take, clip) for take, clip in zip(filmed, names, strict=True)]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(
            "The folder {folder} cannot be made ({reason}). Name another one.", folder=folder, reason=error.strerror
        ) from error


def _film(
    base: Base, spec: GenerateSpec, seeds: Sequence[int], together: int, reporter: Reporter
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Each seed with the model's frames of its take. Where memory does not hold `together` of them, fewer at a time."""
    first = 0
    while first < len(seeds):
        batch = seeds[first : first + together]

        def on_step(done: int, steps: int, first: int = first, size: int = len(batch)) -> None:
            reporter.progress("sampling", first * steps + done * size, len(seeds) * steps)

        def on_frame(done: int, count: int, first: int = first, size: int = len(batch)) -> None:
            frames = count // size
            reporter.progress("decoding", first * frames + done, len(seeds) * frames)

        try:
            clips = film_takes(base, spec, batch, on_step, on_frame=on_frame).numpy()
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            together = len(batch) // 2
            continue
        yield from zip(batch, clips, strict=True)
        first += len(batch)


def _placed(take: Take, clip: Path) -> Take:
    """The take under its own name, its report beside it."""
    take.clip.replace(clip)
    write_report(clip.with_suffix(".report.json"), take.report)
    return replace(take, clip=clip)


def takes_table(takes: Sequence[Take]) -> Table:
    """For people, the best first."""
    table = Table(title="takes, the best first")
    for column in ("clip", "seed", "overlap with the boxes", "found", "camera off by"):
        table.add_column(column, justify="left" if column == "clip" else "right")
    for take in takes:
        overlap, found = (
            _mean([value for subject in take.report.subjects if (value := getattr(subject, name)) is not None])
            for name in ("iou", "found_share")
        )
        flow_error = take.report.flow_error_px
        off = "no texture" if flow_error is None else f"{flow_error:.2f} px a frame"
        table.add_row(take.clip.name, str(take.seed), overlap, found, off)
    return table


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.0%}" if values else "-"
