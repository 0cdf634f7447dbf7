"""Fetches published models from the hub, a mirror or a folder, and checks their files. Imports no torch.

Only models for which we have settings are fetched, by our names. Nothing of them is ever executed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import msgspec
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from motionbooth_protocol.errors import InvalidInput, JobFailed, NotFound
from motionbooth_protocol.wording import in_words

from motionbooth.models.sources import hub_names, models_folder

# Of the HTTP library that this version of huggingface_hub uses: it has changed twice.
_DOWNLOAD_ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ in ("HTTPError", "RequestException")),
    LocalEntryNotFoundError,
    OSError,
)
MANIFEST = "motionbooth_download.json"
KINDS = ("*.json", "*.txt", "*.model", "*.safetensors", "*.md", "*.bin")
SPARE_BYTES = 1 << 30
"""Free space that is left after a download."""


class FileCard(msgspec.Struct, frozen=True):
    """`sha256` is "" where the hub has none, for small files."""

    size: int
    sha256: str = ""


class Manifest(msgspec.Struct, frozen=True):
    """What was fetched: `files` by their paths in the folder."""

    hub: str
    revision: str
    license: str
    files: dict[str, FileCard]


@dataclass(frozen=True)
class Offer:
    """A published model as the hub has it now."""

    name: str
    manifest: Manifest
    endpoint: str | None

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(card.size for card in self.manifest.files.values())


def offer(name: str, endpoint: str | None = None) -> Offer:
    """Ask the hub, or a mirror at `endpoint` (a URL), about a model. Raises NotFound, JobFailed."""
    hub = _hub_of(name)
    try:
        found = HfApi(endpoint=endpoint).model_info(hub, files_metadata=True)
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise NotFound(
            "{hub} is not at {endpoint}, or is closed to you. Log in with `hf auth login`, or choose another mirror.",
            hub=hub,
            endpoint=endpoint or "the hub",
        ) from error
    except _DOWNLOAD_ERRORS as error:
        raise _unreachable(endpoint, error) from error
    cards = {
        sibling.rfilename: FileCard(sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else "")
        for sibling in found.siblings or []
    }
    license = next((tag.removeprefix("license:") for tag in found.tags or [] if tag.startswith("license:")), "")
    chosen = {path: cards[path] for path in needed_files(list(cards))}
    return Offer(name, Manifest(hub, found.sha or "main", license, chosen), endpoint)


def needed_files(paths: list[str]) -> list[str]:
    """Those of a diffusers folder that are loaded: no second copy of weights in another format or precision.

    A folder with safetensors needs no other weights. Variants such as model.fp16.safetensors are left out if the plain
    file is there, and weights beside the parts' folders, which are for other programs, always.
    """
    kept = []
    for path in sorted(paths):
        file = PurePosixPath(path)
        beside = [PurePosixPath(other) for other in paths if PurePosixPath(other).parent == file.parent]
        is_weights = file.suffix in (".safetensors", ".bin")
        if not any(fnmatch(file.name, kind) for kind in KINDS) or (is_weights and file.parent == PurePosixPath()):
            continue
        if file.suffix == ".bin" and any(other.suffix == ".safetensors" for other in beside):
            continue
        plain = file.with_name(file.name.partition(".")[0] + file.suffix)  # model.bin for model.fp16.bin
        if is_weights and plain != file and plain in beside:
            continue
        kept.append(path)
    return kept


def fetch(found: Offer) -> Path:
    """Download into models_folder(), resuming an interrupted download, and check every file. Returns the folder.

    Raises InvalidInput if there is no space, JobFailed if it cannot be completed.
    """
    target = models_folder() / found.name
    if target.exists():
        raise InvalidInput("{model} is already at {place}.", model=found.name, place=target)
    partial = _partial(found.name)
    partial.mkdir(parents=True, exist_ok=True)
    have = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    _check_space(partial, found.size - have)
    try:
        for path in found.manifest.files:
            hf_hub_download(
                found.manifest.hub,
                path,
                revision=found.manifest.revision,
                local_dir=partial,
                endpoint=found.endpoint,
            )
    except _DOWNLOAD_ERRORS as error:
        raise _unreachable(found.endpoint, error) from error
    return _complete(found.name, partial, found.manifest)


def copy(name: str, folder: Path) -> Path:
    """Copy a model that was fetched elsewhere, with `hf download --local-dir` or by us. Raises InvalidInput."""
    hub = _hub_of(name)
    target = models_folder() / name
    if target.exists():
        raise InvalidInput("{model} is already at {place}.", model=name, place=target)
    if not (folder / "model_index.json").is_file():
        raise InvalidInput(
            "{folder} has no model_index.json: it is not a model in diffusers' layout. Choose the folder that "
            "`hf download {hub} --local-dir` wrote.",
            folder=folder,
            hub=hub,
        )
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    files = needed_files([path for path in paths if not path.startswith(".cache/")])
    known = _manifest(folder)
    cards = known.files if known else {path: FileCard((folder / path).stat().st_size) for path in files}
    manifest = known or Manifest(hub, "", "", cards)
    partial = _partial(name)
    _check_space(partial.parent, sum(card.size for card in cards.values()))
    for path in cards:
        if not (folder / path).is_file():
            raise InvalidInput("{folder} lacks {path}. Fetch it there again.", folder=folder, path=path)
        (partial / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, partial / path)
    return _complete(name, partial, manifest)


def remove(name: str) -> Path:
    """Delete a fetched model. Raises NotFound if we have not fetched it."""
    folder = models_folder() / name
    if _manifest(folder) is None:
        raise NotFound(
            "{model} was not fetched with `motionbooth models get`, so it is not removed. Models in the cache of "
            "Hugging Face are removed with `hf cache rm`; any other folder is yours to delete.",
            model=name,
        )
    shutil.rmtree(folder)
    return folder


def damaged_files(folder: Path, on_file: Callable[[str], None] = lambda path: None) -> list[str] | None:
    """The files of a fetched model that are missing or have changed; None if it was not fetched by us."""
    manifest = _manifest(folder)
    return None if manifest is None else _damaged(folder, manifest, on_file)


def _damaged(folder: Path, manifest: Manifest, on_file: Callable[[str], None] = lambda path: None) -> list[str]:
    found = []
    for path, card in manifest.files.items():
        on_file(path)
        file = folder / path
        if not file.is_file() or file.stat().st_size != card.size or (card.sha256 and _sha256(file) != card.sha256):
            found.append(path)
    return found


def _complete(name: str, partial: Path, manifest: Manifest) -> Path:
    """Check a finished download and give it its name. Raises JobFailed, after deleting damaged files."""
    if damaged := _damaged(partial, manifest):
        for path in damaged:
            (partial / path).unlink(missing_ok=True)
        raise JobFailed(
            "{count} files of {model} arrived damaged ({path}) and were deleted. Run the same command again; it "
            "fetches only what is missing.",
            count=len(damaged),
            model=name,
            path=damaged[0],
        )
    shutil.rmtree(partial / ".cache", ignore_errors=True)  # of the download itself
    (partial / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    return partial.rename(models_folder() / name)


def _manifest(folder: Path) -> Manifest | None:
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError):
        return None


def _partial(name: str) -> Path:
    return models_folder() / f".{name}.partial"


def _hub_of(name: str) -> str:
    hubs = hub_names()
    if name not in hubs:
        raise NotFound(
            "There is no published model {name} that can be fetched, only: {known}.",
            name=name,
            known=", ".join(sorted(hubs)),
        )
    return hubs[name]


def _check_space(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed + SPARE_BYTES > free:
        raise InvalidInput(
            "The model needs {needed:.1f} GB and 1 GB to spare, and {folder} has {free:.1f} GB free. Free some space, "
            "or set MOTIONBOOTH_MODELS to a folder on another disk.",
            needed=needed / 1e9,
            folder=folder,
            free=free / 1e9,
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreachable(endpoint: str | None, error: Exception) -> JobFailed:
    return JobFailed(
        "The download from {endpoint} broke off ({reason}). Run the same command again to resume it, or use --from "
        "with a mirror or a folder.",
        endpoint=endpoint or "the hub",
        reason=in_words(error),
    )
