"""The base model of the last generate job, kept in memory so that the next job need not load it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec, Style

from motionbooth.models.base import Base
from motionbooth.models.memory.device import free_unused
from motionbooth.models.memory.loading import load_planned
from motionbooth.models.memory.options import Computing
from motionbooth.models.memory.plans import Plan, smaller_plan
from motionbooth.models.memory.quantizing import quantize
from motionbooth.models.sources import model_version, source_named
from motionbooth.models.styles import add_style
from motionbooth.models.subject_card import read_card
from motionbooth.models.subject_weights import load_subject


class ModelCache:
    """Holds at most one base model, with exactly the subjects and styles of the last job.

    A subject's weights are never subtracted from the base again, which would leave rounding errors for the next job: a
    base with other subjects than the job needs is discarded and loaded again.
    """

    def __init__(self, computing: Computing | None = None) -> None:
        """`computing`: by default as the environment says, when a model is loaded."""
        self._computing = computing
        self._base: Base | None = None
        self._added: tuple[str | Style, ...] = ()  # sha256 of each subject, and styles, in loading order
        self._version = ""
        self._last: tuple[Plan, str] | None = None  # plan and device of the last base

    def get(self, spec: GenerateSpec, blob_path: Callable[[str], Path], plan: Plan | None = None) -> Base:
        """The spec's base with its subjects, bit for bit as if loaded for this job. Raises NotFound, InvalidInput.

        `blob_path` returns the file of an uploaded blob by its sha256. `plan`: a memory plan that the base must have;
        by default the user's or the fastest that fits.
        """
        source = source_named(spec.model)
        wanted: tuple[str | Style, ...] = (*in_loading_order(subject_weights(spec), blob_path), *spec.styles)
        version = model_version(spec.model)  # a model's files may be replaced while this process runs
        base, loaded = self._base, self._added
        self._base = None  # a base that fails halfway must not stay
        reusable = base is not None and base.source == source and self._version == version
        reusable = reusable and plan in (None, base.plan if base is not None else None)
        fixed = base is not None and base.plan.quantized  # nothing can be added to quantized weights
        if base is None or not reusable or loaded != (wanted if fixed else wanted[: len(loaded)]):
            del base  # free its memory for the next one
            self._last = None
            free_unused()
            base, loaded, fixed = load_planned(source, self._computing or Computing.of_this_machine(), plan), (), False
        self._last = base.plan, base.device.type
        for item in wanted[len(loaded) :]:
            if isinstance(item, Style):
                add_style(base, blob_path(item.weights), item)
            else:
                load_subject(base, blob_path(item))
        if base.plan.quantized and not fixed:
            quantize(base.network, base.device)
        self._base, self._added, self._version = base, wanted, version
        return base

    @property
    def base(self) -> Base:
        """That of the last job."""
        assert self._base is not None
        return self._base

    def smaller_plan(self) -> tuple[Plan, Plan] | None:
        """The plan of the last job's base and the next smaller one; None if there is none."""
        if self._last is None:
            return None
        plan, device = self._last
        smaller = smaller_plan(plan, device)
        return None if smaller is None else (plan, smaller)

    def clear(self) -> None:
        """Free the memory."""
        self._base = None
        free_unused()


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
