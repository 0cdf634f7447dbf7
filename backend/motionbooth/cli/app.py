"""The command line: `motionbooth COMMAND`. Each command is in the folder commands/."""

import errno
from importlib.metadata import version
from typing import Annotated

import typer
from motionbooth_protocol.errors import InvalidInput, MotionBoothError, NotFound, OutOfSpace, is_disk_full
from typer.core import TyperGroup

from motionbooth.cli.batch import batch
from motionbooth.cli.bench import bench
from motionbooth.cli.demo import demo
from motionbooth.cli.doctor import doctor
from motionbooth.cli.generate import evaluate, generate
from motionbooth.cli.keys import keys
from motionbooth.cli.models import convert_lavie
from motionbooth.cli.serve import serve
from motionbooth.cli.status import jobs, status
from motionbooth.cli.train import train


class _SentenceForErrors(TyperGroup):
    """One red sentence for every error that is meant for a person; exit status 2 where the input is wrong or names
    what is not there, else 1.
    """

    def invoke(self, context: object) -> object:
        try:
            return super().invoke(context)  # type: ignore[arg-type]
        except MotionBoothError as error:
            told = error
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read our output has gone: typer ends in silence
                raise
            told = _of_the_system(error)
        typer.secho(str(told), fg=typer.colors.RED, err=True)
        raise typer.Exit(2 if isinstance(told, InvalidInput | NotFound) else 1)


def _of_the_system(error: OSError) -> MotionBoothError:
    """A file or folder that cannot be had, wherever that came out, in words."""
    what, why = error.filename2 or error.filename, error.strerror or str(error)
    if is_disk_full(error):
        return OutOfSpace(f"The disk is full{f' at {what}' if what else ''} ({why}): free some space and run it again.")
    if what is None:
        return MotionBoothError(f"The system refused: {why}.")
    return InvalidInput(f"{what} cannot be used ({why}). Check the path, and that you may read and write there.")


app = typer.Typer(
    cls=_SentenceForErrors,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="Film your own character in Blender: boxes and a camera path steer a text-to-video model.",
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"motionbooth {version('motionbooth')}")
        raise typer.Exit


@app.callback()
def _motionbooth(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version and exit.")
    ] = False,
) -> None:
    """Film your own character in Blender: boxes and a camera path steer a text-to-video model."""


for command in (demo, serve, doctor, status, jobs, train, generate, evaluate, convert_lavie):
    app.command()(command)
app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(batch)
app.add_typer(keys, name="keys")
app.add_typer(bench, name="bench")
