"""The version of program and model. Results are reused for the same spec as long as it stays the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version

ModelVersion = Callable[[str], str]  # of a model, by its name; changes with its files
PROGRAM_VERSION = version("motionbooth")


def program_version(model: str) -> str:
    """For a model whose files never change."""
    return PROGRAM_VERSION


def with_program(model_version: ModelVersion) -> ModelVersion:
    """The versions of program and model together; looks at the model's files at most once a second."""
    known: dict[str, tuple[float, str]] = {}

    def cached(model: str) -> str:
        at, found = known.get(model, (float("-inf"), ""))
        if time.monotonic() - at > 1.0:
            at, found = known[model] = time.monotonic(), f"{PROGRAM_VERSION} {model_version(model)}"
        return found

    return cached
