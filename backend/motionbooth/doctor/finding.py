"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "fixed", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """A row of the table: what was checked, its state, what was found, and what the owner can do about it."""

    about: str
    state: State
    found: str
    advice: str = ""
