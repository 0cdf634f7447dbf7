"""Fetches published models from the hub, a mirror or a folder, and checks their files. Imports no torch.

Only the models of published.toml are fetched, by our names. Nothing of them is ever executed.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout
from huggingface_hub import hf_hub_download
from huggingface_hub.utils.logging import set_verbosity_error
from motionbooth_protocol.errors import Conflict, InvalidInput, JobFailed, NotFound

from motionbooth.models.offers import (
    FileCard,
    Manifest,
    Offer,
    Origin,
    check_has_weights,
    check_inside,
    download_errors,
    needed_files,
    token_for,
)
from motionbooth.models.published import published, published_named
from motionbooth.models.sources import BUNDLED, models_folder

MANIFEST = "motionbooth_download.json"
SPARE_BYTES = 1 << 30
"""Free space that is left after a download."""
FETCHING, CHECKING, CONVERTING = "fetching the model", "checking the model", "converting the model"
OnStage = Callable[[str], None]


def fetch(found: Offer, on_stage: OnStage = lambda stage: None) -> Path:
    """Download into models_folder(), resuming an interrupted download, check every file, and convert if need be.

    Returns the folder. Raises InvalidInput if there is no space or the model is there, Conflict if another process
    fetches it, and JobFailed if it cannot be completed.
    """
    with _sole_process(found.name) as partial:
        on_stage(FETCHING)
        set_verbosity_error()  # it tries again by itself, and we say it if that does not help
        needs_copy = published_named(found.name).convert != ""
        _check_space(partial, found.size * (2 if needs_copy else 1) - fetched_bytes(found.name))
        for part in found.parts:
            with download_errors(part.origin.hub, found.endpoint):
                for path in part.files:
                    hf_hub_download(
                        part.origin.hub,
                        path,
                        revision=part.origin.revision,
                        local_dir=partial / part.repository.into,
                        endpoint=found.endpoint,
                        token=token_for(found.endpoint),
                    )
        return _complete(found.name, partial, found.manifest, on_stage)


def fetched_bytes(name: str) -> int:
    """How many bytes of an unfinished download are on the disk."""
    total = 0
    for path in _partial(name).rglob("*"):
        with suppress(OSError):  # it was renamed meanwhile
            total += path.stat().st_size if path.is_file() else 0
    return total


def copy(name: str, folder: Path) -> Path:
    """Copy a model that was fetched elsewhere, with `hf download --local-dir` or by us. Raises InvalidInput."""
    model = published_named(name)
    if not (folder / model.config).is_file():
        raise InvalidInput(
            "{folder} has no {file}: it is not a folder with {model}. Choose the folder that `motionbooth models get "
            "{model}` made on another machine, or one that `hf download {hub} --local-dir` wrote.",
            folder=folder,
            file=model.config,
            model=name,
            hub=model.hub,
        )
    manifest = _manifest(folder) or _manifest_of_files(name, folder)
    hubs = [origin.hub for origin in manifest.origins]
    if hubs != [one.hub for one in model.repositories]:
        raise InvalidInput(
            "{folder} has {hub}, and {model} is {expected}. Choose the folder of {model}.",
            folder=folder,
            hub=" and ".join(hubs),
            model=name,
            expected=" and ".join(one.hub for one in model.repositories),
        )
    check_has_weights(name, manifest.files, str(folder))
    for path in manifest.files:
        check_inside(path)
    with _sole_process(name) as partial:
        _check_space(partial, sum(card.size for card in manifest.files.values()))
        for path in manifest.files:
            if not (folder / path).is_file():
                raise InvalidInput("{folder} lacks {path}. Fetch it there again.", folder=folder, path=path)
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / path, partial / path)
        _check_arrived(name, partial, manifest)
        return _finished(name, partial, manifest)


def _manifest_of_files(name: str, folder: Path) -> Manifest:
    """Of a folder that we have not made: what is there is taken for whole."""
    model = published_named(name)
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    patterns = [] if model.convert else model.repositories[0].files
    files = needed_files([path for path in paths if not path.startswith(".cache/")], patterns)
    cards = {path: FileCard((folder / path).stat().st_size) for path in files}
    return Manifest([Origin(one.hub) for one in model.repositories], cards)


def check_sound(name: str, folder: Path, on_file: Callable[[str], None] = lambda path: None) -> None:
    """Check the files of a fetched model. Raises JobFailed if some are damaged, InvalidInput if we have no sums."""
    if name in BUNDLED:
        raise InvalidInput("{model} comes with MotionBooth. If it is damaged, reinstall MotionBooth.", model=name)
    damaged = damaged_files(folder, on_file)
    if damaged is None:
        raise InvalidInput(
            "{folder} was not fetched with `motionbooth models get`, so the sums of its files are not known.",
            folder=folder,
        )
    if damaged:
        raise JobFailed(
            "{count} files of {model} are missing or damaged, such as {path}. Remove the model and fetch it again.",
            count=len(damaged),
            model=name,
            path=damaged[0],
        )


def remove(name: str) -> Path:
    """Delete a fetched model, or what is there of an unfinished download. Raises NotFound if there is neither."""
    folder, partial = models_folder() / name, _partial(name)
    if name in BUNDLED:
        raise InvalidInput(
            "{model} comes with MotionBooth and is not removed. It takes no space beside it.", model=name
        )
    is_ours = name in published() and not folder.is_symlink() and _manifest(folder) is not None
    if not is_ours and (name not in published() or folder.exists() or not partial.exists()):
        raise NotFound(
            "{model} was not fetched with `motionbooth models get`, so it is not removed. Models in the cache of "
            "Hugging Face are removed with `hf cache rm`; any other folder is yours to delete.",
            model=name,
        )
    with _locked(name):
        if is_ours:
            shutil.rmtree(partial, ignore_errors=True)
            folder.rename(partial)  # at once, and not at all if another program has it open
        shutil.rmtree(partial)
    return folder if is_ours else partial


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


def _complete(name: str, partial: Path, manifest: Manifest, on_stage: OnStage) -> Path:
    """Make a finished download the model. Raises JobFailed, after deleting damaged files."""
    on_stage(CHECKING)
    _check_arrived(name, partial, manifest)
    model = published_named(name)
    if not model.convert:
        return _finished(name, partial, manifest)
    from motionbooth.models.lavie import convert  # imports torch

    on_stage(CONVERTING)
    lavie, stable_diffusion = model.repositories
    made = partial / "conversion" / name
    shutil.rmtree(made.parent, ignore_errors=True)  # of an attempt that was interrupted
    convert.convert_lavie(partial / lavie.files[0], partial / stable_diffusion.into, made)
    files = sorted(path for path in made.rglob("*") if path.is_file())
    cards = {path.relative_to(made).as_posix(): FileCard(path.stat().st_size) for path in files}
    folder = _finished(name, made, Manifest(manifest.origins, cards))
    shutil.rmtree(partial)
    return folder


def _check_arrived(name: str, partial: Path, manifest: Manifest) -> None:
    if damaged := _damaged(partial, manifest):
        for path in damaged:
            (partial / path).unlink(missing_ok=True)
        raise JobFailed(
            "{count} files of {model} arrived damaged ({path}) and were deleted. Fetch the model again; only what is "
            "missing is downloaded.",
            count=len(damaged),
            model=name,
            path=damaged[0],
        )


def _finished(name: str, made: Path, manifest: Manifest) -> Path:
    """Give a folder its name, as the last step of all."""
    shutil.rmtree(made / ".cache", ignore_errors=True)  # of the download itself
    for path in [path for path in made.rglob("*") if path.is_file()]:
        if path.relative_to(made).as_posix() not in manifest.files:
            path.unlink()  # of an older revision: it would be loaded, too
    # The hub has no sums of small files, and another folder may have none at all.
    cards = {path: FileCard(card.size, card.sha256 or _sha256(made / path)) for path, card in manifest.files.items()}
    manifest = Manifest(manifest.origins, cards)
    (made / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    return made.rename(models_folder() / name)


def _manifest(folder: Path) -> Manifest | None:
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError):
        return None


def _partial(name: str) -> Path:
    return models_folder() / f".{name}.partial"


@contextmanager
def _sole_process(name: str) -> Iterator[Path]:
    """The folder of the unfinished download, for this process alone. Raises InvalidInput, Conflict."""
    target, partial = models_folder() / name, _partial(name)
    partial.mkdir(parents=True, exist_ok=True)
    with _locked(name):
        if target.exists():
            shutil.rmtree(partial, ignore_errors=True)
            raise InvalidInput("{model} is already at {place}.", model=name, place=target)
        yield partial


@contextmanager
def _locked(name: str) -> Iterator[None]:
    lock = FileLock(models_folder() / f".{name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise Conflict("Another process is fetching {model}. Wait until it has ended.", model=name) from error
    try:
        yield
    finally:
        lock.release()


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
