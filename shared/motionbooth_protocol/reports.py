"""What a running job reports: one declaration for the worker's pipe, the wire, the extension and its panels."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from .limits import PREVIEW_BYTES
from .motion import Short
from .text import Text

Count = Annotated[int, Meta(ge=0, lt=2**53)]


class ProgressReport(Struct, frozen=True):
    """`step` of `steps` of `stage` are done; `steps` is 0 where they cannot be counted.

    `seconds_left` is for the whole job, None while unknown. `note`: more about the stage, for a person.
    """

    stage: Short
    step: Count
    steps: Count
    seconds_left: float | None = None
    note: Text | None = None


class PreviewReport(Struct, frozen=True):
    """`picture`, a JPEG or PNG of `width` x `height` pixels, shows the job at `step` of `steps` of `stage`."""

    stage: Short
    step: Count
    steps: Count
    width: Count
    height: Count
    picture: Annotated[bytes, Meta(max_length=PREVIEW_BYTES)]
