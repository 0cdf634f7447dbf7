"""The networks that work on decoded frames, which who runs the backend names by environment variables: their files."""

from __future__ import annotations

import os
from pathlib import Path

INTERPOLATOR, UPSCALER = "MOTIONBOOTH_INTERPOLATOR", "MOTIONBOOTH_UPSCALER"


def named_file(variable: str) -> Path | None:
    """None if the variable is not set."""
    named = os.environ.get(variable)
    return Path(named) if named else None


def post_processing_files() -> list[Path]:
    return [path for variable in (INTERPOLATOR, UPSCALER) if (path := named_file(variable)) is not None]
