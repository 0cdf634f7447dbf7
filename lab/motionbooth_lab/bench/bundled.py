"""The bundled models as the benches measure them."""

from dataclasses import dataclass
from functools import cache

import msgspec
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import source_named

from motionbooth_lab.toybox.draw import TOYBOX, WANTOY, ClipFormat


@dataclass(frozen=True)
class Model:
    """A bundled model to measure. `control`: settings of ControlSettings and their values, instead of its own."""

    name: str = "toybox"
    control: tuple[tuple[str, str | float | bool], ...] = ()

    @property
    def clip_format(self) -> ClipFormat:
        return {"toybox": TOYBOX, "wantoy": WANTOY}[self.name]


TOYBOX_MODEL = Model()


@cache
def bundled_base(model: Model = TOYBOX_MODEL) -> Base:
    """The model, loaded once in a process. `bundled_base.__wrapped__` loads a separate copy."""
    base = load_base(source_named(model.name))
    control = msgspec.structs.replace(base.settings.control, **dict(model.control))
    base.settings = msgspec.structs.replace(base.settings, control=control)
    return base
