"""The base model of the last filming, kept in memory, so that the next job of the same base need not load it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec

from motionbooth.models.registry import Base, load_base
from motionbooth.models.sources import model_version, source_named
from motionbooth.models.subject_card import read_card
from motionbooth.models.subject_weights import load_subject


class WarmBase:
    """At most one base, which knows exactly the subjects that were asked for.

    What a base has learned is never taken out of its weights again by arithmetic, which would leave rounding errors
    for the next job: a base that knows too much is thrown away and loaded anew.
    """

    def __init__(self) -> None:
        self._base: Base | None = None
        self._knows: tuple[str, ...] = ()
        self._files = ""

    def knowing(self, spec: GenerateSpec, blob_path: Callable[[str], Path]) -> Base:
        """The spec's base and its subjects, bit for bit as if loaded for this job. Raises NotFound, InvalidInput."""
        source, wanted = source_named(spec.model), in_loading_order(wanted_weights(spec), blob_path)
        files = model_version(spec.model)  # a model may be exchanged under its name while this process lives
        is_same = self._base is not None and self._base.source == source and self._files == files
        known = self._knows if is_same else None
        base, self._base = self._base, None  # what breaks on the way must not stay
        if base is None or known is None or known != wanted[: len(known)]:
            del base  # its memory is needed for the next one
            base, known = load_base(source), ()
        for sha256 in wanted[len(known) :]:
            load_subject(base, blob_path(sha256))
        self._base, self._knows, self._files = base, wanted, files
        return base

    def drop(self) -> None:
        """Give the memory back."""
        self._base = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def in_loading_order(weights: Sequence[str], blob_path: Callable[[str], Path]) -> tuple[str, ...]:
    """A subject of full weights before all others, which add up to it. Raises InvalidInput where there are two."""
    cards = {sha256: read_card(blob_path(sha256)) for sha256 in weights}
    full = [card.name for card in cards.values() if card.method == "full"]
    if len(full) > 1:
        raise InvalidInput(
            '"{one}" and "{other}" were both learned with full weights, and a film model can only have one set '
            'of them. Learn all but one of these subjects again with the method "lora".',
            one=full[0],
            other=full[1],
        )
    return tuple(sorted(cards, key=lambda sha256: cards[sha256].method != "full"))


def wanted_weights(spec: GenerateSpec) -> tuple[str, ...]:
    """sha256 of every trained subject of the shot, each once, in the shot's order."""
    return tuple(dict.fromkeys(track.weights for track in spec.shot.subjects if track.weights is not None))
