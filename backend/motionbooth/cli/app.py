"""The command line: `motionbooth COMMAND`."""

import errno
import os
from importlib.metadata import version
from typing import Annotated

import msgspec
import typer
from motionbooth_protocol.errors import InvalidInput, MotionBoothError, NotFound, from_os_error
from typer.core import TyperGroup

from motionbooth.cli.batch import batch
from motionbooth.cli.bench import bench
from motionbooth.cli.config import ConfiguredCommand
from motionbooth.cli.demo import demo
from motionbooth.cli.doctor import doctor
from motionbooth.cli.export import export, import_
from motionbooth.cli.generate import evaluate, generate
from motionbooth.cli.keys import keys
from motionbooth.cli.models import convert_lavie, models
from motionbooth.cli.serve import serve
from motionbooth.cli.status import jobs, status
from motionbooth.cli.train import TrainCommand, train

ERRORS = "MOTIONBOOTH_ERRORS"
"""An environment variable: if it is json, the error is printed as an ErrorReport, so that Blender can translate it."""

_SUMMARY = "Generate clips of your own character in Blender: boxes and a camera path steer a text-to-video model."


class _ErrorMessages(TyperGroup):
    """Prints an error as one message in red instead of a traceback.

    The exit status is 2 if the input is wrong or names something that doesn't exist, otherwise 1.
    """

    def invoke(self, context: object) -> object:
        try:
            return super().invoke(context)  # type: ignore[arg-type]
        except MotionBoothError as error:
            reported = error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has quit: typer exits silently
                raise
            reported = from_os_error(error)
        if os.environ.get(ERRORS) == "json":
            typer.echo(msgspec.json.encode(reported.report), err=True)
        else:
            typer.secho(str(reported), fg=typer.colors.RED, err=True)
        raise typer.Exit(2 if isinstance(reported, InvalidInput | NotFound) else 1)


app = typer.Typer(
    cls=_ErrorMessages,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"motionbooth {version('motionbooth')}")
        raise typer.Exit


@app.callback(help=_SUMMARY)
def _motionbooth(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Only for --version."""


app.command()(demo)
app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(batch)
app.command(cls=ConfiguredCommand)(serve)
app.command(cls=TrainCommand)(train)
for command in (doctor, status, jobs, generate, evaluate, convert_lavie):
    app.command()(command)
app.command()(export)
app.command("import")(import_)
app.add_typer(keys, name="keys")
app.add_typer(models, name="models")
app.add_typer(bench, name="bench")
