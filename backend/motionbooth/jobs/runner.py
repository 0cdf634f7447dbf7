"""What a worker process does for one job: a spec in, finished files out. It knows nothing of the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
from motionbooth_protocol.errors import Canceled
from motionbooth_protocol.jobs import GenerateSpec, JobSpec, TrainSpec
from motionbooth_protocol.motion import Shot

from motionbooth.evaluation.report import shot_report
from motionbooth.finetuning.finetune import Material, learn_subject
from motionbooth.generation.previews import Previewer, Show
from motionbooth.generation.sampling import film
from motionbooth.generation.video import write_clip
from motionbooth.jobs.model_cache import WarmBase
from motionbooth.models.sources import source_named
from motionbooth.models.subject_card import read_card
from motionbooth.pictures.appearance import Appearance
from motionbooth.progress.reporting import Reporter
from motionbooth.progress.stages import generate_stages

BlobPath = Callable[[str], Path]


def run(
    spec: JobSpec,
    blob_path: BlobPath,
    scratch: Path,
    reporter: Reporter,
    warm: WarmBase | None = None,
    show: Show | None = None,
) -> dict[str, Path]:
    """Carry a job out. Returns the finished files inside `scratch` by role: those of `learn_subject`, or the clip of a
    shot and, as JSON, its motion report: {"clip": ..., "report": ...}.

    `blob_path` gives the file of an uploaded blob by its sha256. `scratch` is the job's own folder and outlives the
    attempt: training keeps its checkpoint there, and a later attempt goes on from it to the same result. Same spec,
    same machine: same bytes. `warm` keeps the base model from one filming to the next; `show` gets previews.

    Raises InvalidInput (a picture, prompt or model that cannot be used, in a sentence that says what to change),
    NotFound (an unknown model), and whatever `reporter.progress` raises.
    """
    warm = warm or WarmBase()
    if isinstance(spec, TrainSpec):
        warm.drop()  # learning needs all the memory there is
        return learn_subject(spec, blob_path, scratch, reporter, Material.of_this_machine())
    try:
        return _generate(spec, blob_path, scratch, reporter, warm, show)
    except Canceled:
        raise
    except Exception:
        warm.drop()  # after a fault, of memory perhaps, the next job begins with nothing of this one
        raise


def _generate(
    spec: GenerateSpec, blob_path: BlobPath, scratch: Path, reporter: Reporter, warm: WarmBase, show: Show | None
) -> dict[str, Path]:
    reporter.plan(generate_stages(source_named(spec.model).settings, spec))
    reporter.progress("loading the model", 0, 1)
    base = warm.knowing(spec, blob_path)
    reporter.progress("loading the model", 1, 1)
    reporter.progress("sampling", 0, spec.steps or base.settings.steps)
    frames = film(
        base,
        spec,
        lambda done, steps: reporter.progress("sampling", done, steps),
        None if show is None else Previewer(base, show),
        lambda done, count: reporter.progress("decoding", done, count),
    )
    reporter.progress("encoding", 0, 1)
    results = {"clip": scratch / "clip.mp4", "report": scratch / "report.json"}
    write_clip(results["clip"], frames.numpy(), spec.shot.fps, spec.shot.scene_frames)
    reporter.progress("encoding", 1, 1)
    reporter.progress("measuring", 0, 1)
    report = shot_report(frames.numpy(), spec.shot, known_looks(spec.shot, blob_path))
    results["report"].write_bytes(msgspec.json.encode(report))
    reporter.progress("measuring", 1, 1)
    return results


def known_looks(shot: Shot, blob_path: BlobPath) -> dict[str, Appearance]:
    """How the shot's trained subjects look, by the name of their track, as far as their files say."""
    cards = {track.name: read_card(blob_path(track.weights)) for track in shot.subjects if track.weights is not None}
    return {name: Appearance.from_text(card.looks) for name, card in cards.items() if card.looks}
