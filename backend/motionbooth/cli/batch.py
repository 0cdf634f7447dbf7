"""For whoever has many shots to film: `motionbooth batch`."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from motionbooth.cli.home import DEFAULT_HOME
from motionbooth.cli.overrides import SamplingSteps, Seed, TrainingSteps, given


def batch(
    blends: Annotated[
        list[Path],
        typer.Argument(exists=True, dir_okay=False, help="Saved .blend files; every scene with subjects is a shot."),
    ],
    connection: Annotated[Path, typer.Option(help="The backend's connection file.")] = DEFAULT_HOME / "connection.json",
    out: Annotated[Path, typer.Option(help="A folder for what is made, with one in it for each file.")] = Path(
        "motionbooth_batch"
    ),
    in_place: Annotated[bool, typer.Option("--in-place", help="Put the strips into the files themselves.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Files under way at a time.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything; send nothing.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Film files again that are done.")] = False,
    seed: Seed = None,
    training_steps: TrainingSteps = None,
    sampling_steps: SamplingSteps = None,
) -> None:
    """Film every shot of every file with a running backend, as `blender --command motionbooth batch` does."""
    flags = {"--in-place": in_place, "--dry-run": dry_run, "--again": again}
    chosen = [*given(seed, training_steps, sampling_steps), *(flag for flag, is_on in flags.items() if is_on)]
    # The extension, under its own licence, is a program of its own.
    command = [
        sys.executable,
        "-m",
        "motionbooth_addon.batch.runner",
        *map(str, blends),
        "--connection",
        str(connection),
    ]
    process = subprocess.Popen([*command, "--out", str(out), "--jobs", str(jobs), *chosen])
    while True:
        try:
            raise typer.Exit(process.wait())
        except KeyboardInterrupt:
            continue  # it has heard of it as well, and ends its jobs in order
