"""For whoever doubts a figure: `motionbooth bench ...`; each prints a table and writes JSON."""

from pathlib import Path
from typing import Annotated, Literal

import typer

bench = typer.Typer(no_args_is_help=True, help="Measure the product; each prints a table and writes JSON.")
JsonFile = Annotated[Path | None, typer.Option("--json", dir_okay=False, help="Write the figures to this file too.")]


@bench.command()
def control(
    json_file: JsonFile = None,
    pictures: Annotated[
        Path | None, typer.Option(file_okay=False, help="A folder for contact sheets of what was filmed.")
    ] = None,
    all_words: Annotated[
        bool | None,
        typer.Option(
            "--suppress-all-words/--suppress-subjects-words",
            help="What is suppressed outside a box, instead of the model's own choice.",
        ),
    ] = None,
    subjects: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, exists=True, help="Measure the subjects in this folder's folders of photographs instead."
        ),
    ] = None,
) -> None:
    """How well the bundled model keeps to boxes, camera paths and who it is, with control and without."""
    from motionbooth.bench.control import bench_control
    from motionbooth.bench.measures import publish

    suppress: Literal["content", "subject"] | None = (
        None if all_words is None else "content" if all_words else "subject"
    )
    publish(bench_control(pictures, suppress, subjects), json_file)


@bench.command()
def extension(json_file: JsonFile = None) -> None:
    """What the extension costs in Blender, and how exactly it reads a shot; needs the bpy module."""
    from motionbooth.bench.extension import bench_extension
    from motionbooth.bench.measures import publish

    publish(bench_extension(), json_file)


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


@bench.command()
def server(json_file: JsonFile = None) -> None:
    """What the server costs: transfers, submissions, many clients, many jobs; and the faults that it survives."""
    from motionbooth.bench.measures import publish
    from motionbooth.bench.server import bench_server

    publish(bench_server(), json_file)


@bench.command()
def scheduler(
    json_file: JsonFile = None,
    jobs: Annotated[int, typer.Option(min=1000, help="In each simulation, and in the last part's queue.")] = 100_000,
    folder: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="On the disk where a store would lie.")
    ] = None,
) -> None:
    """How long jobs wait with 1, 8, 64 and 512 simulated workers, and how many workers one server can keep busy."""
    from motionbooth.bench.measures import publish
    from motionbooth.bench.scheduler import bench_scheduler

    publish(bench_scheduler(jobs, folder), json_file)


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


@bench.command()
def ablation(
    json_file: JsonFile = None,
    subjects: Annotated[int, typer.Option(min=1, max=5, help="How many of bench control's subjects.")] = 2,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Of each training; the model's own number by default.")
    ] = None,
    recipe: Annotated[list[str] | None, typer.Option(help="Only these; once for each.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Of each training and its clips, for the intervals.")] = 1,
) -> None:
    """Does each loss of subject learning earn its place? Every recipe on the same pictures and seeds."""
    from motionbooth.bench.ablation import bench_ablation
    from motionbooth.bench.measures import publish
    from motionbooth.subject.recipes import RECIPES, recipe_named

    chosen = [name for name in recipe or RECIPES if recipe_named(name)]
    publish(bench_ablation(subjects, steps, chosen, seeds), json_file)


@bench.command()
def fuzz(
    json_file: JsonFile = None,
    messages: Annotated[
        int, typer.Option(min=1000, help="For the decoder, and as many for a live session.")
    ] = 1_000_000,
    seconds: Annotated[float, typer.Option(min=1, help="At most, for each of the two.")] = 600.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed sends the same messages.")] = 0,
) -> None:
    """Foreign messages for the decoder and for a live session: nothing but a refusal may come of them."""
    from motionbooth.bench.fuzz import bench_fuzz
    from motionbooth.bench.measures import publish

    publish(bench_fuzz(messages, seconds, seed), json_file)
