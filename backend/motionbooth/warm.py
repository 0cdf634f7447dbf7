"""The base model of the last filming, kept in memory, so that the next job of the same base need not load it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from motionbooth_protocol.jobs import GenerateSpec

from .models.registry import Base, load_base
from .models.sources import source_named
from .subject.weights import load_subject


class WarmBase:
    """At most one base, which knows exactly the subjects that were asked for.

    What a base has learned is never taken out of its weights again by arithmetic, which would leave rounding errors
    for the next job: a base that knows too much is thrown away and loaded anew.
    """

    def __init__(self) -> None:
        self._base: Base | None = None
        self._knows: tuple[str, ...] = ()

    def knowing(self, spec: GenerateSpec, blob_path: Callable[[str], Path]) -> Base:
        """The spec's base and its subjects, bit for bit as if loaded for this job. Raises NotFound, InvalidInput."""
        source, wanted = source_named(spec.model), wanted_weights(spec)
        known = self._knows if self._base is not None and self._base.source == source else None
        base, self._base = self._base, None  # what breaks on the way must not stay
        if base is None or known is None or known != wanted[: len(known)]:
            del base  # its memory is needed for the next one
            base, known = load_base(source), ()
        for sha256 in wanted[len(known) :]:
            load_subject(base, blob_path(sha256))
        self._base, self._knows = base, wanted
        return base

    def drop(self) -> None:
        """Give the memory back."""
        self._base = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def wanted_weights(spec: GenerateSpec) -> tuple[str, ...]:
    """sha256 of every trained subject of the shot, in the order in which they are loaded."""
    return tuple(dict.fromkeys(track.weights for track in spec.shot.subjects if track.weights is not None))
