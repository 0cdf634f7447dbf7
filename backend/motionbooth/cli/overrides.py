"""Options of `motionbooth demo` and `batch` that override the scene's or the model's own numbers."""

from __future__ import annotations

from typing import Annotated

import typer
from motionbooth_protocol.limits import MAX_SAMPLING_STEPS, MAX_SEED, MAX_TRAINING_STEPS

Seed = Annotated[int | None, typer.Option(min=0, max=MAX_SEED, help="Seed [default: the scene's].")]
TrainingSteps = Annotated[
    int | None, typer.Option(min=1, max=MAX_TRAINING_STEPS, help="Training steps [default: the model's].")
]
SamplingSteps = Annotated[
    int | None, typer.Option(min=1, max=MAX_SAMPLING_STEPS, help="Sampling steps [default: the model's].")
]


def given(seed: int | None, training_steps: int | None, sampling_steps: int | None) -> list[str]:
    """The options that were set, as arguments for the extension's command line."""
    numbers = {"--seed": seed, "--training-steps": training_steps, "--sampling-steps": sampling_steps}
    return [word for name, value in numbers.items() if value is not None for word in (name, str(value))]
