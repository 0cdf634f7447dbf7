"""A base model's settings, as data: a JSON file beside its weights (`motionbooth.json`)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.wording import in_words
from msgspec import Meta, Struct, field

from motionbooth.control.settings import ControlSettings

Share = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[int, Meta(ge=1)]


class PasteSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How the subject's cut-outs are pasted on the base's own places (`places` of BaseSettings) for training.

    `pool`: how many pictures are made, and encoded, once; each step takes TrainSettings.image_batch of them. `frames`:
    how many of each place's clip serve as backgrounds. `smallest`, `largest`: the subject's height, a share of the
    frame's, as boxes have it (a subject wider than the frame is made to fit). `roll`: turned by up to so many degrees
    either way. `gain`: each color channel times 1 - gain to 1 + gain. `flip`: half of them mirrored; writing and what
    is on one side only suffer. `grow`: so many latent cells around the subject are in the region loss too, which is
    where its outline is decided. `box_share`: the share of the pictures of a step that are shown with the attention
    edit of their own box, as sampling has it; those have no attention loss, as the edit has decided the attention.
    """

    pool: Positive = 200
    frames: Positive = 3
    smallest: Annotated[float, Meta(gt=0, le=1)] = 0.5
    largest: Annotated[float, Meta(gt=0, le=1)] = 0.9
    roll: Annotated[float, Meta(ge=0, le=180)] = 8.0
    gain: Share = 0.05
    flip: bool = False
    grow: Annotated[int, Meta(ge=0)] = 1
    box_share: Share = 0.0


class TrainSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How a subject is learned on this base (paper, section 3.2).

    `warmup`: over so many steps the learning rate rises to `learning_rate`; `decay`: from there it stays ("none"), or
    falls to zero on half a cosine until the last step ("cosine"). `subject_weight` multiplies a true mean over the
    masked cells; the authors' loss is the same at 4.0. `preservation_weight` is lambda_1, `stca_weight` lambda_2.
    `image_batch`: pictures a step (at most all there are). `clips`: ordinary clips that the base makes of itself, once,
    to be preserved. `rank` and `layers` (a regular expression over the UNet's module names) are the LoRA's; full
    fine-tuning learns everything. `placements`: how many times each picture is set into a frame, once as large as it
    can be and then anywhere and smaller, the subject down to the share `smallest` of the frame's height: a small base
    knows a subject only at the sizes that it has seen. `paste`: the subject is pasted on the base's own places instead
    (None: it is not), wherever there is the region loss that leaves the place alone.

    What the recipes of subject/recipes.py change: `region` (the loss on the subject's cells or on the whole picture),
    `preserve` (what keeps the base what it is: ordinary clips; clips, or single pictures, of the subject's class;
    nothing), `learned` (a regular expression over the UNet's parameter names: what full fine-tuning changes).

    What changes only time and memory: `accumulate` batches of pictures and of clips make one step; `precision` of the
    arithmetic on a GPU (a CPU computes in float32; what is learned is float32 everywhere); `recompute_layers`: gradient
    checkpointing, some 40 % slower, for a fraction of the memory. `validate_every` n steps the subject is filmed in
    `validation_steps` steps, so that one can see it come (0: never).
    """

    steps: Positive
    learning_rate: Annotated[float, Meta(gt=0)]
    image_batch: Positive
    clips: Annotated[int, Meta(ge=0)]
    rank: Positive = 16
    layers: str = r".*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2)"
    subject_weight: float = 4.0
    preservation_weight: float = 1.0
    stca_weight: float = 0.01
    stca_reduce: Literal["mean", "sum"] = "mean"
    fit: Literal["square", "contain"] = "square"
    placements: Positive = 1
    smallest: Annotated[float, Meta(gt=0, le=1)] = 1.0
    weight_decay: float = 1e-2
    gradient_clip: float = 1.0
    checkpoint_every: Positive = 50
    region: Literal["subject", "picture"] = "subject"
    preserve: Literal["clips", "class-clips", "class-pictures", "nothing"] = "clips"
    learned: str = ".*"
    accumulate: Positive = 1
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    recompute_layers: bool = False
    validate_every: Annotated[int, Meta(ge=0)] = 0
    validation_steps: Positive = 10
    paste: PasteSettings | None = None
    warmup: Annotated[int, Meta(ge=0)] = 0
    decay: Literal["none", "cosine"] = "none"

    @property
    def pasting(self) -> PasteSettings | None:
        """`paste`, where it applies: whole pictures (`region` "picture") are learned as they are."""
        return self.paste if self.region == "subject" else None


def _everyday_prompts() -> list[str]:
    return Path(__file__).with_name("ordinary_prompts.txt").read_text(encoding="utf-8").splitlines()


class BaseSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What a base model films by default.

    `width`, `height` in pixels, `frames` of one clip at its own `fps`; `steps` and `guidance` of sampling; `alpha`,
    `amplify_until`, `shift_from`, `shift_until`, `suppress`, `shift_parts` as in ControlSettings. `shared_noise` is
    rho: how much of the initial noise all frames have in common, n_f' = sqrt(1 - rho) n_f + sqrt(rho) n_0. `method`:
    how a subject is learned where a job does not say. `ordinary_prompts` describe the clips that keep the base what it
    is while a subject is learned, by default what people film every day. `places`: where a subject can be, as captions
    say it ("on the grass"), and the prompt that generates the place with nobody there ("the grass"); `paste` of
    TrainSettings needs one at least. `cpu_threads`: how many the process computes
    with on a CPU, torch's own choice by default. (A small model gains nothing from a second thread and, on a machine
    that does other things too, loses several times over, as its threads wait for each other.) `hub`: its name on the
    Hugging Face hub, where it is published in diffusers' layout.
    """

    title: str
    width: Positive
    height: Positive
    frames: Positive
    fps: Annotated[float, Meta(gt=0)]
    steps: Positive
    guidance: Annotated[float, Meta(ge=0)]
    alpha: float
    amplify_until: Share
    shift_from: Share
    shift_until: Share
    lora: TrainSettings
    full: TrainSettings
    ordinary_prompts: Annotated[list[str], Meta(min_length=1)] = field(default_factory=_everyday_prompts)
    suppress: Literal["content", "subject"] = "content"
    shared_noise: Share = 0.0
    shift_parts: bool = False
    merge_until: Share = 0.0
    method: Literal["lora", "full"] = "lora"
    cpu_threads: Positive | None = None
    hub: str | None = None
    places: dict[str, str] = {}

    def __post_init__(self) -> None:
        if (self.lora.paste or self.full.paste) and not self.places:
            raise ValueError("`paste` needs one of `places` at least")

    @property
    def control(self) -> ControlSettings:
        return ControlSettings(
            self.alpha,
            self.amplify_until,
            self.shift_from,
            self.shift_until,
            self.suppress,
            self.shift_parts,
            self.merge_until,
        )

    @classmethod
    def read(cls, path: Path) -> BaseSettings:
        """Raises InvalidInput where the file is missing or does not fit."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError) as error:
            raise InvalidInput(
                "The base model's settings at {path} cannot be read: {problem}.", path=path, problem=in_words(error)
            ) from error
