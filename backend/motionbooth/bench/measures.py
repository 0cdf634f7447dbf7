"""The result of a benchmark: named figures, printed as a table and written as JSON."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from rich.console import Console
from rich.table import Table


class Measure(Struct, frozen=True, omit_defaults=True):
    """One figure. `name` is in snake_case and stable, because the README refers to it.

    `low`, `high`: the 95 % confidence interval, if the bench repeats the measurement.
    """

    name: Annotated[str, Meta(pattern=r"\A[a-z0-9_]+\Z")]
    value: float
    unit: str
    low: float | None = None
    high: float | None = None


class BenchResult(Struct, frozen=True):
    """All figures of one benchmark."""

    bench: str
    measures: list[Measure]

    def value(self, name: str) -> float:
        """The figure with this name. Raises KeyError."""
        for measure in self.measures:
            if measure.name == name:
                return measure.value
        raise KeyError(name)


def publish(result: BenchResult, json_file: Path | None) -> None:
    """Print the table, then write the JSON file if one is named."""
    table = Table(title=f"bench {result.bench}")
    table.add_column("measure", overflow="fold")
    table.add_column("value", justify="right")
    table.add_column("95 %", justify="right")
    table.add_column("unit")
    for measure in result.measures:
        interval = "" if measure.low is None else f"{measure.low:.4g} to {measure.high:.4g}"
        table.add_row(measure.name, f"{measure.value:.4g}", interval, measure.unit)
    Console().print(table)
    write_json(result, json_file)


def write_json(result: Struct, json_file: Path | None) -> None:
    """Write the figures, if a file is named. An interruption leaves the file as it was."""
    if json_file is None:
        return
    json_file.parent.mkdir(parents=True, exist_ok=True)
    is_device = json_file.exists() and not json_file.is_file()  # such as /dev/stdout
    scratch = json_file if is_device else json_file.with_name(json_file.name + ".part")
    scratch.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    if not is_device:
        scratch.replace(json_file)
