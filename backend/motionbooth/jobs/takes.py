"""Takes: one shot generated from several seeds, each measured, the best first."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.limits import MAX_SEED
from rich.table import Table
from torch import Tensor

from motionbooth.evaluation.contributions import clip_report
from motionbooth.evaluation.report import MotionReport, adherence_order, write_report
from motionbooth.generation.batches import in_batches
from motionbooth.generation.finishing import Finishing
from motionbooth.generation.masters import check_master, move_master, write_master
from motionbooth.generation.sampling import generate_exactly, in_eight_bits
from motionbooth.generation.video import write_clip
from motionbooth.jobs.model_cache import ModelCache
from motionbooth.jobs.runner import subject_appearances
from motionbooth.models.memory.options import Computing
from motionbooth.models.memory.plans import is_out_of_memory, retry_note
from motionbooth.models.sources import source_named
from motionbooth.progress import stages
from motionbooth.progress.reporting import OnProgress, Reporter


@dataclass(frozen=True)
class Take:
    """A clip on disk, generated from `seed`, and its motion report."""

    seed: int
    clip: Path
    report: MotionReport


def generate_best_of(
    spec: GenerateSpec,
    count: int,
    batch_size: int,
    out: Path,
    blob_path: Callable[[str], Path],
    reporter: Reporter,
    computing: Computing | None = None,
) -> list[Take]:
    """Generate `count` takes from successive seeds, starting with `spec.seed`, and rank them, the best first.

    The seed after the largest is 0. The model is loaded once. Takes are generated in batches of `batch_size`, or
    smaller ones if a GPU's memory does not hold as many; with 1, each has the same bits as from a separate job. A
    single take is written to `out`; several have their rank and seed appended to its name. Each take's report is
    written as JSON beside it, and so is the master that the spec names. Ctrl+C keeps the takes that are finished, and
    so does an error, which is raised. If not even a single take fits the memory, the model is loaded once more with the
    next smaller memory plan. `computing`: by default as the environment says. Raises InvalidInput if `out` is not an
    mp4, and MotionBoothError as `run_job` does.
    """
    if out.suffix.lower() != ".mp4":
        raise InvalidInput("The file of a clip must end in .mp4, not {out}.", out=out)
    source, shot = source_named(spec.model), spec.shot
    settings, finishing = source.settings, Finishing.of(spec)
    size = finishing.size_of(settings.width, settings.height)
    if spec.master is not None:
        check_master(spec.master, size, shot.scene_frames)
    reporter.plan(stages.generate_stages(settings, spec, count, source.frame_step))
    reporter.progress(stages.LOADING, 0, 1)
    cache = ModelCache(computing)
    finishing.to(cache.get(spec, blob_path).device)
    reporter.progress(stages.LOADING, 1, 1)
    appearances = subject_appearances(spec.shot, blob_path)
    out.parent.mkdir(parents=True, exist_ok=True)
    takes: list[Take] = []
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}-") as scratch:
        try:
            for seed, exact in _generate(cache, spec, count, batch_size, reporter, blob_path):
                frames = in_eight_bits(exact).numpy()
                path = Path(scratch) / f"{seed}.mp4"
                shown, exactly_shown = finishing.frames(frames, exact.numpy(), shot.scene_frames)
                on_encoded, on_written = (
                    _on_frame(stage, len(takes), count, reporter) for stage in (stages.ENCODING, stages.MASTER)
                )
                write_clip(path, shown, shot.fps, shot.scene_frames, on_encoded)
                if spec.master is not None:
                    write_master(spec.master, path, exactly_shown, shot, on_written)
                reporter.progress(stages.MEASURING, len(takes), count)
                report = clip_report(cache.base, spec, frames, appearances, blob_path)
                write_report(_report_of(path), report)
                takes.append(Take(seed, path, report))
                reporter.progress(stages.MEASURING, len(takes), count)
        except KeyboardInterrupt:
            if not takes:
                raise
        finally:
            takes = _placed(spec, takes, out, count)
    return takes


def _placed(spec: GenerateSpec, takes: Sequence[Take], out: Path, count: int) -> list[Take]:
    """The takes that are finished, the best first, moved to their final names."""
    ranked = sorted(takes, key=lambda take: adherence_order(take.report))
    if count > 1:
        names = [out.with_stem(f"{out.stem}_{rank}_seed{take.seed}") for rank, take in enumerate(ranked, start=1)]
    else:
        names = [out] * len(ranked)
    return [_moved(spec, *pair) for pair in zip(ranked, names, strict=True)]


def _generate(
    cache: ModelCache,
    spec: GenerateSpec,
    count: int,
    batch_size: int,
    reporter: Reporter,
    blob_path: Callable[[str], Path],
) -> Iterator[tuple[int, Tensor]]:
    """Each seed with the model's exact frames (F, H, W, 3) of its take; progress is reported over all takes."""
    seeds = [(spec.seed + index) % (MAX_SEED + 1) for index in range(count)]
    retried = False

    def sample(batch: Sequence[int], first: int) -> Tensor:
        nonlocal retried
        try:
            return generated(batch, first)
        except Exception as error:
            if retried or len(batch) > 1 or not is_out_of_memory(error) or (plans := cache.smaller_plan()) is None:
                raise
        retried = True
        cache.clear()
        reporter.progress(stages.LOADING, 0, 1, retry_note(plans[0].name, plans[1].name))
        cache.get(spec, blob_path, plans[1])
        return generated(batch, first)

    def generated(batch: Sequence[int], first: int) -> Tensor:
        def on_step(done: int, steps: int) -> None:
            reporter.progress(stages.SAMPLING, first * steps + done * len(batch), len(seeds) * steps)

        def on_frame(done: int, count: int) -> None:
            frames = count // len(batch)
            reporter.progress(stages.DECODING, first * frames + done, len(seeds) * frames)

        return generate_exactly(cache.base, spec, batch, on_step, on_frame=on_frame, blob_path=blob_path)

    return in_batches(seeds, batch_size, sample)


def _on_frame(stage: str, take: int, count: int, reporter: Reporter) -> OnProgress:
    """Reports the frames of one take among those of all."""
    return lambda done, frames: reporter.progress(stage, take * frames + done, count * frames)


def _moved(spec: GenerateSpec, take: Take, clip: Path) -> Take:
    """The take moved to its final name, its report and its master beside it. It needs no space on the disk."""
    take.clip.replace(clip)
    _report_of(take.clip).replace(_report_of(clip))
    if spec.master is not None:
        move_master(spec.master, take.clip, clip, spec.shot)
    return replace(take, clip=clip)


def _report_of(clip: Path) -> Path:
    return clip.with_suffix(".report.json")


def takes_table(takes: Sequence[Take]) -> Table:
    """A table of ranked takes for people."""
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
