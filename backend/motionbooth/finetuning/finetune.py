"""A subject's whole course: from pictures to its file, and to the pictures that show how it went."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import torch
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import MaskDoubt, SubjectSpec, TrainSpec
from PIL import Image
from torch import Tensor

from motionbooth.control.camera import random_pick
from motionbooth.control.plan import StepPlan
from motionbooth.finetuning.clip_folder import folder_clips
from motionbooth.finetuning.dataset import SubjectData, SubjectPicture, covers_cells, gather_data, read_pictures
from motionbooth.finetuning.gradient_checkpointing import recompute_layers
from motionbooth.finetuning.pasting import pasted_pictures
from motionbooth.finetuning.plots import draw_losses, draw_masks, draw_samples
from motionbooth.finetuning.prior_preservation import generated_places, missing_clips, missing_places, ordinary_clips
from motionbooth.finetuning.recipes import with_recipe
from motionbooth.finetuning.trainer import StepLosses, Trainer, arithmetic, learn
from motionbooth.generation.sampling import decode, denoise, initial_noise
from motionbooth.models.registry import Base, load_base
from motionbooth.models.settings import BaseSettings, TrainSettings
from motionbooth.models.sources import Source, source_named
from motionbooth.models.subject_card import SubjectCard
from motionbooth.models.subject_weights import add_lora, save_subject
from motionbooth.pictures.appearance import Appearance
from motionbooth.pictures.images import Rgb, TrainingPicture
from motionbooth.pictures.sam import Checkpoint, WhenNeeded, chosen_checkpoint
from motionbooth.progress.reporting import Reporter
from motionbooth.progress.stages import train_stages

NOTHING_PRESERVED = (
    "no ordinary clips: the base will forget how other things move and look, and films of the subject may stand still"
)
HIGH_RATE = 1e-3
"""Learning rates above destroy a film model; the paper prints 5e-2, its code has 5e-6."""


class DoubtfulMasks(InvalidInput):
    """Masks were found that may be wrong, and nobody has accepted them."""


class Watcher(Protocol):
    """Who else wants to know of each step."""

    def step(self, step: int, losses: StepLosses) -> None: ...


@dataclass(frozen=True)
class Material:
    """What there is for learning besides the job: `sam` finds masks (None: GrabCut), `clips`: a folder of them.

    `accept_masks`: whether doubtful masks are trained with; they are told of in any case.
    """

    sam: Checkpoint | None = None
    clips: Path | None = None
    accept_masks: bool = True

    @classmethod
    def of_this_machine(cls) -> Material:
        """As the machine's owner has set it up."""
        return cls(sam=chosen_checkpoint())


def learn_subject(
    spec: TrainSpec,
    blob_path: Callable[[str], Path],
    folder: Path,
    reporter: Reporter,
    material: Material,
    watcher: Watcher | None = None,
) -> dict[str, Path]:
    """Learn the subject in `folder`, from its checkpoint where one is there.

    Returns by role, each a file in `folder`: "subject", and as PNG "masks", "losses" and, where the settings say how
    often, "samples"; as JSON "doubts" about masks, where there are any. Raises InvalidInput and NotFound as `work.run`
    does, and DoubtfulMasks where `material` does not accept them.
    """
    # Learning needs float32 weights everywhere; half precision loses steps of this size.
    source = source_named(spec.model)
    settings = train_settings(source.settings, spec)
    reporter.plan(train_stages(source.settings, settings, spec))
    reporter.progress("loading the model", 0, 1)
    base = load_base(source, dtype=torch.float32)
    missing = _missing(source, settings, spec, material), missing_places(source, settings)
    reporter.plan(train_stages(source.settings, settings, spec, *missing))
    reporter.progress("loading the model", 1, 1)
    doubts: list[MaskDoubt] = []
    pictures = _pictures(spec, blob_path, base, settings, reporter, material, doubts.append)
    framed = [picture.placed[0] for picture in pictures]
    draw_masks(folder / "masks.png", framed)
    doubtful = _judge(doubts, folder, material)
    shown = training_pictures(base, settings, pictures, spec.seed, reporter)
    clips, captions = preserved_clips(base, settings, spec.subject, material.clips, reporter)
    data = gather_data(base, spec.subject, shown, clips, captions, partial(reporter.progress, "encoding pictures"))
    make_learnable(base, settings, method_of(base.settings, spec), spec.seed)
    trainer = Trainer(base, settings, data, spec.seed)
    _run(trainer, spec.subject, folder, reporter, watcher, doubtful)
    save_subject(folder / "subject.safetensors", base.unet, _card(spec, base, settings, framed))
    draw_losses(folder / "losses.png", trainer.history)
    results = {"subject": folder / "subject.safetensors", "masks": folder / "masks.png"}
    results |= {role: folder / f"{role}.png" for role in ("losses", "samples") if (folder / f"{role}.png").exists()}
    if doubts:
        results["doubts"] = folder / "doubts.json"
    return results


