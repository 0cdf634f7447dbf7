"""The base model of the last generate job, kept in memory so that the next job need not load it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec, Style

from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import model_version, source_named
from motionbooth.models.styles import add_style
from motionbooth.models.subject_card import read_card
from motionbooth.models.subject_weights import load_subject


class ModelCache:
    """Holds at most one base model, with exactly the subjects and styles of the last job.

    A subject's weights are never subtracted from the base again, which would leave rounding errors for the next job: a
    base with other subjects than the job needs is discarded and loaded again.
    """

    def __init__(self) -> None:
        self._base: Base | None = None
        self._added: tuple[str | Style, ...] = ()  # sha256 of each subject, and styles, in loading order
        self._version = ""

    def get(self, spec: GenerateSpec, blob_path: Callable[[str], Path]) -> Base:
        """The spec's base with its subjects, bit for bit as if loaded for this job. Raises NotFound, InvalidInput.

        `blob_path` returns the file of an uploaded blob by its sha256.
        """
        source = source_named(spec.model)
        wanted: tuple[str | Style, ...] = (*in_loading_order(subject_weights(spec), blob_path), *spec.styles)
        version = model_version(spec.model)  # a model's files may be replaced while this process runs
        base, loaded = self._base, self._added
        self._base = None  # a base that fails halfway must not stay
        reusable = base is not None and base.source == source and self._version == version
        if base is None or not reusable or loaded != wanted[: len(loaded)]:
            del base  # free its memory for the next one
            base, loaded = load_base(source), ()
        for item in wanted[len(loaded) :]:
            if isinstance(item, Style):
                add_style(base, blob_path(item.weights), item)
            else:
                load_subject(base, blob_path(item))
        self._base, self._added, self._version = base, wanted, version
        return base

    def clear(self) -> None:
        """Free the memory."""
        self._base = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def in_loading_order(weights: Sequence[str], blob_path: Callable[[str], Path]) -> tuple[str, ...]:
    """A fully fine-tuned subject before all LoRAs, which are added to it. Raises InvalidInput if there are two."""
    cards = {sha256: read_card(blob_path(sha256)) for sha256 in weights}
    full = [card.name for card in cards.values() if card.method == "full"]
    if len(full) > 1:
        raise InvalidInput(
            '"{one}" and "{other}" were both trained by full fine-tuning, but a model can have only one set '
            'of weights. Train all but one of these subjects again with the method "lora".',
            one=full[0],
            other=full[1],
        )
    return tuple(sorted(cards, key=lambda sha256: cards[sha256].method != "full"))


def subject_weights(spec: GenerateSpec) -> tuple[str, ...]:
    """The sha256 of each trained subject of the shot, without repeats, in the shot's order."""
    return tuple(dict.fromkeys(track.weights for track in spec.shot.subjects if track.weights is not None))
