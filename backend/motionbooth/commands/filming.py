"""For work without Blender and without a backend: `motionbooth generate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


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
