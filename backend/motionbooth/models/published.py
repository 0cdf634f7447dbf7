"""The models that can be fetched, by our names: published.toml. Imports no torch."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec
from motionbooth_protocol.errors import NotFound

MODELS = Path(__file__).parent
_REGISTRY = MODELS / "published.toml"


class Repository(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See published.toml."""

    hub: str
    files: list[str] = []
    into: str = ""
    license_page: str = ""

    @property
    def license_at(self) -> str:
        """The address of the license's text."""
        return self.license_page or f"https://huggingface.co/{self.hub}"


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """See published.toml."""

    kind: Literal["base model", "mask finder", "measuring network"]
    repositories: list[Repository]
    title: str = ""
    convert: Literal["", "lavie"] = ""

    @property
    def hub(self) -> str:
        """The name of its repository, or of the first of them."""
        return self.repositories[0].hub

    @property
    def config(self) -> str:
        """The file that a folder with the model has."""
        return "model_index.json" if self.kind == "base model" else "config.json"


class _Titled(msgspec.Struct):
    title: str


@cache
def published() -> dict[str, Published]:
    """All models that can be fetched."""
    content = tomllib.loads(_REGISTRY.read_text(encoding="utf-8"))
    return {name: msgspec.convert(entry, Published) for name, entry in content.items()}


def published_named(name: str) -> Published:
    """The only way from a name to a repository; anyone may have sent the name. Raises NotFound."""
    known = published()
    if name not in known:
        raise NotFound(
            "There is no published model {name} that can be fetched, only: {known}.",
            name=name,
            known=", ".join(sorted(known)),
        )
    return known[name]


def title_of(name: str) -> str:
    """A published model's title."""
    found = published_named(name)
    return found.title or msgspec.json.decode((MODELS / f"{name}.json").read_bytes(), type=_Titled).title
