"""`motionbooth status` and `motionbooth jobs`: show the state of a backend."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from motionbooth.cli.home import DEFAULT_HOME, Home

if TYPE_CHECKING:
    from motionbooth_protocol.client import Client
    from motionbooth_protocol.connection import Connection
    from rich.console import RenderableType

_REFRESH_SECONDS = 1.0
ConnectionFile = Annotated[
    Path | None, typer.Option("--connection", help="Connection file of a remote backend (default: the one in --home).")
]
Watch = Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl+C.")]


def status(home: Home = DEFAULT_HOME, connection: ConnectionFile = None, watch: Watch = False) -> None:
    """Show the workers, the queue and the disk space of a backend."""
    from motionbooth.cli.tables import status_view

    _show(home, connection, watch, lambda client: status_view(client.status()))


def jobs(
    home: Home = DEFAULT_HOME,
    connection: ConnectionFile = None,
    watch: Watch = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Number of jobs, newest first.")] = 20,
    all_users: Annotated[bool, typer.Option("--all", help="Show all users' jobs (admins only).")] = False,
) -> None:
    """List your jobs on a backend."""
    from motionbooth.cli.tables import jobs_table

    _show(home, connection, watch, lambda client: jobs_table(client.jobs(limit, all_users), time.time(), all_users))


def _connection(home: Path, named: Path | None) -> Connection:
    """Raises NotFound if the named file doesn't exist, Unreachable if no backend is running on this machine."""
    from motionbooth_protocol.connection import Connection
    from motionbooth_protocol.errors import NotFound, Unreachable

    if named is not None:
        return Connection.read(named)
    try:
        return Connection.read(home.absolute() / "connection.json")
    except NotFound as error:
        raise Unreachable(error.text) from None


def _show(home: Path, connection: Path | None, watch: bool, view: Callable[[Client], RenderableType]) -> None:
    """Print the view once, or refresh it until Ctrl+C."""
    from motionbooth_protocol.client import Client
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Client(_connection(home, connection), name="motionbooth") as client:
        if not watch:
            console.print(view(client))
            return
        try:
            with Live(view(client), console=console, screen=console.is_terminal, auto_refresh=False) as live:
                while True:
                    time.sleep(_REFRESH_SECONDS)
                    live.update(view(client), refresh=True)
        except KeyboardInterrupt:
            return
