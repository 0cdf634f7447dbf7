"""`motionbooth bench`: measure the product on this machine. A checkout adds the laboratory's benches."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

bench = typer.Typer(no_args_is_help=True, help="Run a benchmark. Each prints a table and can write JSON.")
JsonFile = Annotated[
    Path | None, typer.Option("--json", dir_okay=False, help="Also write the figures to this JSON file.")
]


@bench.command("real-size")
def real_size(
    json_file: JsonFile = None,
    frames: Annotated[
        int | None, typer.Option(min=2, help="Frames of the clip. Zeroscope uses 24, Wan 81 (5 by default here).")
    ] = None,
    model: Annotated[Literal["zeroscope", "wan-1.3b"], typer.Option(help="Whose size.")] = "zeroscope",
) -> None:
    """Check whether a model of Zeroscope's or Wan's size fits on this machine: a step of sampling and one of training.

    Linux and macOS only. Takes half an hour or more on a few CPU cores.
    """
    from motionbooth.bench.measures import publish
    from motionbooth.bench.real_size import bench_real_size
    from motionbooth.bench.real_wan import bench_real_wan

    publish(bench_real_wan(frames or 5) if model == "wan-1.3b" else bench_real_size(frames or 24), json_file)


@bench.command("gpu")
def gpu(
    json_file: JsonFile = None,
    part: Annotated[list[str] | None, typer.Option(help="Only this part. May be given several times.")] = None,
) -> None:
    """Check this machine's GPU: half precision, and the speed and memory of networks of the published sizes.

    The parts are precision, zeroscope and wan-1.3b. Downloads nothing. Takes a few minutes on a large card.
    """
    from motionbooth.bench.gpu import bench_gpu
    from motionbooth.bench.measures import publish

    publish(bench_gpu(part or (), json_file), json_file)


if find_spec("motionbooth_lab") is not None:  # only a checkout has the laboratory
    from motionbooth_lab.commands import add_benches

    add_benches(bench)
