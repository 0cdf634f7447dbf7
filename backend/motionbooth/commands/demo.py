"""For everyone's first minutes: `motionbooth demo`."""

from pathlib import Path
from typing import Annotated

import typer
from motionbooth_protocol.limits import MAX_SAMPLING_STEPS, MAX_SEED, MAX_TRAINING_STEPS

DEMO_SCENE = Path(__file__).parents[3] / "blender_addon" / "demo" / "demo.blend"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for what is made; run again, it goes on from what is there.")],
    scene: Annotated[Path, typer.Option(help="A saved .blend with one shot.")] = DEMO_SCENE,
    seed: Annotated[int | None, typer.Option(min=0, max=MAX_SEED, help="Instead of the scene's.")] = None,
    training_steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_TRAINING_STEPS, help="Instead of the model's own number.")
    ] = None,
    sampling_steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_SAMPLING_STEPS, help="Instead of the model's own number.")
    ] = None,
) -> None:
    """The main job on this machine: a saved .blend in, a controlled clip of its own subject on its timeline."""
    from rich.console import Console

    from motionbooth.demo import run_demo

    given = {"--seed": seed, "--training-steps": training_steps, "--sampling-steps": sampling_steps}
    options = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    run_demo(scene.absolute(), out.absolute(), options, Console())
