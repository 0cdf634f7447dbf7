"""A base model's settings, as data: a JSON file beside its weights (`motionbooth.json`). Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.wording import in_words
from msgspec import Meta, Struct, field

from motionbooth.control.settings import ControlSettings, Share

Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
Weight = Annotated[float, Meta(ge=0)]
Height = Annotated[float, Meta(gt=0, le=1)]


class PasteSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How the subject's cut-outs are pasted on backgrounds that the base generates, to make training pictures."""

    pool: Positive = 200
    """Pictures made and encoded, once, before training; each step uses TrainSettings.image_batch of them."""
    frames: Positive = 3
    """Frames of each background's clip that are used."""
    min_height: Height = 0.5
    """Smallest height of the pasted subject, as a share of the frame's height, as boxes have it."""
    max_height: Height = 0.9
    """Largest height, likewise. A subject that would be wider than the frame is scaled down to fit."""
    max_roll: Annotated[float, Meta(ge=0, le=180)] = 8.0
    """The subject is rotated by up to this angle either way, in degrees."""
    max_gain: Share = 0.05
    """Each color channel is multiplied by a random factor in [1 - max_gain, 1 + max_gain]."""
    flip: bool = False
    """Mirror half of the pictures. Wrong for subjects with lettering or features on one side only."""
    grow_cells: Count = 1
    """The region loss also covers cells up to this distance from the subject, where its outline is decided."""
    box_share: Share = 0.0
    """The share of a step's pictures that are trained with the attention edit of their own box, as in sampling. These
    have no STCA loss: the edit has already decided the attention."""


class TrainSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How a subject is trained on a base (paper, section 3.2)."""

    steps: Positive
    """Optimizer steps."""
    learning_rate: Annotated[float, Meta(gt=0)]
    """Peak learning rate of AdamW."""
    image_batch: Positive
    """Pictures in a step; at most all there are."""
    prior_clips: Count
    """Prior-preservation clips; the base generates them once and caches them."""
    clip_frames: Positive | None = None
    """Frames of a prior-preservation clip or of a validation sample; by default as many as the base generates."""
    rank: Positive = 16
    """Rank of the LoRA. Full fine-tuning ignores it."""
    target_modules: str = r".*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2)"
    """The network's modules that get a LoRA, as a regular expression over their names."""
    trainable: str = ".*"
    """The network's parameters that full fine-tuning changes, as a regular expression over their names."""
    loss_region: Literal["subject", "picture"] = "subject"
    """The picture loss covers the subject's cells (the paper's region loss) or the whole picture."""
    subject_weight: Weight = 4.0
    """Weight of the picture loss, a true mean. At 4.0 the region loss equals that of the authors, who divide by the
    number of cells and not by the 4 channels."""
    prior_loss_weight: Weight = 1.0
    """Weight of the prior-preservation loss: lambda_1."""
    stca_weight: Weight = 0.01
    """Weight of the subject-token cross-attention loss: lambda_2."""
    stca_reduce: Literal["mean", "sum"] = "mean"
    """How the attention of the phrase's tokens is combined: "mean" (the authors') or "sum", which can reach 1."""
    prior_preservation: Literal["clips", "class-clips", "class-pictures", "nothing"] = "clips"
    """What preserves the base's prior: clips of `prior_prompts`, clips or single pictures of the subject's class."""
    fit: Literal["square", "contain"] = "square"
    """Fit pictures into a square by squashing their aspect (the authors' way) or by padding."""
    placements: Positive = 1
    """How often each picture is placed in a frame: first as large as fits and centered, then smaller, anywhere. A small
    base only learns the sizes that it is shown."""
    min_height: Height = 1.0
    """Smallest height of the subject in those further placements, as a share of the frame's height."""
    paste: PasteSettings | None = None
    """Paste the subject on generated backgrounds instead of placing its pictures. Needs BaseSettings.backgrounds and
    the region loss, which ignores the background."""
    warmup: Count = 0
    """Steps over which the learning rate rises to `learning_rate`."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: constant, or half a cosine down to zero at the last step."""
    weight_decay: Weight = 1e-2
    """Weight decay of AdamW."""
    ema_decay: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Samples and the finished subject have an exponential moving average of the weights with this decay, which rises
    to it over the first steps; 0 for none. It needs the memory of the trained weights once more."""
    max_grad_norm: Annotated[float, Meta(gt=0)] = 1.0
    """The gradient's norm is clipped to this."""
    gradient_accumulation: Positive = 1
    """Batches (pictures, then clips) that make one optimizer step."""
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Precision of the network on a GPU. A CPU computes in float32; the trained weights are float32 anywhere."""
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"
    """adamw8bit keeps the moments in 8 bits; it needs bitsandbytes and a GPU."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about a third slower, a fraction of the memory."""
    checkpoint_every: Positive = 50
    """Steps between two checkpoints of the training."""
    validate_every: Count = 0
    """Steps between two validation samples of the subject; 0 for none."""
    validation_inference_steps: Positive = 10
    """Sampling steps of a validation sample."""
    validation_prompts: list[str] = []
    """Prompts of the validation samples, a clip of each; by default the subject's own ("a sks dog")."""
    motion_clips: Count = 0
    """Clips of the class, with a LoRA and without, from which its motion after training is measured; 0 for none."""

    @property
    def pasting(self) -> PasteSettings | None:
        """`paste` if it applies: a loss over whole pictures needs the pictures as they are."""
        return self.paste if self.loss_region == "subject" else None


