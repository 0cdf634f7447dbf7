"""For whoever doubts that a backend loses nothing: `motionbooth soak`."""

from pathlib import Path
from typing import Annotated

import typer


def soak(
    minutes: Annotated[float, typer.Option(min=0.1, help="How long faults are injected.")] = 60.0,
    jobs_per_minute: Annotated[
        float, typer.Option(min=0, help="Of all clients together; 0: as many as they can.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other faults at other moments.")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the figures to this file too.")
    ] = None,
) -> None:
    """Harm a real server at random for a while: servers and workers killed, networks broken; nothing may be lost."""
    from rich.console import Console

    from motionbooth.bench.measures import publish
    from motionbooth.bench.soak import soak as run_soak

    publish(run_soak(minutes, seed, jobs_per_minute, Console()), json_file)
