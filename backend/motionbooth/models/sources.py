"""The base models of this machine and their folders. Imports no torch, because the server uses it, too."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import msgspec
import platformdirs
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from motionbooth_protocol.errors import InvalidInput, NotFound
from motionbooth_protocol.messages import ModelInfo
from motionbooth_protocol.wording import in_words

from motionbooth.models.post_processing import post_processing_files
from motionbooth.models.published import MODELS as MODELS
from motionbooth.models.published import published
from motionbooth.models.settings import BaseSettings

BUNDLED = {name: MODELS / name / "bundle" for name in ("toybox", "wantoy")}
TOYBOX = BUNDLED["toybox"]
_LARGE = 256 << 20  # bytes of a file


class _Format(msgspec.Struct):
    """The part of a settings file that clients see."""

    title: str
    frames: int
    width: int
    height: int
    fps: float


class _Autoencoder(msgspec.Struct):
    """The part of an autoencoder's configuration that says how many frames it encodes together."""

    kind: str = msgspec.field(name="_class_name", default="")
    scale_factor_temporal: int | None = None
    """Absent from published configurations with diffusers' default."""


@dataclass(frozen=True)
class Source:
    """A base model on disk: its diffusers folder and its settings file."""

    name: str
    folder: Path
    settings_file: Path

    @cached_property
    def settings(self) -> BaseSettings:
        """Raises InvalidInput if the file cannot be read."""
        return BaseSettings.read(self.settings_file)

    @property
    def info(self) -> ModelInfo:
        """What clients see of it. Raises InvalidInput if the settings cannot be read."""
        try:
            found = msgspec.json.decode(self.settings_file.read_bytes(), type=_Format)
        except (OSError, msgspec.MsgspecError) as error:
            raise InvalidInput(
                "The base model's settings at {path} cannot be read: {problem}. "
                "Correct them, or move the model's folder away.",
                path=self.settings_file,
                problem=in_words(error),
            ) from error
        return ModelInfo(
            name=self.name,
            title=found.title,
            frames=found.frames,
            width=found.width,
            height=found.height,
            fps=found.fps,
            frame_step=self.frame_step,
        )

    @property
    def frame_step(self) -> int:
        """Frames in each latent frame but the first, from the autoencoder's configuration; 1 if that cannot be read.

        The model then cannot be loaded, which says so.
        """
        try:
            found = msgspec.json.decode((self.folder / "vae" / "config.json").read_bytes(), type=_Autoencoder)
        except (OSError, msgspec.MsgspecError):
            return 1
        return found.scale_factor_temporal or (4 if found.kind == "AutoencoderKLWan" else 1)

    @property
    def present(self) -> bool:
        """Whether it is complete: an interrupted download leaves no weights."""
        return (
            (self.folder / "model_index.json").is_file()
            and self.settings_file.is_file()
            and bool(self._network_weights)
        )

    @property
    def _network_weights(self) -> list[Path]:
        """Those of a UNet, or of one transformer or two."""
        return [path for part in ("unet", "transformer", "transformer_2") for path in self._weights(part)]

    def _weights(self, part: str) -> list[Path]:
        """The weight files of a part: safetensors, or else files of torch.save."""
        folder = self.folder / part
        return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))

    @property
    def network_sha256(self) -> str:
        """sha256 of the network's weights: a subject only fits the base that it was trained on."""
        return files_digest(self._network_weights)

    @property
    def vae_sha256(self) -> str:
        """sha256 of the VAE's weights and configuration: latents only fit the VAE that encoded them."""
        return files_digest([*self._weights("vae"), self.folder / "vae" / "config.json"])


def files_digest(paths: Sequence[Path]) -> str:
    """sha256 of the contents of these files, in this order."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file, computed again only if its size or time changes."""
    state = path.stat()
    return _file_digest(path, state.st_size, state.st_mtime_ns).hex()


@cache
def _file_digest(path: Path, size: int, mtime_ns: int) -> bytes:
    """sha256 of a file, cached while its size and time stay the same, as weights have gigabytes; that of a large one on
    the disk, since it takes up to a minute in each new process.
    """
    key = hashlib.sha256(repr((str(path.resolve()), size, mtime_ns)).encode()).hexdigest()
    note = platformdirs.user_cache_path("motionbooth") / "sha256" / key
    if size >= _LARGE:
        with suppress(OSError, ValueError):
            noted = bytes.fromhex(note.read_text())
            if len(noted) == hashlib.sha256().digest_size:
                return noted
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    if size >= _LARGE:
        with suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(digest.hex())
    return digest


