"""The specs of jobs, which a client submits, and their results, which it fetches."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from . import text
from .errors import ErrorReport, InvalidInput
from .limits import (
    MAX_BLOB_BYTES,
    MAX_PICTURES,
    MAX_SAMPLING_STEPS,
    MAX_SEED,
    MAX_STYLES,
    MAX_TEXT,
    MAX_TRAINING_STEPS,
)
from .long_shots import LongShot
from .masters import Master
from .motion import Box, Name, Sha256, Short, Shot
from .printable import PRINTABLE
from .wording import in_words

JobId = Annotated[str, Meta(pattern=r"\A[0-9a-zA-Z_-]{8,64}\Z")]
Text = Annotated[str, Meta(max_length=MAX_TEXT, pattern=PRINTABLE)]
Within = Annotated[float, Meta(ge=0, le=1)]
Seed = Annotated[int, Meta(ge=0, le=MAX_SEED)]

# The names of the fields of a spec, for people.
_CALLED = {
    "class_word": "the class", "token": "the token", "name": "the name", "prompt": "the prompt", "model": "the model",
    "negative_prompt": "the negative prompt", "background_phrase": "the background's words", "steps": "the steps",
    "num_inference_steps": "the steps",
    "master": "the master", "subjects": "the list of subjects", "pictures": "the list of pictures", "seed": "the seed",
}  # fmt: skip


class JobState(StrEnum):
    """The state of a job: in the client `waiting` for another job or `sending`, in the backend from `queued` on."""

    WAITING = "waiting"
    SENDING = "sending"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELED = "canceled"


BACKEND_STATES = tuple(state for state in JobState if state not in (JobState.WAITING, JobState.SENDING))
TERMINAL_STATES = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELED})


class Picture(Struct, frozen=True):
    """A training picture and its mask, both named by the sha256 of the uploaded file.

    Without a mask, the picture's alpha is the mask; without alpha, the backend searches for one, guided by `box`
    (around the subject) or `point` (on it), in shares of the upright picture's width and height from its top left.
    `name`: for error messages, such as the file name. `caption`: what it shows, with the subject's token and class;
    empty for the subject's prompt.
    """

    image: Sha256
    mask: Sha256 | None = None
    name: Short = ""
    box: Box | None = None
    point: tuple[Within, Within] | None = None
    caption: Text = ""


class MaskDoubt(Struct, frozen=True):
    """A mask that the backend found and that may be wrong: its `picture`, named for people, and the reasons.

    The result "doubts" of a train job is a JSON list of these.
    """

    picture: text.Text
    reasons: list[text.Text] = []


class SubjectSpec(Struct, frozen=True):
    """A subject to train: `token` is the rare word, `class_word` the ordinary noun of its prompt."""

    name: Name
    token: Name
    class_word: Name
    pictures: Annotated[list[Picture], Meta(min_length=1, max_length=MAX_PICTURES)]

    @property
    def phrase(self) -> str:
        return f"{self.token} {self.class_word}"

    @property
    def prompt(self) -> str:
        return f"a {self.phrase}"


class TrainSpec(Struct, frozen=True, tag="train"):
    """Fine-tune a subject. None stands for the base model's default.

    `recipe`: the name of the training recipe. A backend that does not know it answers with the list of those it knows.
    """

    subject: SubjectSpec
    model: Name = "toybox"
    seed: Seed = 0
    steps: Annotated[int, Meta(ge=1, le=MAX_TRAINING_STEPS)] | None = None
    learning_rate: Annotated[float, Meta(gt=0, le=1)] | None = None
    method: Annotated[str, Meta(pattern=r"\A(lora|full)\Z")] | None = None
    recipe: Name = "motionbooth"


class Style(Struct, frozen=True):
    """A LoRA of another program for the base model, by the sha256 of the uploaded file, and how strongly it acts."""

    weights: Sha256
    strength: Annotated[float, Meta(ge=-2, le=2)] = 1.0


class Guide(Struct, frozen=True):
    """A clip to start from, such as a simple render of the scene, by the sha256 of the uploaded file; or a picture.

    It has the shape of the model's frames, the shot's duration, and one frame for each of the model's or of the shot's.
    A picture is the first frame; in the others, its background moves along the camera's path and its subjects are free.
    While the noise level is above 1 - strength, the clip that forms is the guide's: 0 ignores it, 1 returns it.
    `subject_strength` applies in the subjects' boxes, `background_strength` elsewhere. `masks`: of a clip, a clip
    of the same frames that replaces the boxes, white where a subject is.
    """

    clip: Sha256
    subject_strength: Within = 0.0
    background_strength: Within = 0.0
    masks: Sha256 | None = None

    @property
    def acts(self) -> bool:
        return self.subject_strength > 0 or self.background_strength > 0


class GenerateSpec(Struct, frozen=True, tag="generate"):
    """Generate the clip of a shot. None stands for the base model's default.

    The prompt must contain each subject's phrase (SubjectTrack.phrase). `box_control` and `camera_control` can be
    switched off for comparison. `long_shot`: how the frames for which the shot has boxes cover it. They are as many as
    the model's clip has ("spread"), or as many as the shot has at the model's rate ("windows"), see long_shots.py.
    `master`: what is written beside the clip. If the clip has a higher rate than the model's frames, the backend makes
    in-betweens where it has a model for it; `hold_frames` asks for the model's frames alone. `upscale`: enlarge the
    frames, by the backend's upscaler.
    """

    shot: Shot
    prompt: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT, pattern=PRINTABLE)]
    model: Name = "toybox"
    seed: Seed = 0
    negative_prompt: Text = ""
    background_phrase: Text = ""
    num_inference_steps: Annotated[int, Meta(ge=1, le=MAX_SAMPLING_STEPS)] | None = None
    guidance_scale: Annotated[float, Meta(ge=0, le=100)] | None = None
    box_control: bool = True
    camera_control: bool = True
    styles: Annotated[list[Style], Meta(max_length=MAX_STYLES)] = []
    guide: Guide | None = None
    master: Master | None = None
    long_shot: LongShot = "spread"
    hold_frames: bool = False
    upscale: bool = False


JobSpec = TrainSpec | GenerateSpec
SomeSpec = TypeVar("SomeSpec", bound=TrainSpec | GenerateSpec)


class Blob(Struct, frozen=True):
    """A result file, named by its content. `role` says what it is.

    Of a train job: "subject" (safetensors), optionally "masks", "losses" (curves) and "samples" (all PNG), and "doubts"
    (JSON, a list of MaskDoubt). Of a generate job: "clip" (mp4, at the shot's fps and length), optionally "report"
    (JSON), and "master" if one was asked for: a movie, or a zip of a sequence. Clients ignore unknown roles.
    """

    role: Annotated[str, Meta(max_length=40, pattern=PRINTABLE)]
    sha256: Sha256
    size: Annotated[int, Meta(ge=0, le=MAX_BLOB_BYTES)]


class Job(Struct, frozen=True):
    """A job as its owner sees it. `error` is the reason for a failure. Times are in Unix seconds.

    `name` is that of the subject or the shot, `owner` the name of the sender's key on the backend.
    """

    id: JobId
    kind: Annotated[str, Meta(pattern=r"\A(train|generate)\Z")]
    state: JobState
    created: float
    updated: float
    attempt: int = 0
    error: ErrorReport | None = None
    results: list[Blob] = []
    name: Short = ""
    model: Short = ""
    priority: int = 0
    owner: Short = ""

    def result(self, role: str) -> Blob:
        """The result with this role. Raises KeyError if there is none."""
        for blob in self.results:
            if blob.role == role:
                return blob
        raise KeyError(role)


def spec_digest(spec: JobSpec, is_received: bool = False) -> str:
    """sha256 of the canonical encoding: jobs with the same digest have the same results.

    `is_received`: the spec was decoded, which takes milliseconds for a large one.
    """
    canonical = spec if is_received else as_received(spec)
    return hashlib.sha256(msgspec.msgpack.encode(canonical, order="deterministic")).hexdigest()


def as_received(spec: SomeSpec) -> SomeSpec:
    """The spec as the other side decodes it, where an integer in a field of type float becomes a float.

    Raises msgspec.ValidationError, a ValueError, if a value is out of bounds: structs check that when they are decoded,
    not when they are constructed.
    """
    return msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=type(spec))


def check_spec(spec: JobSpec) -> None:
    """Raises InvalidInput if a value is out of bounds."""
    try:
        as_received(spec)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            "This cannot be sent: {problem}. Change it and try again.", problem=in_words(error, _CALLED)
        ) from error
