"""For whoever runs a backend, and for who wants to use one: who may enter, `motionbooth keys ...`."""

from pathlib import Path
from typing import Annotated

import typer

from motionbooth.cli.home import DEFAULT_HOME, Home, existing

keys = typer.Typer(no_args_is_help=True, help="Who may use the backend besides this machine's own Blender.")
Name = Annotated[str, typer.Argument(help="Whose key it is.")]
Role = Annotated[str, typer.Option(help="user: own jobs only; admin: sees and cancels everybody's.")]
Address = Annotated[str, typer.Option(help="The backend as seen from there, e.g. tcp://render-box:5599")]


@keys.command("new")
def keys_new(
    name: Name,
    address: Address,
    server: Annotated[str, typer.Option(help="The backend's public key, as its owner sees it with `keys list`.")],
    out: Annotated[Path, typer.Option(dir_okay=False, help="The connection file to write, for your eyes only.")],
) -> None:
    """On your own machine: make a key whose secret never leaves it. NAME.pub beside the file is for the owner."""
    from motionbooth_protocol.connection import write_private
    from motionbooth_protocol.errors import Conflict

    from motionbooth.server.keys import check_name, new_key

    check_name(name)
    connection = new_key(address, server)
    public_file = out.parent / f"{name}.pub"
    for file in (out, public_file):
        if file.exists():
            raise Conflict(f"{file} is there already, and may be in use. Name another file, or remove that one first.")
    connection.write(out)
    write_private(public_file, f"{connection.client_public}\n".encode())
    typer.echo(f"Wrote {out}, for you alone, and {public_file}, for the backend's owner, who lets it in with")
    typer.echo(f"  motionbooth keys authorize {public_file.name}")


@keys.command("authorize")
def keys_authorize(
    public_file: Annotated[Path, typer.Argument(help="NAME.pub, as `motionbooth keys new` wrote it.")],
    name: Annotated[str | None, typer.Option(help="Whose key it is; otherwise the file's own name.")] = None,
    role: Role = "user",
    home: Home = DEFAULT_HOME,
) -> None:
    """On the backend: let somebody's public key in, also while it runs."""
    from motionbooth_protocol.errors import InvalidInput

    from motionbooth.server.keys import authorize

    try:
        words = public_file.read_text("ascii", errors="replace").split()
    except OSError as error:
        raise InvalidInput(f"The key file {public_file} cannot be read ({error.strerror}).") from None
    name = name or public_file.stem
    authorize(home.absolute(), name, words[0] if words else "", role)
    typer.echo(f"{name} may enter.")


@keys.command("add")
def keys_add(
    name: Name,
    address: Address,
    out: Annotated[
        Path, typer.Option(dir_okay=False, help="The connection file to write, for that person's eyes only.")
    ],
    role: Role = "user",
    home: Home = DEFAULT_HOME,
) -> None:
    """On the backend, new and authorize in one: writes the connection file that another person's Blender needs."""
    from motionbooth.server.keys import let_in, revoke

    connection = let_in(home.absolute(), name, address, role)
    try:
        connection.write(out)
    except OSError:
        revoke(home.absolute(), name)  # nobody has its secret
        raise
    typer.echo(f"{name} may enter with {out}; give it to nobody else.")


@keys.command("list")
def keys_list(home: Home = DEFAULT_HOME) -> None:
    """On the backend: who may enter, and the backend's own public key."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from motionbooth.server.keys import AuthorizedKeys, server_keys

    home = existing(home)
    table = Table("name", "role", Column("public key", no_wrap=True))
    for key in AuthorizedKeys(home / "authorized").everyone():
        table.add_row(key.name, key.role, Text(key.public))
    Console(soft_wrap=True).print(table)
    typer.echo(f"This backend's public key: {server_keys(home).public}")


@keys.command("revoke")
def keys_revoke(name: Name, home: Home = DEFAULT_HOME) -> None:
    """On the backend: withdraw a key; what is open with it ends within seconds, its jobs stay."""
    from motionbooth.server.keys import revoke

    revoke(existing(home), name)
    typer.echo(f"{name} may not enter any more.")
