"""Learning a subject here and now, without a backend: a folder of pictures in, a subject's file out."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import TrainSpec, spec_digest

from motionbooth.finetuning.clip_folder import folder_digest
from motionbooth.finetuning.finetune import Material, learn_subject
from motionbooth.finetuning.tensorboard import Board
from motionbooth.models.subject_card import read_card
from motionbooth.progress.reporting import Reporter

ORDER = "order.txt"
CHECKPOINT = "training.pt"


@dataclass(frozen=True)
class Learned:
    """The subject's file, and the folder with what shows how it went."""

    subject: Path
    folder: Path
    was_there: bool = False


def train_here(
    spec: TrainSpec, files: dict[str, Path], material: Material, out: Path, reporter: Reporter, board: bool = False
) -> Learned:
    """Learn the subject of `spec` into the file `out`, and pictures about it into a folder of its name beside it.

    `files`: where the blobs of the spec lie, by sha256. A run that was broken off is gone on with where the same is
    asked for again; what is already learned is left as it is. `board`: events for TensorBoard in the folder, too.

    Raises MotionBoothError, each saying what to do.
    """
    if out.suffix != ".safetensors":
        raise InvalidInput("A subject's file ends in .safetensors, got {out}.", out=out)
    folder = out.with_suffix("")
    if _begin(spec, material, folder) and out.exists():
        read_card(out)
        return Learned(out, folder, was_there=True)
    watcher = Board(folder / "tensorboard") if board else None
    try:
        results = learn_subject(spec, lambda sha256: files[sha256], folder, reporter, material, watcher)
    finally:
        if watcher is not None:
            watcher.close()
    os.replace(results["subject"], out)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return Learned(out, folder)


def _begin(spec: TrainSpec, material: Material, folder: Path) -> bool:
    """Make the folder ready; True where it is of the same order. Of another, nothing is left to be gone on with."""
    clips = folder_digest(material.clips) if material.clips else ""
    order = f"{spec_digest(spec)} {clips} {material.sam.path if material.sam else ''}"
    note = folder / ORDER
    if note.is_file() and note.read_text(encoding="utf-8") == order:
        return True
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    for made in ("samples", "tensorboard"):
        shutil.rmtree(folder / made, ignore_errors=True)
    (folder / "samples.png").unlink(missing_ok=True)
    note.write_text(order, encoding="utf-8")
    return False