def _prior_prompts() -> list[str]:
    return Path(__file__).with_name("prior_prompts.txt").read_text(encoding="utf-8").splitlines()


class BaseSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """A base model's format, and its defaults for sampling and training."""

    title: str
    """Name for people."""
    width: Positive
    """Width of a frame in pixels."""
    height: Positive
    """Height of a frame in pixels."""
    frames: Positive
    """Frames of a clip."""
    fps: Annotated[float, Meta(gt=0)]
    """Frames a second of the clips that the model was trained on."""
    num_inference_steps: Positive
    """Sampling steps."""
    guidance_scale: Annotated[float, Meta(ge=0)]
    """Classifier-free guidance scale; 1 or less for none."""
    control: ControlSettings
    """Box control and camera control."""
    lora: TrainSettings
    """Defaults for training a LoRA."""
    full: TrainSettings
    """Defaults for full fine-tuning."""
    method: Literal["lora", "full"] = "lora"
    """The method of jobs that do not name one."""
    shared_noise: Share = 0.0
    """rho, the share of the initial noise's variance that all frames have in common:
    n_f' = sqrt(1 - rho) n_f + sqrt(rho) n_0."""
    prior_prompts: Annotated[list[str], Meta(min_length=1)] = field(default_factory=_prior_prompts)
    """Prompts of the prior-preservation clips; by default everyday subjects."""
    backgrounds: dict[str, str] = {}
    """Backgrounds for pasting: from the end of the caption ("on the grass") to the prompt that generates the empty
    background ("the grass")."""
    max_sequence_length: Positive | None = None
    """Tokens of a prompt, padding included; by default the tokenizer's maximum."""
    cpu_threads: Positive | None = None
    """Threads that the process computes with on a CPU; torch's own choice by default. A small model gains nothing from
    a second thread, and loses severalfold on a busy machine because its threads wait for each other."""

    def __post_init__(self) -> None:
        if (self.lora.paste or self.full.paste) and not self.backgrounds:
            raise ValueError("`paste` needs at least one entry in `backgrounds`")

    @classmethod
    def read(cls, path: Path) -> BaseSettings:
        """Raises InvalidInput if the file is missing or is not of this form."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise InvalidInput(
                "The base model's settings at {path} cannot be read: {problem}.", path=path, problem=in_words(error)
            ) from error
