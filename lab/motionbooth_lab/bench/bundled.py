"""The bundled models as the benches measure them."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import msgspec
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source, source_named

from motionbooth_lab.toybox.draw import TOYBOX, WANTOY, ClipFormat


@dataclass(frozen=True)
class Model:
    """A bundled model to measure. `control`: settings of ControlSettings and their values, instead of its own.
    `bundle`: the folder of other weights.
    """

    name: str = "toybox"
    control: tuple[tuple[str, str | float | bool], ...] = ()
    bundle: Path | None = None

    @property
    def clip_format(self) -> ClipFormat:
        return {"toybox": TOYBOX, "wantoy": WANTOY}[self.name]

    @property
    def source(self) -> Source:
        source = source_named(self.name)
        return source if self.bundle is None else replace(source, folder=self.bundle)


TOYBOX_MODEL = Model()


@cache
def bundled_base(model: Model = TOYBOX_MODEL) -> Base:
    """The model, loaded once in a process. `bundled_base.__wrapped__` loads a separate copy."""
    base = load_base(model.source)
    control = msgspec.structs.replace(base.settings.control, **dict(model.control))
    base.settings = msgspec.structs.replace(base.settings, control=control)
    return base
