"""Settings of the two controls. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Share = Annotated[float, Meta(ge=0, le=1)]
Suppress = Literal["content", "subject"]


class ControlSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How strongly and when the controls act. Windows are shares (0..1) of the sampling steps."""

    alpha: Annotated[float, Meta(ge=0)]
    """Strength of the amplification inside a box (paper, section 3.3)."""
    amplify_until: Share
    """The boxes are amplified up to this share of the steps. See `plan.amplified_steps` for the one exception."""
    shift_from: Share
    """The camera's shift is spread over the steps from this share of them ..."""
    shift_until: Share
    """... up to this one."""
    suppress: Suppress = "content"
    """Which tokens are suppressed: all content tokens (the authors' way), or only the subject's outside its box."""
    subcell_shift: bool = False
    """Also shift by the remaining fraction of a cell (ours), for a base whose cells are large beside a slow pan."""
    merge_until: Share = 0.0
    """From the end of the shift up to this share of the steps, the frames' scenery is merged along the camera's path
    (ours, see scenery.py); 0 for never."""