def method_of(base: BaseSettings, spec: TrainSpec) -> str:
    """ "lora" or "full"."""
    return spec.method or base.method


def train_settings(base: BaseSettings, spec: TrainSpec) -> TrainSettings:
    """The base's defaults for the spec's method, with what its recipe changes and what it sets itself."""
    settings = with_recipe(base.lora if method_of(base, spec) == "lora" else base.full, spec.recipe)
    asked = {"steps": spec.steps, "learning_rate": spec.learning_rate}
    return msgspec.structs.replace(settings, **{name: value for name, value in asked.items() if value is not None})


def _pictures(
    spec: TrainSpec,
    blob_path: Callable[[str], Path],
    base: Base,
    settings: TrainSettings,
    reporter: Reporter,
    material: Material,
    on_doubt: Callable[[MaskDoubt], None],
) -> list[SubjectPicture]:
    count = len(spec.subject.pictures)
    return read_pictures(
        spec.subject,
        blob_path,
        base,
        settings,
        spec.seed,
        lambda done: reporter.progress("finding masks", done, count),
        None if material.sam is None else WhenNeeded(material.sam),
        on_doubt,
    )


def _judge(doubts: list[MaskDoubt], folder: Path, material: Material) -> str:
    """The doubts in words, "" for none; they are written down, too. Raises DoubtfulMasks."""
    (folder / "doubts.json").unlink(missing_ok=True)
    if not doubts:
        return ""
    (folder / "doubts.json").write_bytes(msgspec.json.encode(doubts))
    named = "; ".join(f"{doubt.picture}: {', and '.join(doubt.reasons)}" for doubt in doubts)
    masks = "mask was" if len(doubts) == 1 else "masks were"
    told = f"{len(doubts)} {masks} found that may not be the subject's ({named})"
    if not material.accept_masks:
        raise DoubtfulMasks(
            "{doubts}. Look at {masks}. Give these pictures masks, or hints of where the subject is; or "
            "train with the masks as they are: --accept-masks.",
            doubts=told,
            masks=folder / "masks.png",
        )
    return told


def training_pictures(
    base: Base, settings: TrainSettings, pictures: Sequence[SubjectPicture], seed: int, reporter: Reporter
) -> list[TrainingPicture]:
    """What the subject is learned from: its pictures in their frames, or its cut-outs on the base's own places."""
    if settings.pasting is None:
        return [placed for picture in pictures for placed in picture.placed]
    places = generated_places(base, settings, partial(reporter.progress, "generating places"))
    rng = np.random.default_rng([seed, 1])  # not the one that placed the pictures in their frames
    pasted = pasted_pictures([picture.cutout for picture in pictures], places, settings.pasting, rng)
    shown = [picture for picture in pasted if covers_cells(picture, base)]
    if not shown:
        raise InvalidInput(
            "The subject is too thin: nothing of it is left at the sizes that {model} is trained with. "
            "Send pictures that show a thicker part of it, or masks that take in more.",
            model=base.settings.title,
        )
    return shown


def preserved_clips(
    base: Base, settings: TrainSettings, subject: SubjectSpec, folder: Path | None, reporter: Reporter
) -> tuple[Tensor, list[str]]:
    """What keeps the base what it is: latents (K, C, F, h, w), captions. A folder's clips go before the base's own."""
    if settings.preserve == "nothing":
        return torch.zeros(0), []
    if folder is not None and not _makes_its_own(settings, folder):
        return folder_clips(base, folder, lambda done, count: reporter.progress("reading clips", done, count))
    clips, captions = ordinary_clips(
        base,
        settings,
        lambda done, steps: reporter.progress("filming ordinary clips", done, steps),
        _clip_prompts(settings, subject),
    )
    if settings.preserve == "class-pictures" and len(clips):
        middle = clips.shape[2] // 2
        clips = clips[:, :, middle : middle + 1]
    return clips, captions


