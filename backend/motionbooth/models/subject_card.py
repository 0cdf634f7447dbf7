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


class ClassMotion(Struct, frozen=True):
    """Mean optical flow of clips of the class ("a dog"), in pixels a frame; None if they have no texture."""

    before: float | None
    """Without the LoRA."""
    after: float | None
    """With it."""


class SubjectCard(Struct, frozen=True):
    """The description of a trained subject."""

    name: str
    token: str
    class_word: str
    prompt: str
    """The caption that it was trained with: "a sks dog"."""
    base: str
    """Name of the base that it was trained on."""
    base_sha256: str
    """`Source.network_sha256` of that base."""
    method: Annotated[str, Meta(pattern="^(lora|full)$")]
    rank: int
    """Rank of the LoRA."""
    target_modules: str
    """Modules of the LoRA, as in TrainSettings."""
    recipe: str = "motionbooth"
    pictures: list[str] = []
    """sha256 of each training picture."""
    appearance: str = ""
    """Its colors (Appearance.as_text), by which it is found in clips; "" if unknown."""
    motion: ClassMotion | None = None
    """How much the class moves after the training; None if it was not measured."""

    @property
    def phrase(self) -> str:
        """Its name in prompts: "sks dog"."""
        return f"{self.token} {self.class_word}"


def read_card(path: Path) -> SubjectCard:
    """The card in a subject's file. Raises InvalidInput for any other file."""
    try:
        with safe_open(path, framework="np") as file:
            return msgspec.json.decode((file.metadata() or {})[HEADER], type=SubjectCard)
    except (SafetensorError, OSError, KeyError, msgspec.MsgspecError) as error:
        raise InvalidInput(
            "{path} is not the file of a trained subject: it is missing, corrupt or another file. "
            "Name the right file, or train the subject again.",
            path=path.name,
        ) from error
