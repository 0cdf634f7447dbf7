"""Trains a subject on this machine without a server: a folder of pictures in, a subject's file out."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import msgspec
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import TrainSpec, spec_digest
from msgspec import structs

from motionbooth.finetuning.clip_folder import folder_digest
from motionbooth.finetuning.finetune import CHECKPOINT, TrainingOptions, finetune, method_of, train_settings
from motionbooth.finetuning.tensorboard import TensorBoardLog
from motionbooth.models.sources import source_named
from motionbooth.models.subject_card import read_card
from motionbooth.progress.reporting import Reporter

INPUTS = "inputs.txt"
"""What the training in the folder depends on, and then that it was finished."""
FINISHED = " finished"


@dataclass(frozen=True)
class TrainedSubject:
    """The subject's file, and the folder with the plots of its training."""

    file: Path
    folder: Path
    existed: bool = False


def train_locally(
    spec: TrainSpec, files: dict[str, Path], options: TrainingOptions, out: Path, reporter: Reporter
) -> TrainedSubject:
    """Train the subject of `spec` into the file `out`, with plots in the folder of the same name beside it.

    `files`: the file of each blob of the spec, by sha256. An interrupted training is resumed if its inputs are the
    same; a finished one is not repeated. Raises MotionBoothError.
    """
    if out.suffix != ".safetensors":
        raise InvalidInput("The file of a subject must end in .safetensors, not {out}.", out=out)
    folder = out.with_suffix("")
    if any(path.resolve().is_relative_to(folder.resolve()) for path in files.values()):
        raise InvalidInput(
            "The training would write its plots and samples among the pictures in {folder}. Choose another name for "
            "{out}.",
            folder=folder,
            out=out,
        )
    inputs = _inputs(spec, options)
    if _is_finished(folder, inputs) and out.exists():
        read_card(out)
        return TrainedSubject(out, folder, existed=True)
    with closing(TensorBoardLog(folder / "tensorboard")) if options.tensorboard else nullcontext() as log:
        results = finetune(spec, lambda sha256: files[sha256], folder, reporter, options, log)
    os.replace(results["subject"], out)
    (folder / INPUTS).write_text(inputs + FINISHED, encoding="utf-8")
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return TrainedSubject(out, folder)


def _inputs(spec: TrainSpec, options: TrainingOptions) -> str:
    clips = folder_digest(options.clips) if options.clips else ""
    source = source_named(spec.model)
    base = source.settings
    settings = train_settings(base, spec, options.settings)
    # As resolved: the same whether a value is given or is the base's own.
    resolved = structs.replace(
        spec, method=method_of(base, spec), steps=settings.steps, learning_rate=settings.learning_rate
    )
    digest = hashlib.sha256(msgspec.json.encode(settings)).hexdigest()
    finders = " ".join(map(str, options.finders.paths))
    return f"{spec_digest(resolved)} {digest} {clips} {source.network_sha256} {finders}"


def _is_finished(folder: Path, inputs: str) -> bool:
    """Whether a training with the same inputs was finished. What is left of one with others is removed."""
    note = folder / INPUTS
    found = note.read_text(encoding="utf-8") if note.is_file() else ""
    if found not in (inputs, inputs + FINISHED):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CHECKPOINT).unlink(missing_ok=True)
        for made in ("samples", "tensorboard"):
            shutil.rmtree(folder / made, ignore_errors=True)
        (folder / "samples.png").unlink(missing_ok=True)
        note.write_text(inputs, encoding="utf-8")
    return found == inputs + FINISHED
