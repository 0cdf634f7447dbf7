"""Fine-tuning a subject: from its pictures to its file, and to the plots that show the training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import MaskDoubt, SubjectSpec, TrainSpec
from motionbooth_protocol.text import Text, joined
from PIL import Image
from torch import Tensor

from motionbooth.control.plan import StepPlan
from motionbooth.finetuning.clip_folder import folder_clips
from motionbooth.finetuning.dataset import (
    SubjectPicture,
    TrainingData,
    covers_cells,
    encode_training_data,
    read_pictures,
)
from motionbooth.finetuning.memory_plan import TrainingPlan, smaller_training_plan, training_plan
from motionbooth.finetuning.motion import class_motion, motion_text
from motionbooth.finetuning.pasting import pasted_pictures
from motionbooth.finetuning.plots import plot_losses, plot_masks, plot_samples
from motionbooth.finetuning.prior_preservation import (
    generated_backgrounds,
    missing_backgrounds,
    missing_prior_clips,
    prior_clips,
)
from motionbooth.finetuning.recipes import with_recipe
from motionbooth.finetuning.tensorboard import TensorBoardLog
from motionbooth.finetuning.trainable import set_trainable
from motionbooth.finetuning.trainer import StepLosses, Trainer, autocast, train
from motionbooth.generation.sampling import SamplingInputs, decode, denoise
from motionbooth.generation.video import Frames, write_clip
from motionbooth.models.base import Base
from motionbooth.models.memory.device import free_unused
from motionbooth.models.memory.loading import chosen_device, log_peak, log_plan
from motionbooth.models.memory.options import Computing
from motionbooth.models.memory.plans import is_out_of_memory, retry_note
from motionbooth.models.memory.quantizing import quantize
from motionbooth.models.registry import load_base
from motionbooth.models.settings import BaseSettings, PasteSettings, TrainSettings
from motionbooth.models.sources import Source, fetched_folder, source_named
from motionbooth.models.subject_card import SubjectCard
from motionbooth.models.subject_weights import save_subject
from motionbooth.pictures.appearance import Appearance
from motionbooth.pictures.finders import MaskFinders
from motionbooth.pictures.images import TrainingPicture
from motionbooth.pictures.sam import chosen_checkpoint
from motionbooth.progress import stages
from motionbooth.progress.reporting import Reporter

CHECKPOINT = "training.pt"
_log = logging.getLogger("motionbooth.jobs")
NO_PRIOR_CLIPS = Text(
    "no prior-preservation clips: the base will forget how other things move and look, and clips of the subject may "
    "show no motion"
)
CAPTIONS_NOT_USED = Text(
    "the captions of the pictures are not used: this base pastes the subject on backgrounds that have their own; the "
    "recipe no-paste uses them"
)
HIGH_RATE = 1e-3
"""Learning rates above destroy a video model; the paper prints 5e-2, its code has 5e-6."""


class DoubtfulMasks(InvalidInput):
    """Some masks that were found may be wrong, and the user has not accepted them."""


@dataclass(frozen=True)
class TrainingOptions:
    """What a training uses besides the job's spec."""

    finders: MaskFinders = field(default_factory=MaskFinders)
    """What finds the subject in pictures without a mask."""
    clips: Path | None = None
    """A folder of prior-preservation clips; None if the base is to generate them."""
    accept_masks: bool = True
    """Train with doubtful masks; they are reported in any case."""
    tensorboard: bool = False
    """Write events for TensorBoard."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Values of TrainSettings that differ from the base's and the recipe's; of `paste` in a mapping, too."""

    memory: str = "auto"
    """The memory plan, see memory_plan.py."""

    @classmethod
    def of_this_machine(cls) -> TrainingOptions:
        """As set in the environment."""
        return cls(MaskFinders(chosen_checkpoint(fetched_folder("sam")), fetched_folder("birefnet")))


