"""`motionbooth demo`: everything in one command."""

from pathlib import Path
from typing import Annotated

import typer

from motionbooth.cli.overrides import SamplingSteps, Seed, TrainingSteps, given

DEMO_SCENE = Path(__file__).with_name("demo.blend")


def demo(
    out: Annotated[Path, typer.Option(help="Output folder. A second run reuses what is there.")],
    scene: Annotated[Path, typer.Option(help="A saved .blend with one shot.")] = DEMO_SCENE,
    seed: Seed = None,
    training_steps: TrainingSteps = None,
    sampling_steps: SamplingSteps = None,
) -> None:
    """Generate the shot of a .blend on this machine: train its subject, and put a controlled clip on its timeline."""
    from rich.console import Console

    from motionbooth.demo import run_demo

    run_demo(scene.absolute(), out.absolute(), given(seed, training_steps, sampling_steps), Console())
