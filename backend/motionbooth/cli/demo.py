"""`motionbooth demo`: everything in one command."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from motionbooth_protocol.limits import MAX_SAMPLING_STEPS, MAX_SEED, MAX_TRAINING_STEPS

GUIDED = ["--subject-strength", "0.5", "--background-strength", "0.7"]  # enough to be seen
DEMO_SCENE = Path(__file__).with_name("demo.blend")


def demo(
    out: Annotated[Path, typer.Option(help="Output folder. A second run reuses what is there.")],
    scene: Annotated[Path, typer.Option(help="A saved .blend with one shot.")] = DEMO_SCENE,
    model: Annotated[str | None, typer.Option(help="Base model (default: the scene's).")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=MAX_SEED, help="Seed (default: the scene's).")] = None,
    training_steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_TRAINING_STEPS, help="Training steps (default: the model's).")
    ] = None,
    sampling_steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_SAMPLING_STEPS, help="Sampling steps (default: the model's).")
    ] = None,
    long_shot: Annotated[
        Literal["spread", "windows"],
        typer.Option(help="Of a shot that is longer than the model's clip: spread its frames, or generate all."),
    ] = "spread",
    guide: Annotated[bool, typer.Option("--guide", help="Start the clip from a render of the scene.")] = False,
) -> None:
    """Generate the shot of a .blend on this machine: train its subject, and put a controlled clip on its timeline."""
    from rich.console import Console

    from motionbooth.demo import run_demo

    replaced = {
        "--model": model,
        "--seed": seed,
        "--training-steps": training_steps,
        "--sampling-steps": sampling_steps,
        "--long-shot": long_shot,
    }
    options = [word for name, value in replaced.items() if value is not None for word in (name, str(value))]
    if guide:
        options += GUIDED
    run_demo(scene.absolute(), out.absolute(), options, Console(markup=False))