def finetune(
    spec: TrainSpec,
    blob_path: Callable[[str], Path],
    folder: Path,
    reporter: Reporter,
    options: TrainingOptions,
    log: TensorBoardLog | None = None,
) -> dict[str, Path]:
    """Train the subject in `folder`, resuming from its checkpoint if there is one. A training that runs out of memory
    goes on from there with the next smaller memory plan, once.

    Returns files in `folder` by role: "subject", the PNGs "masks", "losses" and (if the settings ask for validation)
    "samples", and the JSON "doubts" if any masks are doubtful. Raises InvalidInput and NotFound as `run_job` does, and
    DoubtfulMasks if `options` do not accept them.
    """
    source = source_named(spec.model)
    settings = train_settings(source.settings, spec, options.settings)
    reporter.plan(stages.train_stages(source.settings, settings, spec))
    reporter.progress(stages.LOADING, 0, 1)
    device, method = chosen_device(Computing.of_this_machine()), method_of(source.settings, spec)
    plan = training_plan(source, settings, method, device, options.memory)
    try:
        return _finetune(spec, blob_path, folder, reporter, options, log, plan)
    except Exception as error:
        smaller = smaller_training_plan(plan, method, settings, device) if is_out_of_memory(error) else None
        if smaller is None:
            raise
    note = retry_note(plan.name, smaller.name)  # only now: the error held the tensors of its stack
    _log.warning("%s", note)
    free_unused()
    return _finetune(spec, blob_path, folder, reporter, options, log, smaller, note)


def _finetune(
    spec: TrainSpec,
    blob_path: Callable[[str], Path],
    folder: Path,
    reporter: Reporter,
    options: TrainingOptions,
    log: TensorBoardLog | None,
    plan: TrainingPlan,
    note: Text | None = None,
) -> dict[str, Path]:
    """`note` is for the user."""
    source, device = source_named(spec.model), chosen_device(Computing.of_this_machine())
    settings = plan.applied_to(train_settings(source.settings, spec, options.settings))
    reporter.progress(stages.LOADING, 0, 1, note)
    frozen = getattr(torch, settings.precision) if plan.half and device != "cpu" else torch.float32
    base = load_base(source, device, training=True, plan=plan.parts, network_dtype=frozen)
    if plan.quantized:
        quantize(base.network, base.device)
    log_plan(base, plan.name)
    missing = _missing_prior_clips(source, settings, spec, options), missing_backgrounds(source, settings)
    reporter.plan(stages.train_stages(source.settings, settings, spec, *missing))
    reporter.progress(stages.LOADING, 1, 1)
    on_picture = partial(reporter.progress, stages.MASKS)
    pictures = read_pictures(spec, blob_path, base, settings, options.finders.finder(), on_picture)
    framed = [picture.placed[0] for picture in pictures]
    plot_masks(folder / "masks.png", framed)
    doubtful = _report_doubts([picture.doubt for picture in pictures if picture.doubt], folder, options)
    if settings.pasting and any(picture.caption for picture in spec.subject.pictures):
        doubtful.append(CAPTIONS_NOT_USED)
    shown = training_pictures(base, settings, pictures, spec.seed, reporter)
    clips, captions = preserved_clips(base, settings, spec.subject, options.clips, reporter)
    data = encode_training_data(base, spec.subject, shown, clips, captions, partial(reporter.progress, stages.PICTURES))
    if plan.checkpointing:
        base.tile_vae()  # for the samples: what is trained is encoded by now, and exactly
    set_trainable(base, settings, method_of(base.settings, spec), spec.seed)
    trainer = Trainer(base, settings, data, spec.seed)
    _train(trainer, spec.subject, folder, reporter, log, doubtful)
    with trainer.averaged():
        card = _with_motion(_card(spec, base, settings, framed), base, settings, reporter)
        log_peak(base, plan.name)
        save_subject(folder / "subject.safetensors", base, card)
    plot_losses(folder / "losses.png", trainer.history)
    names = {"subject": "subject.safetensors", "doubts": "doubts.json"}
    names |= {role: f"{role}.png" for role in ("masks", "losses", "samples")}
    return {role: folder / name for role, name in names.items() if (folder / name).exists()}


def method_of(base: BaseSettings, spec: TrainSpec) -> str:
    """ "lora" or "full"."""
    return spec.method or base.method


