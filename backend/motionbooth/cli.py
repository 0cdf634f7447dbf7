"""The command line: `motionbooth COMMAND`. What is heavy to import is imported inside the commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import platformdirs
import typer
from motionbooth_protocol.errors import InvalidInput, MotionBoothError
from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

DEFAULT_HOME = platformdirs.user_data_path("motionbooth")
DEMO_SCENE = Path(__file__).parents[2] / "blender_addon" / "demo" / "demo.blend"


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


bench = typer.Typer(no_args_is_help=True, help="Measure the product; each prints a table and writes JSON.")
app.add_typer(bench, name="bench")
keys = typer.Typer(no_args_is_help=True, help="Who may use the backend besides this machine's own Blender.")
app.add_typer(keys, name="keys")
Home = Annotated[Path, typer.Option(help="The backend's folder for keys, jobs and results.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures to this file too.")]


@app.callback()
def _motionbooth() -> None:
    """Film your own character in Blender: boxes and a camera path steer a text-to-video model."""


@app.command()
def serve(
    home: Home = DEFAULT_HOME,
    address: Annotated[str, typer.Option(help="Where to listen; tcp://127.0.0.1:* takes any free port.")] = (
        "tcp://127.0.0.1:5599"
    ),
) -> None:
    """Run the backend: takes jobs from Blender, trains subjects, films shots. Stop it with Ctrl+C."""
    from motionbooth.models.sources import sources
    from motionbooth.server.serve import serve as run_server

    run_server(home.absolute(), address, [source.info for source in sources().values()])


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


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for what is made; run again, it goes on from what is there.")],
    scene: Annotated[Path, typer.Option(help="A saved .blend with one shot.")] = DEMO_SCENE,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the scene's.")] = None,
    training_steps: Annotated[int | None, typer.Option(min=1, help="Instead of the model's own number.")] = None,
    sampling_steps: Annotated[int | None, typer.Option(min=1, help="Instead of the model's own number.")] = None,
) -> None:
    """The main job on this machine: a saved .blend in, a controlled clip of its own subject on its timeline."""
    from rich.console import Console

    from motionbooth.demo import run_demo

    given = {"--seed": seed, "--training-steps": training_steps, "--sampling-steps": sampling_steps}
    options = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    run_demo(scene.absolute(), out.absolute(), options, Console())


@app.command()
def generate(
    script: Annotated[Path, typer.Argument(help="JSON: prompt, phrases, bbox, bbox_proportions, camera_speed.")],
    out: Annotated[Path, typer.Option(help="The clip to write, mp4.")],
    model: Annotated[str, typer.Option(help="A base model of this machine.")] = "toybox",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    subject: Annotated[Path | None, typer.Option(help="A trained subject (safetensors).")] = None,
) -> None:
    """Film a script of the MotionBooth paper's authors here and now, without a backend."""
    from rich.progress import Progress

    from motionbooth.script import film_script

    with Progress(transient=True) as bars:
        film_script(script, out, model, seed, subject, _BarReporter(bars))


class _BarReporter:
    """Shows a job's progress as one bar for each stage."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def progress(self, stage: str, step: int, steps: int, note: str = "") -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage)
        self._bars.update(self._tasks[stage], completed=step, total=steps)


@bench.command()
def control(
    json_file: JsonFile = None,
    pictures: Annotated[Path | None, typer.Option(help="A folder for contact sheets of what was filmed.")] = None,
) -> None:
    """How well the bundled model keeps to boxes and camera paths, with control and without."""
    from motionbooth.bench.control import bench_control
    from motionbooth.bench.measures import publish

    publish(bench_control(pictures), json_file)


if __name__ == "__main__":
    app()
