"""The numbers that a call may set instead of the scene or the model: options of `motionbooth demo` and `batch`."""

from __future__ import annotations

from typing import Annotated

import typer
from motionbooth_protocol.limits import MAX_SAMPLING_STEPS, MAX_SEED, MAX_TRAINING_STEPS

Seed = Annotated[int | None, typer.Option(min=0, max=MAX_SEED, help="Instead of the scene's.")]
TrainingSteps = Annotated[
    int | None, typer.Option(min=1, max=MAX_TRAINING_STEPS, help="Instead of the model's own number.")
]
SamplingSteps = Annotated[
    int | None, typer.Option(min=1, max=MAX_SAMPLING_STEPS, help="Instead of the model's own number.")
]


def given(seed: int | None, training_steps: int | None, sampling_steps: int | None) -> list[str]:
    """Those that were set, as words for the extension's own command line."""
    numbers = {"--seed": seed, "--training-steps": training_steps, "--sampling-steps": sampling_steps}
    return [word for name, value in numbers.items() if value is not None for word in (name, str(value))]