def train_settings(base: BaseSettings, spec: TrainSpec, changes: Mapping[str, Any] | None = None) -> TrainSettings:
    """The base's defaults for the spec's method, changed by its recipe, by `changes`, and by the spec's own values."""
    settings = with_recipe(base.lora if method_of(base, spec) == "lora" else base.full, spec.recipe)
    given = dict(changes or {}) | {
        name: value for name in ("steps", "learning_rate") if (value := getattr(spec, name)) is not None
    }
    if isinstance(paste := given.get("paste"), Mapping):
        given["paste"] = msgspec.structs.replace(settings.paste or PasteSettings(), **paste)
    settings = msgspec.structs.replace(settings, **given)
    if settings.paste and settings.paste.min_height > settings.paste.max_height:
        raise InvalidInput(
            '"min_height" of [paste] is {least:g}, more than its "max_height", {most:g}.',
            least=settings.paste.min_height,
            most=settings.paste.max_height,
        )
    if settings.paste and not base.backgrounds:
        raise InvalidInput(
            "{model} cannot train with pasted pictures: its settings name no backgrounds. Remove [paste].",
            model=base.title,
        )
    return settings


def _report_doubts(doubts: Sequence[MaskDoubt], folder: Path, options: TrainingOptions) -> list[Text]:
    """Write the doubts as JSON. Returns them as one text, or none. Raises DoubtfulMasks."""
    (folder / "doubts.json").unlink(missing_ok=True)
    if not doubts:
        return []
    (folder / "doubts.json").write_bytes(msgspec.json.encode(doubts))
    named = [
        Text.of("{picture}: {reasons}", picture=doubt.picture, reasons=joined(doubt.reasons, "{one}, and {other}"))
        for doubt in doubts
    ]
    one = "1 mask was found that may not be the subject's ({pictures})"
    several = "{count} masks were found that may not be the subject's ({pictures})"
    pictures = joined(named, "{one}; {other}")
    summary = Text.of(one if len(doubts) == 1 else several, count=len(doubts), pictures=pictures)
    if not options.accept_masks:
        raise DoubtfulMasks(
            "{doubts}. Look at {masks}. Give these pictures masks, or hints where the subject is; or "
            "train with the masks as they are: --accept-masks.",
            doubts=summary,
            masks=folder / "masks.png",
        )
    return [summary]


def training_pictures(
    base: Base, settings: TrainSettings, pictures: Sequence[SubjectPicture], seed: int, reporter: Reporter
) -> list[TrainingPicture]:
    """The pictures to train on: the subject's own in their frames, or its cut-outs on generated backgrounds."""
    if settings.pasting is None:
        return [placed for picture in pictures for placed in picture.placed]
    backgrounds = generated_backgrounds(base, settings, partial(reporter.progress, stages.BACKGROUNDS))
    rng = np.random.default_rng([seed, 1])  # not the one that placed the pictures in their frames
    pasted = pasted_pictures([picture.cutout for picture in pictures], backgrounds, settings.pasting, rng)
    shown = [picture for picture in pasted if covers_cells(picture, base)]
    if not shown:
        raise InvalidInput(
            "The subject is too thin: nothing remains of it at the sizes that {model} is trained on. "
            "Send pictures in which it is thicker, or larger masks.",
            model=base.settings.title,
        )
    return shown


def preserved_clips(
    base: Base, settings: TrainSettings, subject: SubjectSpec, folder: Path | None, reporter: Reporter
) -> tuple[Tensor, list[str]]:
    """The prior-preservation clips as latents (K, C, F, h, w) and their captions, from `folder` or from the base."""
    if settings.prior_preservation == "nothing":
        return torch.zeros(0), []
    if folder is not None and not _generates_clips(settings, folder):
        return folder_clips(
            base.of_length(settings.clip_frames), folder, partial(reporter.progress, stages.READING_CLIPS)
        )
    on_step = partial(reporter.progress, stages.PRIOR_CLIPS)
    clips, captions = prior_clips(base, settings, on_step, _clip_prompts(settings, subject))
    if settings.prior_preservation == "class-pictures" and len(clips):
        middle = clips.shape[2] // 2 if base.temporal == 1 else 0  # the only one that is encoded as a picture
        clips = clips[:, :, middle : middle + 1]
    return clips, captions


def _missing_prior_clips(source: Source, settings: TrainSettings, spec: TrainSpec, options: TrainingOptions) -> int:
    """How many prior-preservation clips must be generated before the training."""
    if not _generates_clips(settings, options.clips):
        return 0
    return missing_prior_clips(source, settings, _clip_prompts(settings, spec.subject))


def _generates_clips(settings: TrainSettings, folder: Path | None) -> bool:
    """Whether the base generates the prior-preservation clips."""
    return settings.prior_preservation == "class-pictures" or (
        settings.prior_preservation != "nothing" and folder is None
    )


