"""Recipes: MotionBooth's way of learning a subject, its ablations, and two other methods, as settings of one trainer.

Paper, section 4.3 and table 4. The other methods are what is left of them under this trainer, not their authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from motionbooth_protocol.errors import InvalidInput

from motionbooth.models.settings import TrainSettings

TEXT_KEYS_AND_VALUES = r".*\.attentions\.\d+\.transformer_blocks\.\d+\.attn2\.to_[kv]"
"""Of the spatial text cross-attentions; the temporal ones are in `temp_attentions`."""


@dataclass(frozen=True)
class Recipe:
    """`says`: what it is, in one line. `changes`: fields of TrainSettings that differ from the base's own."""

    says: str
    changes: Mapping[str, Any] = field(default_factory=dict)


_WHOLE_PICTURES = {"region": "picture", "subject_weight": 1.0}
"""The weight of 4 makes the authors' region loss of a masked mean; a plain mean has none."""

_PICTURES_ALONE = {**_WHOLE_PICTURES, "stca_weight": 0.0, "preserve": "class-pictures"}

RECIPES = {
    "motionbooth": Recipe("the method: region loss, ordinary clips, attention loss"),
    "no-region": Recipe("without the subject region loss: whole pictures are learned", _WHOLE_PICTURES),
    "no-preservation": Recipe("without ordinary clips: pictures alone, motion is forgotten", {"preserve": "nothing"}),
    "no-attention": Recipe("without the subject-token cross-attention loss", {"stca_weight": 0.0}),
    "attention-sum": Recipe(
        "the attention loss on the sum over a phrase's tokens, which can reach 1, in place of their mean, which cannot",
        {"stca_reduce": "sum"},
    ),
    "no-paste": Recipe("without pasting the subject on the base's own places: its pictures in grey", {"paste": None}),
    "class-clips": Recipe("ordinary clips of the subject's own class", {"preserve": "class-clips"}),
    "dreambooth": Recipe("DreamBooth: whole pictures, and pictures of the class by the base", _PICTURES_ALONE),
    "customvideo": Recipe(
        "CustomVideo: only the keys and values of the text, with the attention loss, and pictures of the class",
        {
            **_WHOLE_PICTURES,
            "preserve": "class-pictures",
            "layers": TEXT_KEYS_AND_VALUES,
            "learned": TEXT_KEYS_AND_VALUES + r"\.weight",
        },
    ),
}


def recipe_named(name: str) -> Recipe:
    """Raises InvalidInput, naming the recipes that there are."""
    if name not in RECIPES:
        raise InvalidInput(
            'There is no recipe "{name}". Choose one of: {recipes}.', name=name, recipes=", ".join(RECIPES)
        )
    return RECIPES[name]


def with_recipe(settings: TrainSettings, name: str) -> TrainSettings:
    """The base's settings as the recipe changes them. Raises InvalidInput for an unknown one."""
    return msgspec.structs.replace(settings, **recipe_named(name).changes)
