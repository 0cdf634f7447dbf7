"""Which base models there are, and where they lie. Loads no torch: the server asks it, too."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import platformdirs
from motionbooth_protocol.errors import InvalidInput, NotFound
from motionbooth_protocol.messages import ModelInfo

if TYPE_CHECKING:
    from .settings import BaseSettings

MODELS = Path(__file__).parent
TOYBOX = MODELS / "toybox" / "bundle"


class _Format(msgspec.Struct):
    """The part of a settings file that clients are told."""

    title: str
    frames: int
    width: int
    height: int
    fps: float


@dataclass(frozen=True)
class Source:
    """Where a base model comes from: its diffusers folder, and its settings."""

    name: str
    folder: Path
    settings_file: Path

    @cached_property
    def settings(self) -> BaseSettings:
        from .settings import BaseSettings

        return BaseSettings.read(self.settings_file)

    @property
    def info(self) -> ModelInfo:
        """What clients are told of it. Raises InvalidInput where the settings cannot be read."""
        try:
            told = msgspec.json.decode(self.settings_file.read_bytes(), type=_Format)
        except (OSError, msgspec.MsgspecError) as error:
            raise InvalidInput(
                f"The base model's settings at {self.settings_file} cannot be read: {error}. "
                "Correct them, or move the model's folder away."
            ) from error
        return ModelInfo(
            name=self.name, title=told.title, frames=told.frames, width=told.width, height=told.height, fps=told.fps
        )

    @property
    def present(self) -> bool:
        return (self.folder / "model_index.json").is_file() and self.settings_file.is_file()

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the UNet's weights: a subject belongs to the base that it was learned on."""
        weights = sorted((self.folder / "unet").glob("*.safetensors"))
        digest = hashlib.sha256()
        for path in weights:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


def stamp(name: str) -> str:
    """Another one whenever a file of this base model was changed, "" where there is no such model.

    Made of names, sizes and times, so that it costs nothing to ask before every job; a copy of the same model has
    another stamp, and is filmed with once more.
    """
    source = sources().get(name)
    if source is None:
        return ""
    files = sorted({source.settings_file, *(path for path in source.folder.rglob("*") if path.is_file())})
    states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]


def models_folder() -> Path:
    """Where base models other than the bundled one are looked for: each in a folder of its own, named after it."""
    chosen = os.environ.get("MOTIONBOOTH_MODELS")
    return Path(chosen) if chosen else platformdirs.user_data_path("motionbooth") / "models"


def sources() -> dict[str, Source]:
    """All base models that can be loaded, by name: the bundled toybox, and each diffusers folder in models_folder().

    A folder brings its own `motionbooth.json`, or has the name of a model whose settings we know ("zeroscope").
    """
    folders = [TOYBOX, *(path.parent for path in sorted(models_folder().glob("*/model_index.json")))]
    found = [Source(_name(folder), folder, _settings_file(folder)) for folder in folders]
    return {source.name: source for source in found if source.present}


def _name(folder: Path) -> str:
    return "toybox" if folder == TOYBOX else folder.name


def _settings_file(folder: Path) -> Path:
    own = folder / "motionbooth.json"
    return own if own.is_file() else MODELS / f"{folder.name}.json"


def source_named(name: str) -> Source:
    """Raises NotFound, naming the models that there are."""
    known = sources()
    if name not in known:
        raise NotFound(
            f'There is no base model "{name}" here, only: {", ".join(known) or "none"}. '
            f"Put its folder, as downloaded, at {models_folder() / name}."
        )
    return known[name]
