"""What a worker process does for one job: a spec in, finished files out. It knows nothing of the server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
import torch
from motionbooth_protocol.errors import Canceled
from motionbooth_protocol.jobs import GenerateSpec, JobSpec, TrainSpec

from .models.registry import Base, load_base
from .models.settings import TrainSettings
from .models.sources import source_named
from .previews import Previewer, Show
from .sampling import film
from .subject.dataset import gather_data, read_pictures
from .subject.ordinary import ordinary_clips
from .subject.trainer import Trainer, learn
from .subject.weights import SubjectCard, add_lora, save_subject
from .video import spread_evenly, write_clip
from .warm import WarmBase

BlobPath = Callable[[str], Path]


class Reporter(Protocol):
    """Where a job tells how far it is, and learns that nobody wants it any more."""

    def progress(self, stage: str, step: int, steps: int, note: str = "") -> None:
        """`step` of `steps` within `stage` are done. Raises `motionbooth_protocol.errors.Canceled` to stop the job.

        Stages, in plain words: "loading the model", "finding masks", "filming ordinary clips", "learning", "sampling",
        "encoding". Called at least once a training or sampling step.
        """


def run(
    spec: JobSpec,
    blob_path: BlobPath,
    scratch: Path,
    reporter: Reporter,
    warm: WarmBase | None = None,
    show: Show | None = None,
) -> dict[str, Path]:
    """Carry a job out. Returns the finished files inside `scratch` by role: {"subject": ...} or {"clip": ...}.

    `blob_path` gives the file of an uploaded blob by its sha256. `scratch` is the job's own folder and outlives the
    attempt: training keeps its checkpoint there, and a later attempt goes on from it to the same result. Same spec,
    same machine: same bytes. `warm` keeps the base model from one filming to the next; `show` gets previews.

    Raises InvalidInput (a picture, prompt or model that cannot be used, in a sentence that says what to change),
    NotFound (an unknown model), and whatever `reporter.progress` raises.
    """
    warm = warm or WarmBase()
    if isinstance(spec, TrainSpec):
        warm.drop()  # learning needs all the memory there is
        return {"subject": _train(spec, blob_path, scratch, reporter)}
    try:
        return {"clip": _generate(spec, blob_path, scratch, reporter, warm, show)}
    except Canceled:
        raise
    except Exception:
        warm.drop()  # after a fault, of memory perhaps, the next job begins with nothing of this one
        raise


def _train(spec: TrainSpec, blob_path: BlobPath, scratch: Path, reporter: Reporter) -> Path:
    # Learning needs float32 weights everywhere; half precision loses steps of this size.
    base = _load(spec.model, reporter, dtype=torch.float32)
    settings = train_settings(base, spec)
    count = len(spec.subject.pictures)
    pictures = read_pictures(
        spec.subject,
        blob_path,
        base,
        settings,
        spec.seed,
        lambda done: reporter.progress("finding masks", done, count),
    )
    clips, captions = ordinary_clips(
        base, settings.clips, lambda done, steps: reporter.progress("filming ordinary clips", done, steps)
    )
    data = gather_data(base, spec.subject, pictures, clips, captions)
    if (spec.method or base.settings.method) == "lora":
        add_lora(base.unet, settings.rank, settings.layers, spec.seed)
    else:
        base.unet.requires_grad_(True)
    trainer = Trainer(base, settings, data, spec.seed)
    learn(
        trainer,
        scratch / "checkpoint.pt",
        lambda step, steps, losses: reporter.progress("learning", step, steps, f"loss {losses.total:.3f}"),
    )
    path = scratch / "subject.safetensors"
    save_subject(path, base.unet, _card(spec, base, settings))
    return path


def train_settings(base: Base, spec: TrainSpec) -> TrainSettings:
    """The base's defaults for the spec's method, with what the spec sets itself."""
    method = spec.method or base.settings.method
    settings = base.settings.lora if method == "lora" else base.settings.full
    asked = {"steps": spec.steps, "learning_rate": spec.learning_rate}
    return msgspec.structs.replace(settings, **{name: value for name, value in asked.items() if value is not None})


def _card(spec: TrainSpec, base: Base, settings: TrainSettings) -> SubjectCard:
    subject = spec.subject
    return SubjectCard(
        name=subject.name,
        token=subject.token,
        class_word=subject.class_word,
        prompt=subject.prompt,
        base=base.source.name,
        base_fingerprint=base.source.fingerprint,
        method=spec.method or base.settings.method,
        rank=settings.rank,
        layers=settings.layers,
    )


def _generate(
    spec: GenerateSpec, blob_path: BlobPath, scratch: Path, reporter: Reporter, warm: WarmBase, show: Show | None
) -> Path:
    reporter.progress("loading the model", 0, 1)
    base = warm.knowing(spec, blob_path)
    reporter.progress("loading the model", 1, 1)
    frames = film(
        base,
        spec,
        lambda done, steps: reporter.progress("sampling", done, steps),
        None if show is None else Previewer(base, show),
    )
    reporter.progress("encoding", 0, 1)
    path = scratch / "clip.mp4"
    write_clip(path, spread_evenly(frames.numpy(), spec.shot.scene_frames), spec.shot.fps)
    reporter.progress("encoding", 1, 1)
    return path


def _load(model: str, reporter: Reporter, dtype: torch.dtype) -> Base:
    reporter.progress("loading the model", 0, 1)
    base = load_base(source_named(model), dtype=dtype)
    reporter.progress("loading the model", 1, 1)
    return base
