"""What a trained subject's file says about itself, in the header of its safetensors file. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from motionbooth_protocol.errors import InvalidInput
from msgspec import Meta, Struct
from safetensors import SafetensorError, safe_open

HEADER = "motionbooth"
"""The key of the card in the file's metadata."""


class SubjectCard(Struct, frozen=True):
    """What a subject's file says of itself. `base_fingerprint`: Source.fingerprint of the base it was learned on.

    `recipe`: how, see recipes.py. `pictures`: the sha256 of each picture that it was learned from. `looks`: its colours
    (Appearance.as_text), by which it is found in a clip without the pictures; "" in files of older versions.
    """

    name: str
    token: str
    class_word: str
    prompt: str
    base: str
    base_fingerprint: str
    method: Annotated[str, Meta(pattern="^(lora|full)$")]
    rank: int
    layers: str
    recipe: str = "motionbooth"
    pictures: list[str] = []
    looks: str = ""


def read_card(path: Path) -> SubjectCard:
    """Raises InvalidInput for a file that is not a subject."""
    try:
        with safe_open(path, framework="np") as file:
            return msgspec.json.decode((file.metadata() or {})[HEADER], type=SubjectCard)
    except (SafetensorError, OSError, KeyError, msgspec.MsgspecError) as error:
        raise InvalidInput(
            "{path} is not a subject that this program has learned: it is missing, damaged or another file. "
            "Name the right file, or learn the subject again.",
            path=path.name,
        ) from error
