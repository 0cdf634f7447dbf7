"""For whoever runs a backend: who may use it, `motionbooth keys ...`."""

from pathlib import Path
from typing import Annotated

import typer

from .home import DEFAULT_HOME, Home

keys = typer.Typer(no_args_is_help=True, help="Who may use the backend besides this machine's own Blender.")


@keys.command("add")
def keys_add(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    address: Annotated[str, typer.Option(help="The backend as seen from there, e.g. tcp://render-box:5599")],
    out: Annotated[Path, typer.Option(help="The connection file to write, for that person's eyes only.")],
    home: Home = DEFAULT_HOME,
) -> None:
    """Let another person in: writes the connection file that their Blender needs."""
    from motionbooth.server.keys import let_in

    let_in(home.absolute(), name, address).write(out)
    typer.echo(f"{name} may enter with {out}; give it to nobody else.")


@keys.command("remove")
def keys_remove(name: Annotated[str, typer.Argument(help="Whose key it is.")], home: Home = DEFAULT_HOME) -> None:
    """Withdraw a person's key; what they have open ends within seconds, their jobs stay."""
    from motionbooth.server.keys import shut_out

    shut_out(home.absolute(), name)
    typer.echo(f"{name} may not enter any more.")
