"""For whoever has many shots to film: `motionbooth batch`."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from motionbooth_protocol.limits import MAX_SAMPLING_STEPS, MAX_SEED, MAX_TRAINING_STEPS

from .home import DEFAULT_HOME


def batch(
    blends: Annotated[list[Path], typer.Argument(help="Saved .blend files; every scene with subjects is a shot.")],
    connection: Annotated[Path, typer.Option(help="The backend's connection file.")] = DEFAULT_HOME / "connection.json",
    out: Annotated[Path, typer.Option(help="A folder for what is made, with one in it for each file.")] = Path(
        "motionbooth_batch"
    ),
    in_place: Annotated[bool, typer.Option("--in-place", help="Put the strips into the files themselves.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Files under way at a time.")] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything; send nothing.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Film files again that are done.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, max=MAX_SEED, help="Instead of the scenes'.")] = None,
    training_steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_TRAINING_STEPS, help="Instead of the model's own number.")
    ] = None,
    sampling_steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_SAMPLING_STEPS, help="Instead of the model's own number.")
    ] = None,
) -> None:
    """Film every shot of every file with a running backend, as `blender --command motionbooth batch` does."""
    numbers = {"--seed": seed, "--training-steps": training_steps, "--sampling-steps": sampling_steps}
    given = [word for name, value in numbers.items() if value is not None for word in (name, str(value))]
    flags = {"--in-place": in_place, "--dry-run": dry_run, "--again": again}
    given += [flag for flag, is_on in flags.items() if is_on]
    # The extension, under its own licence, is a program of its own.
    command = [sys.executable, "-m", "motionbooth_addon.batch", *map(str, blends), "--connection", str(connection)]
    process = subprocess.Popen([*command, "--out", str(out), "--jobs", str(jobs), *given])
    while True:
        try:
            raise typer.Exit(process.wait())
        except KeyboardInterrupt:
            continue  # it has heard of it as well, and ends its jobs in order
