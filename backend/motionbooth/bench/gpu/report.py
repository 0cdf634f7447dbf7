"""What `bench gpu` found, part by part: a JSON file that a later run continues, and a row of the README's table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from motionbooth_protocol.errors import InvalidInput
from msgspec import Struct, field

from motionbooth.bench.gpu.card import Card
from motionbooth.bench.measures import Measure


class PartResult(Struct, frozen=True):
    """One part. What was measured before something in it failed is kept."""

    state: Literal["done", "failed", "skipped"]
    date: str
    """When it ended, in UTC (ISO 8601)."""
    seconds: float
    dtype: str
    measures: list[Measure]
    reasons: list[str] = []
    """What failed, or why the part was skipped, in a sentence each."""


class GpuReport(Struct):
    """All parts that were measured on a card."""

    card: Card
    bench: Literal["gpu"] = "gpu"
    parts: dict[str, PartResult] = field(default_factory=dict)

    @property
    def measures(self) -> list[Measure]:
        return [measure for part in self.parts.values() for measure in part.measures]

    def row(self) -> str:
        """The card's row in the README's table. A figure that was not measured is a dash."""
        values = {measure.name: measure.value for measure in self.measures}
        figures = [f"{values[name]:.3g}" if name in values else "-" for name in COLUMNS.values()]
        date = max((part.date[:10] for part in self.parts.values()), default="-")
        card = f"{self.card.name}, {self.card.memory_gb:.0f} GB"
        return table_row([card, f"{self.card.driver}; torch {self.card.torch}", date, *figures])


COLUMNS = {
    "Zeroscope: step, s": "zeroscope_step_seconds",
    "/ plain": "zeroscope_step_ratio",
    "clips an hour": "zeroscope_clips_an_hour",
    "peak, GB": "zeroscope_peak_gb",
    "LoRA step, s": "zeroscope_training_step_seconds",
    "Wan 1.3B: step, s": "wan_1_3b_step_seconds",
    "/ plain ": "wan_1_3b_step_ratio",
    "clips an hour ": "wan_1_3b_clips_an_hour",
    "peak, GB ": "wan_1_3b_peak_gb",
    "LoRA step, s ": "wan_1_3b_training_step_seconds",
    "tests passed": "tests_passed",
    "failed": "tests_failed",
}
"""The figures in the README's table: heading and measure."""


def table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.strip() for cell in cells)} |"


def table_heading() -> str:
    return table_row(["card", "driver", "date", *COLUMNS])


def continued(json_file: Path | None, card: Card, fresh: bool) -> GpuReport:
    """The report in this file, if it is of this card and this version; otherwise an empty one.

    Raises InvalidInput if the file has anything else in it, unless `fresh`.
    """
    if json_file is None or not json_file.exists():
        return GpuReport(card)
    try:
        found = msgspec.json.decode(json_file.read_bytes(), type=GpuReport)
    except msgspec.DecodeError:
        if fresh:
            return GpuReport(card)
        raise InvalidInput(
            "{path} is not a result of this bench; name another file, or replace it with --fresh.", path=json_file
        ) from None
    if found.card == card:
        return found
    if fresh:
        return GpuReport(card)
    raise InvalidInput(
        "{path} has the figures of {other} and not of {this}; name another file, or replace it with --fresh.",
        path=json_file,
        other=_described(found.card),
        this=_described(card),
    )


def _described(card: Card) -> str:
    return f"{card.name} (driver {card.driver}, torch {card.torch}, MotionBooth {card.version})"
