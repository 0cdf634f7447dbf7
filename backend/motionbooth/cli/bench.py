"""`motionbooth bench ...`: measure what this machine can do; each prints a table and writes JSON."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

bench = typer.Typer(no_args_is_help=True, help="Measure the product; each prints a table and writes JSON.")
JsonFile = Annotated[Path | None, typer.Option("--json", dir_okay=False, help="Write the figures to this file too.")]


@bench.command()
def training(
    json_file: JsonFile = None,
    rounds: Annotated[int, typer.Option(min=1, help="Iterations of each kind; the figures are medians.")] = 5,
    large: Annotated[
        bool, typer.Option(help="Latents of 40 x 72 cells instead of 20 x 36: five times as long.")
    ] = False,
) -> None:
    """What learning a subject costs beyond the network's own time, and how much memory."""
    from motionbooth.bench.measures import publish
    from motionbooth.bench.training import LATENTS, bench_training

    publish(bench_training(rounds, (40, 72) if large else LATENTS), json_file)


@bench.command()
def sampling(
    json_file: JsonFile = None,
    rounds: Annotated[int, typer.Option(min=1, help="Steps of each kind; the figures are medians.")] = 5,
    large: Annotated[
        bool, typer.Option(help="Latents of 40 x 72 cells instead of 20 x 36: about half an hour.")
    ] = False,
) -> None:
    """What control costs in a denoising step: time and memory, against diffusers' own loop."""
    from motionbooth.bench.measures import publish
    from motionbooth.bench.sampling import LATENTS, bench_sampling

    publish(bench_sampling((40, 72) if large else LATENTS, rounds), json_file)


@bench.command("real-size")
def real_size(
    json_file: JsonFile = None,
    frames: Annotated[int, typer.Option(min=2, help="Of the clip; Zeroscope's own number is 24.")] = 24,
) -> None:
    """Whether Zeroscope's true size fits into this machine: a step of sampling, one of learning (Linux, macOS).

    Half an hour or more on a few cores, most of it in the second step.
    """
    from motionbooth.bench.measures import publish
    from motionbooth.bench.real_size import bench_real_size

    publish(bench_real_size(frames), json_file)


with suppress(ModuleNotFoundError):  # a checkout has more of them, a wheel does not
    from motionbooth_lab.commands import add_benches

    add_benches(bench)
