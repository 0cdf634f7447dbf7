"""What an examination finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "fixed", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """One line of the table: what was looked at, how it is, what was seen, and what its owner can do about it."""

    about: str
    state: State
    seen: str
    advice: str = ""
