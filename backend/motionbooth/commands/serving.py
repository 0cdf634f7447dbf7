"""For whoever runs a backend: `motionbooth serve`."""

from typing import Annotated

import typer

from .home import DEFAULT_HOME, Home


def serve(
    home: Home = DEFAULT_HOME,
    address: Annotated[str, typer.Option(help="Where to listen; tcp://127.0.0.1:* takes any free port.")] = (
        "tcp://127.0.0.1:5599"
    ),
) -> None:
    """Run the backend: takes jobs from Blender, trains subjects, films shots. Stop it with Ctrl+C."""
    from motionbooth.models.sources import sources
    from motionbooth.server.serve import serve as run_server

    run_server(home.absolute(), address, [source.info for source in sources().values()])
