"""Latents of clips, cached in the user's cache folder from one training to the next, or shipped with a base."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import platformdirs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor


def cached(key: Any, make: Callable[[], Tensor]) -> Tensor:
    """The latents that `make` returns, as float16 on the CPU. Calls it only if the cache has none for this key.

    `key`: everything that the latents depend on, as values that JSON can hold. A corrupt file of the cache is replaced.
    """
    found = find(key)
    return store(key, make()) if found is None else found


def find(key: Any, shipped: Path | None = None) -> Tensor | None:
    """The latents stored under this key; None if there are none or their file is corrupt.

    `shipped`: a file of `save_shipped` that is searched, too.
    """
    try:
        return load_file(_file(key))["clips"]
    except (FileNotFoundError, SafetensorError, KeyError):
        return None if shipped is None or not _is_shipped(key, shipped) else load_file(shipped)[_name(key)]


def is_cached(key: Any, shipped: Path | None = None) -> bool:
    """Whether there is a file for this key, or `shipped` has it. Does not read the latents."""
    return _file(key).is_file() or (shipped is not None and _is_shipped(key, shipped))


def save_shipped(path: Path, keys: Sequence[Any]) -> None:
    """Write the cached latents of these keys to one file, which can be shipped with a base."""
    found = {_name(key): find(key) for key in keys}
    save_file({name: latents for name, latents in found.items() if latents is not None}, path)


def _is_shipped(key: Any, shipped: Path) -> bool:
    try:
        with safe_open(shipped, "pt") as file:
            return _name(key) in file.keys()  # noqa: SIM118 (not a dict)
    except (FileNotFoundError, SafetensorError):
        return False


def store(key: Any, latents: Tensor) -> Tensor:
    """Write latents to the cache. Returns them as `find` will: float16 on the CPU."""
    rounded = latents.to("cpu", torch.float16).contiguous()
    file = _file(key)
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{file.name}.{uuid.uuid4().hex}")  # two workers may write the same file
    try:
        scratch.write_bytes(save({"clips": rounded}))  # save_file raises no OSError on a full disk
        scratch.replace(file)
    finally:
        scratch.unlink(missing_ok=True)
    return rounded


def _file(key: Any) -> Path:
    return platformdirs.user_cache_path("motionbooth") / "prior_clips" / f"{_name(key)}.safetensors"


def _name(key: Any) -> str:
    return hashlib.sha256(msgspec.json.encode(key)).hexdigest()[:32]
