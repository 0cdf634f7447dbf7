"""Settings of the two controls. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Share = Annotated[float, Meta(ge=0, le=1)]
Suppress = Literal["content", "subject"]


class ControlSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How strongly and when the controls act. Their windows are shares (0..1) of what `windows` says."""

    alpha: Annotated[float, Meta(ge=0)]
    """Strength of the amplification inside a box (paper, section 3.3)."""
    amplify_until: Share
    """The boxes are amplified up to this share. See `plan.amplified_steps` for the one exception."""
    shift_from: Share
    """The camera's shift is spread over the steps from this share ..."""
    shift_until: Share
    """... up to this one."""
    suppress: Suppress = "content"
    """Which tokens are suppressed: all content tokens (the authors' way), or only the subject's outside its box."""
    soft_edges: bool = False
    """A cell that a box covers in part counts by its share (ours), for a base with few cells in a frame."""
    split_prompt: bool = False
    """Cells outside all boxes attend to a prompt without the subjects (DiTraj's): the background phrase, or what else
    the prompt says. For a text encoder whose other words know of the subject, too."""
    tie_until: Share = 0.0
    """Up to this share, a subject's cells have the same positions in all frames in self-attention although its box
    moves (DiTraj's, see models/wan/ties.py). A UNet has no such positions."""
    subcell_shift: bool = False
    """Also shift by the remaining fraction of a cell (ours), for a base whose cells are large beside a slow pan."""
    windows: Literal["steps", "noise"] = "steps"
    """Windows are shares of the sampling steps, or of the noise that is removed: 0.2 is a noise level of 0.8. A sampler
    of a flow takes many of its steps at high noise levels, more or fewer by its shift."""
    shared_noise: Share = 0.0
    """While the camera moves, this share of the initial noise is common to all frames (see BaseSettings)."""
    merge_until: Share = 0.0
    """From the end of the shift up to this share, the frames' scenery is merged along the camera's path
    (ours, see scenery.py); 0 for never."""
