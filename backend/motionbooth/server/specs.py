"""What the server reads from a job's spec."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from motionbooth_protocol.jobs import GenerateSpec, JobSpec, TrainSpec


class AffinityKey(NamedTuple):
    """What a worker must have in memory to start a job at once: a base model, then the weights of its subjects."""

    model: str
    weights: tuple[str, ...] = ()

    def encoded(self) -> str:
        """As text, equal for equal keys, for a column of the database."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def decoded(cls, text: str) -> AffinityKey:
        return msgspec.json.decode(text, type=cls)


def encode_spec(spec: JobSpec) -> bytes:
    """As the store keeps it."""
    return msgspec.msgpack.encode(spec)


def affinity_key(spec: JobSpec) -> AffinityKey | None:
    """None for a training, which leaves nothing in memory that another job could use."""
    if isinstance(spec, TrainSpec):
        return None
    return AffinityKey(spec.model, tuple(_weights(spec)))


def input_files(spec: JobSpec) -> set[str]:
    """The sha256 of every file that the job reads."""
    if isinstance(spec, TrainSpec):
        pictures = spec.subject.pictures
        return {sha256 for picture in pictures for sha256 in (picture.image, picture.mask) if sha256 is not None}
    guide = () if spec.guide is None else (spec.guide.clip, spec.guide.masks)
    return {*_weights(spec), *(sha256 for sha256 in guide if sha256 is not None)}


def _weights(spec: GenerateSpec) -> dict[str, None]:
    """The sha256 of each subject and style, in loading order."""
    subjects = [track.weights for track in spec.shot.subjects if track.weights is not None]
    return dict.fromkeys([*subjects, *(style.weights for style in spec.styles)])


def kind_of(spec: JobSpec) -> str:
    """As in Job.kind."""
    return "train" if isinstance(spec, TrainSpec) else "generate"


def display_name(spec: JobSpec) -> str:
    """The animator's name for it: that of the subject or the shot."""
    return spec.subject.name if isinstance(spec, TrainSpec) else spec.shot.name


def pace_key(spec: JobSpec) -> str:
    """Equal for jobs whose stages take about the same time a step."""
    if isinstance(spec, TrainSpec):
        return f"train {spec.model} {spec.method} {spec.recipe}"
    return f"generate {spec.model}"
