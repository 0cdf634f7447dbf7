"""What a job asks for and what it gives: the specs that an animator's machine sends, and the results it fetches."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from .errors import InvalidInput
from .limits import (
    MAX_BLOB_BYTES,
    MAX_NAME,
    MAX_PICTURES,
    MAX_SAMPLING_STEPS,
    MAX_SEED,
    MAX_TEXT,
    MAX_TRAINING_STEPS,
)
from .motion import Box, Name, Sha256, Shot
from .wording import in_words

JobId = Annotated[str, Meta(pattern=r"\A[0-9a-zA-Z_-]{8,64}\Z")]
Text = Annotated[str, Meta(max_length=MAX_TEXT)]
Within = Annotated[float, Meta(ge=0, le=1)]
Seed = Annotated[int, Meta(ge=0, le=MAX_SEED)]

# What people call the fields of a spec.
_CALLED = {
    "class_word": "the class", "token": "the token", "name": "the name", "prompt": "the prompt", "model": "the model",
    "negative_prompt": "the negative prompt", "background_phrase": "the background's words", "steps": "the steps",
    "subjects": "the list of subjects", "pictures": "the list of pictures", "seed": "the seed",
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

    Without a mask the picture's own alpha is the mask; without that, the backend finds one, led by `box` (where the
    subject is) or `point` (a place on it), both in shares of the upright picture's width and height from its top left.
    `name`: what errors call the picture, its file's name for instance.
    """

    image: Sha256
    mask: Sha256 | None = None
    name: Annotated[str, Meta(max_length=MAX_NAME)] = ""
    box: Box | None = None
    point: tuple[Within, Within] | None = None


class MaskDoubt(Struct, frozen=True):
    """A mask that the backend found and that may be wrong: of which `picture`, in words, and why.

    The result "doubts" of a train job is a list of them, as JSON.
    """

    picture: str
    reasons: list[str] = []


class SubjectSpec(Struct, frozen=True):
    """Who is to be learned: `token` is the rare word, `class_word` the ordinary noun of the prompt below."""

    name: Name
    token: Name
    class_word: Name
    pictures: Annotated[list[Picture], Meta(min_length=1, max_length=MAX_PICTURES)]

    @property
    def prompt(self) -> str:
        return f"a {self.token} {self.class_word}"


class TrainSpec(Struct, frozen=True, tag="train"):
    """Learn a subject. Every None takes the base model's own default.

    `recipe`: the name of the training recipe. A backend that does not know it answers with the list of those it knows.
    """

    subject: SubjectSpec
    model: Name = "toybox"
    seed: Seed = 0
    steps: Annotated[int, Meta(ge=1, le=MAX_TRAINING_STEPS)] | None = None
    learning_rate: Annotated[float, Meta(gt=0, le=1)] | None = None
    method: Annotated[str, Meta(pattern=r"\A(lora|full)\Z")] | None = None
    recipe: Name = "motionbooth"


class GenerateSpec(Struct, frozen=True, tag="generate"):
    """Film a shot. Every None takes the base model's own default.

    The prompt must contain each subject's phrase (SubjectTrack.phrase). `box_control` and `camera_control` switch
    the two controls off for comparison.
    """

    shot: Shot
    prompt: Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]
    model: Name = "toybox"
    seed: Seed = 0
    negative_prompt: Text = ""
    background_phrase: Text = ""
    steps: Annotated[int, Meta(ge=1, le=MAX_SAMPLING_STEPS)] | None = None
    guidance: Annotated[float, Meta(ge=0, le=100)] | None = None
    box_control: bool = True
    camera_control: bool = True


JobSpec = TrainSpec | GenerateSpec
SomeSpec = TypeVar("SomeSpec", bound=TrainSpec | GenerateSpec)


class Blob(Struct, frozen=True):
    """A file named by its content. `role` says what it is for.

    Of a train job: "subject" (safetensors), and perhaps "masks", "losses" (curves) and "samples" (all png), and
    "doubts" (json: a list of MaskDoubt, where there are any); of a generate job: "clip" (mp4, at the shot's fps and
    length), and perhaps "report" (json). A client passes over roles that it does not know.
    """

    role: Annotated[str, Meta(max_length=40)]
    sha256: Sha256
    size: Annotated[int, Meta(ge=0, le=MAX_BLOB_BYTES)]


class Job(Struct, frozen=True):
    """A job as its owner sees it. `error` says why it failed, in words for a person. Times are Unix seconds.

    `name` is the subject's or the shot's, `owner` the name of the sender's key on the backend.
    """

    id: JobId
    kind: Annotated[str, Meta(pattern=r"\A(train|generate)\Z")]
    state: JobState
    created: float
    updated: float
    attempt: int = 0
    error: str = ""
    results: list[Blob] = []
    name: Annotated[str, Meta(max_length=MAX_NAME)] = ""
    model: Annotated[str, Meta(max_length=MAX_NAME)] = ""
    priority: int = 0
    owner: Annotated[str, Meta(max_length=MAX_NAME)] = ""

    def result(self, role: str) -> Blob:
        """The one result with this role. Raises KeyError where there is none."""
        for blob in self.results:
            if blob.role == role:
                return blob
        raise KeyError(role)


def spec_digest(spec: JobSpec) -> str:
    """sha256 of the canonical encoding: two specs with the same digest ask for the same thing."""
    return hashlib.sha256(msgspec.msgpack.encode(as_received(spec), order="deterministic")).hexdigest()


def as_received(spec: SomeSpec) -> SomeSpec:
    """The spec as the other side decodes it: a whole number in a field of type float is a float then.

    Raises msgspec.ValidationError, a ValueError, where a value is out of its bounds: structs check them when they are
    decoded, not when they are made.
    """
    return msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=type(spec))


def check_spec(spec: JobSpec) -> None:
    """Raises InvalidInput where a value is out of its bounds, in words for whoever filled it in."""
    try:
        as_received(spec)
    except msgspec.ValidationError as error:
        raise InvalidInput(
            "This cannot be sent: {problem}. Change it and try again.", problem=in_words(error, _CALLED)
        ) from error
