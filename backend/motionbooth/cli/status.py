"""For whoever wants to know how a backend is doing: `motionbooth status` and `motionbooth jobs`."""

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

_SECONDS_BETWEEN_LOOKS = 1.0
ConnectionFile = Annotated[
    Path | None, typer.Option("--connection", help="Of a backend elsewhere; else of the one in --home.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl+C.")]


def status(home: Home = DEFAULT_HOME, connection: ConnectionFile = None, watch: Watch = False) -> None:
    """How a backend is doing: its workers, its queue, its disk."""
    from motionbooth.cli.tables import status_view

    _show(home, connection, watch, lambda client: status_view(client.status()))


def jobs(
    home: Home = DEFAULT_HOME,
    connection: ConnectionFile = None,
    watch: Watch = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many, the newest first.")] = 20,
    all_users: Annotated[bool, typer.Option("--all", help="Show all users' jobs (admins only).")] = False,
) -> None:
    """Your jobs on a backend, and what became of them."""
    from motionbooth.cli.tables import jobs_table

    _show(home, connection, watch, lambda client: jobs_table(client.jobs(limit, all_users), time.time(), all_users))


def _connection(home: Path, named: Path | None) -> Connection:
    """Raises NotFound where a file was named that is not there, Unreachable where no backend of this machine runs."""
    from motionbooth_protocol.connection import Connection
    from motionbooth_protocol.errors import NotFound, Unreachable

    if named is not None:
        return Connection.read(named)
    try:
        return Connection.read(home.absolute() / "connection.json")
    except NotFound as error:
        raise Unreachable(str(error)) from None


def _show(home: Path, connection: Path | None, watch: bool, look: Callable[[Client], RenderableType]) -> None:
    """What `look` makes of the backend: once, or for ever."""
    from motionbooth_protocol.client import Client
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Client(_connection(home, connection), name="motionbooth") as client:
        if not watch:
            console.print(look(client))
            return
        try:
            with Live(look(client), console=console, screen=console.is_terminal, auto_refresh=False) as live:
                while True:
                    time.sleep(_SECONDS_BETWEEN_LOOKS)
                    live.update(look(client), refresh=True)
        except KeyboardInterrupt:
            return
