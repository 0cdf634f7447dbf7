"""The command line: `motionbooth COMMAND`. Each command is in the folder commands/."""

import typer
from motionbooth_protocol.errors import InvalidInput, MotionBoothError
from typer.core import TyperGroup

from .commands.batch import batch
from .commands.bench import bench
from .commands.demo import demo
from .commands.doctor import doctor
from .commands.filming import evaluate, generate
from .commands.keys import keys
from .commands.models import convert_lavie
from .commands.serving import serve
from .commands.soak import soak
from .commands.training import train
from .commands.watching import jobs, status


class _SentenceForErrors(TyperGroup):
    """One red sentence for every error that is meant for a person; exit status 2 where the input is wrong, else 1."""

    def invoke(self, context: object) -> object:
        try:
            return super().invoke(context)  # type: ignore[arg-type]
        except MotionBoothError as error:
            typer.secho(str(error), fg=typer.colors.RED, err=True)
            raise typer.Exit(2 if isinstance(error, InvalidInput) else 1) from None


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


for command in (demo, batch, serve, doctor, status, jobs, train, generate, evaluate, convert_lavie, soak):
    app.command()(command)
app.add_typer(keys, name="keys")
app.add_typer(bench, name="bench")


if __name__ == "__main__":
    app()
