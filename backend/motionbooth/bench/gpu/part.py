"""A part of `bench gpu`, and how one is run. What a card cannot do costs no other figure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import torch
from motionbooth_protocol.errors import MotionBoothError

from motionbooth.bench.gpu.card import free_memory
from motionbooth.bench.gpu.report import PartResult
from motionbooth.bench.measures import Measure
from motionbooth.models.memory.plans import is_out_of_memory

Finding = Measure | str  # a figure, or what failed in a sentence


class PartSkipped(Exception):
    """The part cannot be run here, whatever the card. The text says what it needs."""


@dataclass(frozen=True)
class Part:
    """`measure` yields each figure as soon as it is known, and after a failure goes on to what else there is."""

    measure: Callable[[torch.device], Iterator[Finding]]
    dtype: str


def attempted(what: str, device: torch.device, work: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of `work`; if it raises, `what` and why, as a finding."""
    try:
        yield from work()
    except PartSkipped:
        raise
    except Exception as error:  # a card may fail in any way
        yield f"{what}: {reason_of(error)}"
    free_memory(device)


def reason_of(error: Exception) -> str:
    """An error of torch in one line."""
    if isinstance(error, MotionBoothError | FloatingPointError):
        return str(error)
    words = " ".join(str(error).split())[:200]
    if is_out_of_memory(error):
        return f"out of memory ({words})"
    return f"{type(error).__name__} ({words})"


def run_part(name: str, part: Part, device: torch.device) -> PartResult:
    """Raises only what is to end the whole bench, such as KeyboardInterrupt."""
    began = time.monotonic()
    findings: list[Finding] = []
    skipped = ""
    try:
        findings += attempted(name, device, lambda: part.measure(device))
    except PartSkipped as error:
        skipped = str(error)
    measures = [found for found in findings if isinstance(found, Measure)]
    reasons = [skipped] if skipped else [found for found in findings if isinstance(found, str)]
    return PartResult(
        state="skipped" if skipped else "failed" if reasons else "done",
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.monotonic() - began,
        dtype=part.dtype,
        measures=measures,
        reasons=reasons,
    )
