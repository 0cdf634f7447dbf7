"""`motionbooth keys`: manage the keys that may connect to a backend."""

from pathlib import Path
from typing import Annotated

import typer

from motionbooth.cli.home import DEFAULT_HOME, Home, existing

keys = typer.Typer(no_args_is_help=True, help="Manage the keys of users on other machines.")
Name = Annotated[str, typer.Argument(help="Name of the user.")]
Role = Annotated[str, typer.Option(help="user: sees own jobs only; admin: sees and cancels all jobs.")]
Address = Annotated[
    str, typer.Option(help="Address of the backend as the user reaches it, e.g. tcp://render-box:5599.")
]


@keys.command("new")
def keys_new(
    name: Name,
    address: Address,
    server: Annotated[
        str, typer.Option(help="The backend's public key, as shown by `motionbooth keys list` on the backend.")
    ],
    out: Annotated[Path, typer.Option(dir_okay=False, help="Connection file to write. Keep it private.")],
) -> None:
    """On your machine: create a key whose secret never leaves it.

    Send NAME.pub, which is written next to the connection file, to the owner of the backend.
    """
    from motionbooth_protocol.connection import write_private

    from motionbooth.server.keys import check_name, new_key

    check_name(name)
    connection = new_key(address, server)
    public_file = out.parent / f"{name}.pub"
    if out == public_file:
        raise typer.BadParameter(f"{out} is the file of the public key. Choose another name.", param_hint="--out")
    _check_free(out)
    _check_free(public_file)
    connection.write(out)
    write_private(public_file, f"{connection.client_public}\n".encode())
    typer.echo(f"Wrote {out} (keep it private) and {public_file}. Send the latter to the backend's owner, who runs")
    typer.echo(f"  motionbooth keys authorize {public_file.name}")


@keys.command("authorize")
def keys_authorize(
    public_file: Annotated[Path, typer.Argument(help="The NAME.pub that `motionbooth keys new` wrote.")],
    name: Annotated[str | None, typer.Option(help="Name of the user (default: the file's name).")] = None,
    role: Role = "user",
    home: Home = DEFAULT_HOME,
) -> None:
    """On the backend: authorize a public key. Works while the backend is running."""
    from motionbooth.server.keys import authorize

    words = public_file.read_text("ascii", errors="replace").split()
    name = name or public_file.stem
    authorize(home.absolute(), name, words[0] if words else "", role)
    typer.echo(f"{name} is authorized.")


@keys.command("add")
def keys_add(
    name: Name,
    address: Address,
    out: Annotated[
        Path, typer.Option(dir_okay=False, help="Connection file to write. It contains the user's secret key.")
    ],
    role: Role = "user",
    home: Home = DEFAULT_HOME,
) -> None:
    """On the backend: create and authorize a key in one step, and write the user's connection file."""
    from motionbooth_protocol.errors import Conflict

    from motionbooth.server.keys import issue_key, revoke

    connection = issue_key(home.absolute(), name, address, role)
    try:
        _check_free(out)
        connection.write(out)
    except (Conflict, OSError):
        revoke(home.absolute(), name)  # nobody has its secret key
        raise
    typer.echo(f"{name} is authorized. Send {out} to this user only: it contains the secret key.")


@keys.command("list")
def keys_list(home: Home = DEFAULT_HOME) -> None:
    """On the backend: list the authorized keys and the backend's own public key."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from motionbooth.server.keys import AuthorizedKeys, server_keys

    home = existing(home)
    table = Table("name", "role", Column("public key", no_wrap=True))
    for key in AuthorizedKeys(home / "authorized").all():
        table.add_row(key.name, key.role, Text(key.public))
    Console(soft_wrap=True).print(table)
    typer.echo(f"This backend's public key: {server_keys(home).public}")


@keys.command("revoke")
def keys_revoke(name: Name, home: Home = DEFAULT_HOME) -> None:
    """On the backend: revoke a key. Its connections are closed within seconds; its jobs stay."""
    from motionbooth.server.keys import revoke

    revoke(existing(home), name)
    typer.echo(f"Access of {name} is revoked.")


def _check_free(file: Path) -> None:
    from motionbooth_protocol.errors import Conflict

    if file.exists():
        raise Conflict(
            "{file} already exists and may be in use. Choose another file, or remove this one first.", file=file
        )
