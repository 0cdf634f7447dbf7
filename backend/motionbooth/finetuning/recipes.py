"""Recipes: MotionBooth's fine-tuning, its ablations and two other methods, as settings of one trainer.

Paper, section 4.3 and table 4. The other methods are reimplemented with this trainer; they are not their authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from motionbooth_protocol.errors import InvalidInput

from motionbooth.models.settings import TrainSettings

TEXT_KEYS_AND_VALUES = r"(.*\.attentions\.\d+\.transformer_|.*\.|)blocks\.\d+\.attn2\.to_[kv]"
"""Of a UNet's spatial text cross-attentions (the temporal ones are in `temp_attentions`), and of Wan's."""


@dataclass(frozen=True)
class Recipe:
    """Changes to the base's own TrainSettings."""

    description: str
    """One line for people."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Values of the fields that differ."""


_WHOLE_PICTURES = {"loss_region": "picture", "subject_weight": 1.0}
"""The weight of 4 turns a masked mean into the authors' region loss; a plain mean needs none."""

_PICTURES_ALONE = {**_WHOLE_PICTURES, "stca_weight": 0.0, "prior_preservation": "class-pictures"}

RECIPES = {
    "motionbooth": Recipe("the method: region loss, prior-preservation clips, attention loss"),
    "no-region": Recipe("without the subject region loss: the loss covers whole pictures", _WHOLE_PICTURES),
    "no-preservation": Recipe(
        "without prior-preservation clips: the base forgets motion", {"prior_preservation": "nothing"}
    ),
    "no-attention": Recipe("without the subject-token cross-attention loss", {"stca_weight": 0.0}),
    "attention-sum": Recipe(
        "the attention loss on the sum over a phrase's tokens, which can reach 1, instead of their mean, which cannot",
        {"stca_reduce": "sum"},
    ),
    "no-paste": Recipe("without pasting the subject on generated backgrounds: its pictures on gray", {"paste": None}),
    "class-clips": Recipe("prior-preservation clips of the subject's class", {"prior_preservation": "class-clips"}),
    "dreambooth": Recipe("DreamBooth: whole pictures, and generated pictures of the class", _PICTURES_ALONE),
    "customvideo": Recipe(
        "CustomVideo: trains only the text's keys and values; attention loss, generated pictures of the class",
        {
            **_WHOLE_PICTURES,
            "prior_preservation": "class-pictures",
            "target_modules": TEXT_KEYS_AND_VALUES,
            "trainable": TEXT_KEYS_AND_VALUES + r"\.weight",
        },
    ),
}


def recipe_named(name: str) -> Recipe:
    """Raises InvalidInput for an unknown name, listing the known ones."""
    if name not in RECIPES:
        raise InvalidInput(
            'There is no recipe "{name}". Choose one of: {recipes}.', name=name, recipes=", ".join(RECIPES)
        )
    return RECIPES[name]


def with_recipe(settings: TrainSettings, name: str) -> TrainSettings:
    """The base's settings with the recipe's changes. Raises InvalidInput for an unknown recipe."""
    return msgspec.structs.replace(settings, **recipe_named(name).changes)
