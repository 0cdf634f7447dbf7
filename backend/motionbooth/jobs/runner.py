"""Runs one job: a spec in, finished files out. Independent of the server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
from motionbooth_protocol.errors import Canceled
from motionbooth_protocol.jobs import GenerateSpec, JobSpec, TrainSpec
from motionbooth_protocol.masters import Master
from motionbooth_protocol.motion import Shot
from motionbooth_protocol.text import Text

from motionbooth.evaluation.contributions import clip_report
from motionbooth.finetuning.finetune import TrainingOptions, finetune
from motionbooth.generation.finishing import Finishing
from motionbooth.generation.masters import check_master, pack, write_master
from motionbooth.generation.previews import Previewer, ShowPreview
from motionbooth.generation.sampling import generate_exactly, in_eight_bits, network_calls
from motionbooth.generation.video import FrameSource, write_clip
from motionbooth.jobs.model_cache import ModelCache
from motionbooth.models.memory.loading import log_peak
from motionbooth.models.memory.plans import Plan, is_out_of_memory, retry_note
from motionbooth.models.sources import source_named
from motionbooth.models.subject_card import read_card
from motionbooth.pictures.appearance import Appearance
from motionbooth.progress import stages
from motionbooth.progress.reporting import Reporter

log = logging.getLogger("motionbooth.jobs")

BlobPath = Callable[[str], Path]


def run_job(
    spec: JobSpec,
    blob_path: BlobPath,
    scratch: Path,
    reporter: Reporter,
    cache: ModelCache | None = None,
    show_preview: ShowPreview | None = None,
) -> dict[str, Path]:
    """Run a job. Returns the finished files in `scratch` by role: those of `finetune`, or the shot's "clip", its
    motion report as JSON, "report", and the "master" if the spec names one, a sequence as one zip.

    `blob_path` returns the file of an uploaded blob by its sha256. `scratch` is the job's own folder and outlives the
    attempt: a training saves its checkpoint there, from which a later attempt resumes with the same result. The same
    spec gives the same bytes on the same machine under the same memory plan. `cache` keeps the base model from job to
    job. A job that runs out of memory is tried once more with the next smaller plan.

    Raises InvalidInput (for a picture, prompt or model that cannot be used), NotFound (for an unknown model), and
    whatever `reporter.progress` raises.
    """
    cache = cache or ModelCache()
    if isinstance(spec, TrainSpec):
        cache.clear()  # training needs all the memory
        return finetune(spec, blob_path, scratch, reporter, TrainingOptions.of_this_machine())
    try:
        return _generate(spec, blob_path, scratch, reporter, cache, show_preview)
    except Canceled:
        raise
    except Exception as error:
        plans = cache.smaller_plan() if is_out_of_memory(error) else None
        cache.clear()  # the fault may come from it, or from a lack of memory
        if plans is None:
            raise
    note = retry_note(plans[0].name, plans[1].name)  # only now: the error held the tensors of its stack
    log.warning("%s", note)
    return _generate(spec, blob_path, scratch, reporter, cache, show_preview, plans[1], note)


def _generate(
    spec: GenerateSpec,
    blob_path: BlobPath,
    scratch: Path,
    reporter: Reporter,
    cache: ModelCache,
    show_preview: ShowPreview | None,
    plan: Plan | None = None,
    note: Text | None = None,
) -> dict[str, Path]:
    source = source_named(spec.model)
    settings, finishing = source.settings, Finishing.of(spec)
    size = finishing.size_of(settings.width, settings.height)
    if spec.master is not None:
        check_master(spec.master, size, spec.shot.scene_frames)
    reporter.plan(stages.generate_stages(settings, spec, frame_step=source.frame_step))
    reporter.progress(stages.LOADING, 0, 1, note)
    base = cache.get(spec, blob_path, plan)
    finishing.to(base.device)
    reporter.progress(stages.LOADING, 1, 1)
    reporter.progress(stages.SAMPLING, 0, network_calls(base, spec), note)
    on_estimate = None if show_preview is None else Previewer(base, show_preview)
    on_step, on_frame = (partial(reporter.progress, stage) for stage in (stages.SAMPLING, stages.DECODING))
    exact = generate_exactly(base, spec, [spec.seed], on_step, on_estimate, on_frame, blob_path)[0]
    log_peak(base)
    frames = in_eight_bits(exact).numpy()
    shown = finishing.frames(frames, exact.numpy(), spec.shot.scene_frames)
    results = {"clip": scratch / "clip.mp4", "report": scratch / "report.json"}
    on_encoded = partial(reporter.progress, stages.ENCODING)
    write_clip(results["clip"], shown[0], spec.shot.fps, spec.shot.scene_frames, on_encoded)
    if spec.master is not None:
        results["master"] = _master(spec, spec.master, results["clip"], shown[1], reporter)
    del exact, shown
    reporter.progress(stages.MEASURING, 0, 1)
    report = clip_report(base, spec, frames, subject_appearances(spec.shot, blob_path), blob_path)
    results["report"].write_bytes(msgspec.json.encode(report))
    reporter.progress(stages.MEASURING, 1, 1)
    return results


def _master(spec: GenerateSpec, master: Master, clip: Path, frames: FrameSource, reporter: Reporter) -> Path:
    """The file of the master as it travels."""
    write_master(master, clip, frames, spec.shot, partial(reporter.progress, stages.MASTER))
    return pack(master, clip, spec.shot)


def subject_appearances(shot: Shot, blob_path: BlobPath) -> dict[str, Appearance]:
    """The appearance of the shot's trained subjects, by the name of their track, if their files contain it."""
    cards = {track.name: read_card(blob_path(track.weights)) for track in shot.subjects if track.weights is not None}
    return {name: Appearance.from_text(card.appearance) for name, card in cards.items() if card.appearance}