def model_version(name: str) -> str:
    """A hash that changes with every file of this base model, and with the post-processing networks; "" if there is no
    such model.

    Cheap enough to compute for every job, since it is made of names, sizes and times. A copy of the model has another
    version, so results of the original are not reused for it.
    """
    source = sources().get(name)
    if source is None:
        return ""
    own = (path for path in [*source.folder.rglob("*"), *post_processing_files()] if path.is_file())
    files = sorted({source.settings_file, *own})
    states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]


def models_folder() -> Path:
    """The folder of base models other than the bundled one, each in a sub-folder of its name."""
    chosen = os.environ.get("MOTIONBOOTH_MODELS")
    return Path(chosen) if chosen else platformdirs.user_data_path("motionbooth") / "models"


def model_folders() -> list[Path]:
    """Where the files of all models are that a worker may load, also where a link in models_folder() leads."""
    folders = [models_folder(), Path(HF_HUB_CACHE), *(source.folder for source in sources().values())]
    sam = os.environ.get("MOTIONBOOTH_SAM")
    return [*folders, *([Path(sam)] if sam else []), *post_processing_files()]


def caches() -> list[Path]:
    """The folders in which a worker keeps what later jobs can use."""
    return [platformdirs.user_cache_path("motionbooth")]


def sources() -> dict[str, Source]:
    """All base models that can be loaded, by name.

    These are the bundled ones, models in the Hugging Face cache for which we have settings, and each diffusers folder
    in models_folder() that contains a `motionbooth.json` or has the name of a model for which we have settings.
    """
    folders = [path.parent for path in sorted(models_folder().glob("[!.]*/model_index.json"))]
    found = [Source(name, folder, folder / "motionbooth.json") for name, folder in BUNDLED.items()]
    found += _downloaded()
    found += [Source(folder.name, folder, _settings_file(folder)) for folder in folders]
    return {source.name: source for source in found if source.present}


def usable_models() -> list[ModelInfo]:
    """What clients see of the base models that can be loaded. Raises InvalidInput if settings cannot be read."""
    return [source.info for source in sources().values()]


def fetched_folder(name: str) -> Path | None:
    """The folder of a published model that is in models_folder(); None if it is not there."""
    if name not in published():
        return None
    folder = models_folder() / name
    return folder if (folder / published()[name].config).is_file() else None


def _downloaded() -> Iterator[Source]:
    for name, model in published().items():
        index = try_to_load_from_cache(model.hub, "model_index.json") if model.kind == "base model" else None
        if isinstance(index, str):
            yield Source(name, Path(index).parent, MODELS / f"{name}.json")


def _settings_file(folder: Path) -> Path:
    own = folder / "motionbooth.json"
    return own if own.is_file() else MODELS / f"{folder.name}.json"


def folder_named(name: str) -> Path:
    """The folder of a base model, or of another published model that was fetched. Raises NotFound."""
    if (folder := fetched_folder(name)) is not None:
        return folder
    if name in published() and published()[name].kind != "base model":
        raise _not_here(name)
    return source_named(name).folder


def source_named(name: str) -> Source:
    """A base model by our name or the hub's ("cerspense/zeroscope_v2_576w"). Raises NotFound, with how to get it."""
    known = sources()
    bases = {own: model.hub for own, model in published().items() if model.kind == "base model"}
    ours = next((own for own, hub in bases.items() if hub == name), name)
    if ours in known:
        return known[ours]
    if ours in bases:
        raise _not_here(ours)
    raise NotFound(
        'There is no base model "{name}" here, only: {models}. Put its folder, as downloaded, at {place}.',
        name=name,
        models=", ".join(known) or "none",
        place=models_folder() / ours,
    )


def _not_here(name: str) -> NotFound:
    return NotFound(
        "{model} is not on this machine. Fetch it with: motionbooth models get {model} (without a network, fetch it on "
        "another machine, and copy its folder to {place}).",
        model=name,
        place=models_folder() / name,
    )
