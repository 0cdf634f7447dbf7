"""What the hub, or a mirror of it, has of a published model: which files, how large, under which license."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Literal

import msgspec
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from motionbooth_protocol.errors import JobFailed, MotionBoothError, NotFound
from motionbooth_protocol.wording import in_words

from motionbooth.models.published import Repository, published_named

# Of the HTTP library that this version of huggingface_hub uses: it has changed twice.
_DOWNLOAD_ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ in ("HTTPError", "RequestException")),
    LocalEntryNotFoundError,
    OSError,
)
_NOT_A_HUB = (ValueError, KeyError, TypeError, AttributeError)  # what it raises about other answers
KINDS = ("*.json", "*.txt", "*.model", "*.safetensors", "*.md", "*.bin")
WEIGHTS = (".safetensors", ".bin", ".pt", ".onnx")
_NUMBER = re.compile(r"\[(Errno|WinError) -?\d+\] ")
_BROKEN_OFF = "broken_off"


class FileCard(msgspec.Struct, frozen=True):
    """`sha256` is "" where the hub has none, for small files."""

    size: int
    sha256: str = ""


class Origin(msgspec.Struct, frozen=True):
    """A repository, as it was when its files were fetched. `license`: its name on the hub; "" if that has none."""

    hub: str
    revision: str = ""
    license: str = ""


class Manifest(msgspec.Struct, frozen=True):
    """What was fetched: `files` by their paths in the folder."""

    origins: list[Origin]
    files: dict[str, FileCard]


@dataclass(frozen=True)
class Part:
    """The files of one repository, by their paths there, as the hub has them now."""

    repository: Repository
    origin: Origin
    files: dict[str, FileCard]

    @property
    def license(self) -> str:
        """The license's name, and where its text is."""
        return f"{self.origin.license or 'not stated'}; its text is at {self.repository.license_at}"


@dataclass(frozen=True)
class Offer:
    """A published model as the hub has it now."""

    name: str
    parts: list[Part]
    endpoint: str | None

    @property
    def manifest(self) -> Manifest:
        """Of the folder into which it is fetched."""
        files = {
            (PurePosixPath(part.repository.into) / path).as_posix(): card
            for part in self.parts
            for path, card in part.files.items()
        }
        return Manifest([part.origin for part in self.parts], files)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(card.size for part in self.parts for card in part.files.values())


def offer(name: str, endpoint: str | None = None) -> Offer:
    """Ask the hub, or a mirror at `endpoint` (a URL), about a model. Raises NotFound, JobFailed."""
    return Offer(name, [_part(name, one, endpoint) for one in published_named(name).repositories], endpoint)


def token_for(endpoint: str | None) -> Literal[False] | None:
    """As huggingface_hub takes it. The user's own is for the hub only, not for a mirror."""
    return None if endpoint is None else False


def _part(name: str, repository: Repository, endpoint: str | None) -> Part:
    with download_errors(repository.hub, endpoint):
        try:
            found = HfApi(endpoint=endpoint, token=token_for(endpoint)).model_info(repository.hub, files_metadata=True)
        except _NOT_A_HUB as error:
            if isinstance(error, _DOWNLOAD_ERRORS):
                raise
            raise JobFailed(
                "{endpoint} does not answer as a model hub does. Correct the address of the mirror, or leave --from "
                "out to use the hub.",
                endpoint=endpoint or "The hub",
            ) from error
    cards = {
        sibling.rfilename: FileCard(sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else "")
        for sibling in found.siblings or []
    }
    license = next((tag.removeprefix("license:") for tag in found.tags or [] if tag.startswith("license:")), "")
    chosen = {path: cards[path] for path in needed_files(list(cards), repository.files)}
    check_has_weights(name, chosen, f"{repository.hub} at {endpoint or 'the hub'}")
    return Part(repository, Origin(repository.hub, found.sha or "main", license), chosen)


def needed_files(paths: list[str], patterns: Sequence[str] = ()) -> list[str]:
    """Those of a repository that are loaded: no second copy of weights in another format or precision.

    `patterns`: of what is loaded; none for a diffusers folder. Where there are safetensors, no other weights are
    needed beside them. Variants such as model.fp16.safetensors are left out if the plain file is there; so are
    weights beside the parts' folders of a diffusers folder, which are for other programs. Raises JobFailed for paths
    that lead out of the folder.
    """
    kept = []
    for path in sorted(paths):
        check_inside(path)
        file = PurePosixPath(path)
        beside = [PurePosixPath(other) for other in paths if PurePosixPath(other).parent == file.parent]
        is_weights = file.suffix in WEIGHTS
        if patterns:
            wanted = any(fnmatch(path, pattern) for pattern in patterns)
        else:
            is_of_others = is_weights and file.parent == PurePosixPath()
            wanted = not is_of_others and any(fnmatch(file.name, kind) for kind in KINDS)
        if not wanted or (file.suffix == ".bin" and any(other.suffix == ".safetensors" for other in beside)):
            continue
        plain = file.with_name(file.name.partition(".")[0] + file.suffix)  # model.bin for model.fp16.bin
        if is_weights and plain != file and plain in beside:
            continue
        kept.append(path)
    return kept


def check_inside(path: str) -> None:
    """A file goes into the model's folder and nowhere else, whatever its source says. Raises JobFailed."""
    file = PurePosixPath(path)
    if file.is_absolute() or ".." in file.parts or "\\" in path or ":" in path:
        raise JobFailed(
            "One of the files offered is {path}, which leads out of the model's folder. Do not use this source.",
            path=path,
        )


def check_has_weights(name: str, files: dict[str, FileCard], place: str) -> None:
    if not any(path.endswith(WEIGHTS) for path in files):
        raise NotFound(
            "{place} has no weights of {model}. Choose another mirror or folder, or leave --from out to use the hub.",
            place=place,
            model=name,
        )


@contextmanager
def download_errors(hub: str, endpoint: str | None) -> Iterator[None]:
    try:
        yield
    except (GatedRepoError, RepositoryNotFoundError) as error:
        raise NotFound(
            "{hub} is not at {endpoint}, or is closed to you. Log in with `hf auth login`, or choose another mirror.",
            hub=hub,
            endpoint=endpoint or "the hub",
        ) from error
    except _DOWNLOAD_ERRORS as error:
        raise JobFailed(
            "The download from {endpoint} broke off ({reason}). Fetch the model again to resume it, or from a mirror "
            "or a folder with `motionbooth models get --from`.",
            endpoint=endpoint or "the hub",
            reason=_NUMBER.sub("", str(in_words(error))),
            code=_BROKEN_OFF,
        ) from error


def is_broken_off(error: MotionBoothError) -> bool:
    """Whether the same download may go on later."""
    return error.code == f"{JobFailed.code}.{_BROKEN_OFF}"