def _missing(source: Source, settings: TrainSettings, spec: TrainSpec, material: Material) -> int:
    """How many ordinary clips have to be generated before the training."""
    if not _makes_its_own(settings, material.clips):
        return 0
    return missing_clips(source, settings, _clip_prompts(settings, spec.subject))


def _makes_its_own(settings: TrainSettings, folder: Path | None) -> bool:
    """Whether the base generates what is to be preserved."""
    return settings.preserve == "class-pictures" or (settings.preserve != "nothing" and folder is None)


def _clip_prompts(settings: TrainSettings, subject: SubjectSpec) -> list[str] | None:
    """None: the base's own ordinary ones."""
    return None if settings.preserve == "clips" else [f"a {subject.class_word}"]


def make_learnable(base: Base, settings: TrainSettings, method: str, seed: int) -> None:
    """Say which of the UNet's weights are learned; gradient checkpointing where the settings ask for it."""
    if method == "lora":
        add_lora(base.unet, settings.rank, settings.layers, seed)
    else:
        for name, parameter in base.unet.named_parameters():
            parameter.requires_grad_(re.fullmatch(settings.learned, name) is not None)
    if settings.recompute_layers:
        recompute_layers(base.unet, base.control)


def _run(
    trainer: Trainer, subject: SubjectSpec, folder: Path, reporter: Reporter, watcher: Watcher | None, doubtful: str
) -> None:
    settings = trainer.settings
    samples = folder / "samples"

    def on_step(step: int, steps: int, losses: StepLosses) -> None:
        if settings.validate_every and (step % settings.validate_every == 0 or step == steps):
            samples.mkdir(exist_ok=True)
            Image.fromarray(film_sample(trainer.base, settings, subject.prompt)).save(samples / f"{step:06}.png")
        if watcher is not None:
            watcher.step(step, losses)
        reporter.progress("learning", step, steps, f"loss {losses.total:.3f}")

    checkpoint = folder / "training.pt"
    if not checkpoint.exists():
        reporter.progress(
            "learning", 0, settings.steps, "; ".join(filter(None, [doubtful, *warnings(settings, trainer.data)]))
        )
    learn(trainer, checkpoint, on_step)
    if samples.is_dir():
        taken = sorted(samples.glob("*.png"))
        draw_samples(folder / "samples.png", [(int(path.stem), np.asarray(Image.open(path))) for path in taken])


def warnings(settings: TrainSettings, data: SubjectData) -> list[str]:
    """What the user should know before it begins."""
    told = [] if len(data.clips) else [NOTHING_PRESERVED]
    if settings.learning_rate > HIGH_RATE:
        told.append(f"a learning rate of {settings.learning_rate:g} is likely to destroy a film model; 5e-6 is usual")
    return told


def film_sample(base: Base, settings: TrainSettings, prompt: str) -> Rgb:
    """The middle frame (H, W, 3) of a clip of the prompt, nothing controlled, always from the same noise."""
    generator = torch.Generator().manual_seed(0)
    with arithmetic(base, settings):
        latents = denoise(
            base,
            initial_noise(base, generator),
            base.embed([prompt]),
            base.embed([""]),
            base.settings.guidance,
            [StepPlan()] * settings.validation_steps,
            random_pick(generator),
            lambda done, steps: None,
            chance=[generator],
        )
    middle = latents.shape[2] // 2
    return decode(base, latents[:, :, middle : middle + 1])[0, 0].numpy()


def _card(spec: TrainSpec, base: Base, settings: TrainSettings, framed: list[TrainingPicture]) -> SubjectCard:
    subject = spec.subject
    looks = Appearance.from_pictures([each.rgb for each in framed], [each.mask for each in framed])
    return SubjectCard(
        name=subject.name,
        token=subject.token,
        class_word=subject.class_word,
        prompt=subject.prompt,
        base=base.source.name,
        base_fingerprint=base.source.fingerprint,
        method=method_of(base.settings, spec),
        rank=settings.rank,
        layers=settings.layers,
        recipe=spec.recipe,
        pictures=[picture.image for picture in subject.pictures],
        looks=looks.as_text(),
    )
