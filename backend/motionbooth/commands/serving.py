"""For whoever runs a backend: `motionbooth serve`."""

from typing import Annotated

import typer

from .home import DEFAULT_HOME, Home


def serve(
    home: Home = DEFAULT_HOME,
    address: Annotated[str, typer.Option(help="Where to listen; tcp://127.0.0.1:* takes any free port.")] = (
        "tcp://127.0.0.1:5599"
    ),
    keep_days: Annotated[float, typer.Option(min=0, help="Remove jobs so long after their end; 0 keeps them.")] = 0,
    quota_gb: Annotated[float, typer.Option(min=0, help="Space for each key's files; 0 is without bound.")] = 0,
) -> None:
    """Run the backend: takes jobs from Blender, trains subjects, films shots. Stop it with Ctrl+C."""
    from msgspec.structs import replace

    from motionbooth.models.sources import sources, stamp
    from motionbooth.server.answers import DEFAULT_LIMITS
    from motionbooth.server.serve import serve as run_server

    limits = replace(DEFAULT_LIMITS, quota_bytes=int(quota_gb * 1e9))
    models = [source.info for source in sources().values()]
    run_server(home.absolute(), address, models, limits=limits, keep_days=keep_days, stamp=stamp)