def _clip_prompts(settings: TrainSettings, subject: SubjectSpec) -> list[str] | None:
    """None for the base's own prior prompts."""
    return None if settings.prior_preservation == "clips" else [f"a {subject.class_word}"]


def _train(
    trainer: Trainer,
    subject: SubjectSpec,
    folder: Path,
    reporter: Reporter,
    log: TensorBoardLog | None,
    doubtful: list[Text],
) -> None:
    settings = trainer.settings
    samples = folder / "samples"
    prompts = settings.validation_prompts or [subject.prompt]

    def on_step(step: int, steps: int, losses: StepLosses) -> None:
        if settings.validate_every and (step % settings.validate_every == 0 or step == steps):
            for number, prompt in enumerate(prompts, start=1):
                with trainer.averaged():
                    sample = validation_sample(trainer.base, settings, prompt)
                _write_sample(samples / f"{step:06}-{number}", sample, trainer.base.settings.fps)
                if log is not None:
                    log.write_sample(step, number, sample, trainer.base.settings.fps)
        if log is not None:
            log.write(step, losses)
        reporter.progress(stages.TRAINING, step, steps, Text.of("loss {loss:.3f}", loss=losses.total))

    checkpoint = folder / CHECKPOINT
    if not checkpoint.exists():
        notes = [*doubtful, *training_warnings(settings, trainer.data)]
        reporter.progress(stages.TRAINING, 0, settings.steps, joined(notes, "{one}; {other}") if notes else None)
    train(trainer, checkpoint, on_step)
    if samples.is_dir():
        taken = sorted(samples.glob("*.png"))
        plot_samples(folder / "samples.png", [(_title(path, prompts), np.asarray(Image.open(path))) for path in taken])


def _write_sample(path: Path, frames: Frames, fps: float) -> None:
    """The clip as mp4, and its middle frame as PNG."""
    path.parent.mkdir(exist_ok=True)
    write_clip(path.with_suffix(".mp4"), frames, fps)
    Image.fromarray(frames[len(frames) // 2]).save(path.with_suffix(".png"))


def _title(sample: Path, prompts: Sequence[str]) -> str:
    step, _, number = sample.stem.partition("-")
    return f"step {int(step)}" if len(prompts) == 1 else f"step {int(step)}, prompt {number}"


def training_warnings(settings: TrainSettings, data: TrainingData) -> list[Text]:
    """What the user should know before the training starts."""
    warnings = [] if len(data.clips) else [NO_PRIOR_CLIPS]
    if settings.learning_rate > HIGH_RATE:
        template = "a learning rate of {rate:g} is likely to destroy a video model; 5e-6 is usual"
        warnings.append(Text.of(template, rate=settings.learning_rate))
    return warnings


def validation_sample(base: Base, settings: TrainSettings, prompt: str) -> Frames:
    """A clip (F, H, W, 3) of the prompt without controls, always from the same noise."""
    base = base.of_length(settings.clip_frames)
    plans = [StepPlan()] * settings.validation_inference_steps
    with autocast(base, settings):
        latents = denoise(base, SamplingInputs.from_prompts(base, [prompt], [""], [0], plans))
    return decode(base, latents)[0].numpy()


def _card(spec: TrainSpec, base: Base, settings: TrainSettings, framed: list[TrainingPicture]) -> SubjectCard:
    subject = spec.subject
    appearance = Appearance.from_pictures([each.rgb for each in framed], [each.mask for each in framed])
    return SubjectCard(
        name=subject.name,
        token=subject.token,
        class_word=subject.class_word,
        prompt=subject.prompt,
        base=base.source.name,
        base_sha256=base.source.network_sha256,
        method=method_of(base.settings, spec),
        rank=settings.rank,
        target_modules=settings.target_modules,
        recipe=spec.recipe,
        pictures=[picture.image for picture in subject.pictures],
        appearance=appearance.as_text(),
    )


def _with_motion(card: SubjectCard, base: Base, settings: TrainSettings, reporter: Reporter) -> SubjectCard:
    if card.method != "lora" or not settings.motion_clips:
        return card
    on_step = partial(reporter.progress, stages.MEASURING)
    card = msgspec.structs.replace(card, motion=class_motion(base, settings, card.class_word, on_step))
    reporter.progress(stages.MEASURING, 1, 1, motion_text(card))
    return card
