"""For whoever doubts a figure: `motionbooth bench ...`; each prints a table and writes JSON."""

from pathlib import Path
from typing import Annotated

import typer

bench = typer.Typer(no_args_is_help=True, help="Measure the product; each prints a table and writes JSON.")
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file too.")]


@bench.command()
def control(
    json_file: JsonFile = None,
    pictures: Annotated[Path | None, typer.Option(help="A folder for contact sheets of what was filmed.")] = None,
) -> None:
    """How well the bundled model keeps to boxes and camera paths, with control and without."""
    from motionbooth.bench.control import bench_control
    from motionbooth.bench.measures import publish

    publish(bench_control(pictures), json_file)
