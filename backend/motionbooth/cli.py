"""The command line: `motionbooth COMMAND`. What is heavy to import is imported inside the commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import platformdirs
import typer
from motionbooth_protocol.errors import MotionBoothError
from typer.core import TyperGroup

DEFAULT_HOME = platformdirs.user_data_path("motionbooth")


class _SentenceForErrors(TyperGroup):
    """One red sentence and exit status 1 for every error that is meant for a person; usage errors have status 2."""

    def invoke(self, context: object) -> object:
        try:
            return super().invoke(context)  # type: ignore[arg-type]
        except MotionBoothError as error:
            typer.secho(str(error), fg=typer.colors.RED, err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_SentenceForErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Film your own character in Blender: boxes and a camera path steer a text-to-video model.",
)


@app.callback()
def _motionbooth() -> None:
    """Film your own character in Blender: boxes and a camera path steer a text-to-video model."""


@app.command()
def serve(
    home: Annotated[Path, typer.Option(help="Folder for keys, jobs and results.")] = DEFAULT_HOME,
    address: Annotated[str, typer.Option(help="Where to listen; tcp://127.0.0.1:* takes any free port.")] = (
        "tcp://127.0.0.1:5599"
    ),
) -> None:
    """Run the backend: takes jobs from Blender, trains subjects, films shots. Stop it with Ctrl+C."""
    from motionbooth.server.serve import serve as run_server

    run_server(home.absolute(), address, say=lambda line: typer.echo(line))
    sys.stdout.flush()


if __name__ == "__main__":
    app()
