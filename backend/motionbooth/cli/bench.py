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
    model: Annotated[Literal["zeroscope", "wan-1.3b"], typer.Option(help="Model of that size.")] = "zeroscope",
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
    part: Annotated[list[str] | None, typer.Option(help="Only this part. Repeat for several.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what is already in the JSON file.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print only the card's row of the README's table.")
    ] = False,
) -> None:
    """Check this machine's GPU (CUDA, ROCm, MPS or XPU) in ten minutes or less. Downloads nothing.

    The parts are precision, zeroscope, wan-1.3b, kernels, tests and control. Run it again with the same --json to
    continue. The exit status is 1 if a part failed, and 2 without a GPU.
    """
    from motionbooth.bench.gpu.run import bench_gpu, publish_report

    report = bench_gpu(part or (), json_file, fresh)
    publish_report(report, markdown)
    if any(report.parts[name].state == "failed" for name in part or report.parts):
        raise typer.Exit(1)


@bench.command("paper")
def paper(
    subjects: Annotated[
        Path, typer.Option(file_okay=False, help="Folder with one folder of pictures per subject, named by its class.")
    ],
    out: Annotated[Path, typer.Option(file_okay=False, help="Folder for the results. Run it again to continue.")],
    measures: Annotated[
        Path,
        typer.Option(
            file_okay=False,
            help="Folder with the measuring networks: clip, dino and raft in it. What it lacks is looked for in the "
            "caches of Hugging Face and torch.",
        ),
    ] = Path("measuring"),
    models: Annotated[str, typer.Option(help="Base models, separated by commas.")] = "toybox",
    recipes: Annotated[str, typer.Option(help="Training recipes.")] = "motionbooth,dreambooth,customvideo",
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each clip.")] = 1,
    box_pairs: Annotated[int | None, typer.Option(min=1, help="Only so many of the text-and-box pairs.")] = None,
    camera_pairs: Annotated[int | None, typer.Option(min=1, help="Only so many of the text-and-camera pairs.")] = None,
    cameras_per_box: Annotated[int, typer.Option(min=1, help="Cameras of each box pair; 40 for all.")] = 1,
    training_steps: Annotated[int | None, typer.Option(min=1, help="Training steps (default: the model's).")] = None,
    sampling_steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps (default: the model's).")] = None,
    pairs: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Other pairs than the 40 + 40.")
    ] = None,
    rival: Annotated[
        list[str] | None,
        typer.Option(help="NAME=COMMAND of another system for the camera table; it gets a shot.json and an MP4 file."),
    ] = None,
    connection: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Connection file of a backend that does the work.")
    ] = None,
) -> None:
    """Make the paper's tables: subjects x pairs x recipes x seeds, as JSON, Markdown and LaTeX.

    Nothing is downloaded. Every subject and clip is kept, so an interrupted bench continues where it stopped.
    """
    from motionbooth.bench.paper import bench_paper
    from motionbooth.bench.paper_cells import Extent

    extent = Extent(
        models=[name.strip() for name in models.split(",")],
        recipes=[name.strip() for name in recipes.split(",")],
        rivals=dict(_named(each) for each in rival or []),
        seeds=seeds,
        boxes=box_pairs,
        cameras=camera_pairs,
        cameras_per_box=cameras_per_box,
        training_steps=training_steps,
        sampling_steps=sampling_steps,
    )
    bench_paper(extent, subjects, measures, out, pairs, connection)


def _named(rival: str) -> tuple[str, str]:
    """Raises BadParameter, which typer reports."""
    name, _, command = rival.partition("=")
    if not (name.strip() and command.strip()):
        raise typer.BadParameter(f'"{rival}" is not NAME=COMMAND, such as CameraCtrl="bash run.sh".')
    return name.strip(), command


if find_spec("motionbooth_lab") is not None:  # only a checkout has the laboratory
    from motionbooth_lab.commands import add_benches

    add_benches(bench)
