"""Settings of the two controls. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Suppress = Literal["content", "subject"]


@dataclass(frozen=True)
class ControlSettings:
    """How strongly and when the controls act. Windows are shares (0..1) of the sampling steps."""

    alpha: float
    """Strength of the amplification inside a box (paper, section 3.3); >= 0."""
    amplify_until: float
    """The boxes are amplified before this share of the steps. See `plan.amplified_steps` for the one exception."""
    shift_from: float
    """The camera's shift is spread over the steps from this share of them ..."""
    shift_until: float
    """... up to this one."""
    suppress: Suppress = "content"
    """Which tokens are suppressed: all content tokens (the authors' way), or only the subject's outside its box."""
    shift_parts: bool = False
    """Shift by fractions of a cell (ours), for a base whose cells are large beside a slow pan; else whole cells."""
    merge_until: float = 0.0
    """After the shift, the frames' scenery is merged along the camera's path, up to this share of the steps (ours,
    see the module `scenery`); 0 for never."""
