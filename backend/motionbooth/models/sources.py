"""Which base models there are, and where they lie. Loads no torch: the server asks it, too."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import platformdirs
from huggingface_hub import try_to_load_from_cache
from motionbooth_protocol.errors import InvalidInput, NotFound
from motionbooth_protocol.messages import ModelInfo
from motionbooth_protocol.wording import in_words

if TYPE_CHECKING:
    from motionbooth.models.settings import BaseSettings

MODELS = Path(__file__).parent
TOYBOX = MODELS / "toybox" / "bundle"


class _Format(msgspec.Struct):
    """The part of a settings file that clients are told."""

    title: str
    frames: int
    width: int
    height: int
    fps: float
    hub: str | None = None


@dataclass(frozen=True)
class Source:
    """Where a base model comes from: its diffusers folder, and its settings."""

    name: str
    folder: Path
    settings_file: Path

    @cached_property
    def settings(self) -> BaseSettings:
        from motionbooth.models.settings import BaseSettings

        return BaseSettings.read(self.settings_file)

    @property
    def info(self) -> ModelInfo:
        """What clients are told of it. Raises InvalidInput where the settings cannot be read."""
        try:
            told = msgspec.json.decode(self.settings_file.read_bytes(), type=_Format)
        except (OSError, msgspec.MsgspecError) as error:
            raise InvalidInput(
                "The base model's settings at {path} cannot be read: {problem}. "
                "Correct them, or move the model's folder away.",
                path=self.settings_file,
                problem=in_words(error),
            ) from error
        return ModelInfo(
            name=self.name, title=told.title, frames=told.frames, width=told.width, height=told.height, fps=told.fps
        )

    @property
    def present(self) -> bool:
        """Its weights may be missing where a download was broken off."""
        return (
            (self.folder / "model_index.json").is_file()
            and self.settings_file.is_file()
            and bool(self._weights("unet"))
        )

    def _weights(self, part: str) -> list[Path]:
        """Of the part, as published: safetensors, or else what torch.save wrote."""
        folder = self.folder / part
        return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))

    @property
    def fingerprint(self) -> str:
        """sha256 of the UNet's weights: a subject belongs to the base that it was learned on."""
        return files_digest(self._weights("unet"))

    @property
    def encoder_fingerprint(self) -> str:
        """sha256 of the VAE's weights: encoded pictures belong to it."""
        return files_digest(self._weights("vae"))


def files_digest(paths: Sequence[Path]) -> str:
    """sha256 of the contents of these files, in this order."""
    digest = hashlib.sha256()
    for path in paths:
        state = path.stat()
        digest.update(_file_digest(path, state.st_size, state.st_mtime_ns))
    return digest.hexdigest()


@cache
def _file_digest(path: Path, size: int, mtime_ns: int) -> bytes:
    """sha256 of a file; weights have gigabytes, and are read once as long as they have this size and time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def model_version(name: str) -> str:
    """A hash that changes with every file of this base model; "" if there is no such model.

    Cheap enough to compute for every job, since it is made of names, sizes and times. A copy of the model has another
    version, so results of the original are not reused for it.
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
    """All base models that can be loaded, by name.

    The bundled toybox; models whose settings we know and that lie in the Hugging Face cache; each diffusers folder in
    models_folder(), which brings its own `motionbooth.json` or has the name of a model whose settings we know.
    """
    folders = [path.parent for path in sorted(models_folder().glob("*/model_index.json"))]
    found = [Source("toybox", TOYBOX, TOYBOX / "motionbooth.json"), *_downloaded()]
    found += [Source(folder.name, folder, _settings_file(folder)) for folder in folders]
    return {source.name: source for source in found if source.present}


def hub_names() -> dict[str, str]:
    """The hub's name of each model that we know the settings of and that is published in diffusers' layout."""
    told = {path.stem: msgspec.json.decode(path.read_bytes(), type=_Format) for path in sorted(MODELS.glob("*.json"))}
    return {name: model.hub for name, model in told.items() if model.hub is not None}


def _downloaded() -> Iterator[Source]:
    for name, hub in hub_names().items():
        index = try_to_load_from_cache(hub, "model_index.json")
        if isinstance(index, str):
            yield Source(name, Path(index).parent, MODELS / f"{name}.json")


def _settings_file(folder: Path) -> Path:
    own = folder / "motionbooth.json"
    return own if own.is_file() else MODELS / f"{folder.name}.json"


def source_named(name: str) -> Source:
    """A base model by our name, or by the hub's ("cerspense/zeroscope_v2_576w"). Raises NotFound: how to get it."""
    known, hubs = sources(), hub_names()
    ours = next((own for own, hub in hubs.items() if hub == name), name)
    if ours in known:
        return known[ours]
    place = models_folder() / ours
    if ours in hubs:
        raise NotFound(
            "{model} is not on this machine. Fetch it with: hf download {hub} (where there is no network, fetch "
            "it elsewhere with: hf download {hub} --local-dir {model} and put that folder at {place}).",
            model=ours,
            hub=hubs[ours],
            place=place,
        )
    raise NotFound(
        'There is no base model "{name}" here, only: {models}. Put its folder, as downloaded, at {place}.',
        name=name,
        models=", ".join(known) or "none",
        place=place,
    )
