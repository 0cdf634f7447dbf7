"""Latents of clips, cached in the user's cache folder from one training to the next."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import platformdirs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def cached(key: Any, make: Callable[[], Tensor]) -> Tensor:
    """The latents that `make` returns, as float16 on the CPU. Calls it only if the cache has none for this key.

    `key`: everything that the latents depend on, as values that JSON can hold. A corrupt file of the cache is replaced.
    """
    found = find(key)
    return store(key, make()) if found is None else found


def find(key: Any) -> Tensor | None:
    """The latents stored under this key; None if there are none or their file is corrupt."""
    try:
        return load_file(_file(key))["clips"]
    except (FileNotFoundError, SafetensorError, KeyError):
        return None


def is_cached(key: Any) -> bool:
    """Whether there is a file for this key. Does not read it."""
    return _file(key).is_file()


def store(key: Any, latents: Tensor) -> Tensor:
    """Write latents to the cache. Returns them as `find` will: float16 on the CPU."""
    rounded = latents.to("cpu", torch.float16).contiguous()
    file = _file(key)
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{file.name}.{uuid.uuid4().hex}")  # two workers may write the same file
    save_file({"clips": rounded}, scratch)
    scratch.replace(file)
    return rounded


def _file(key: Any) -> Path:
    name = hashlib.sha256(msgspec.json.encode(key)).hexdigest()[:32]
    return platformdirs.user_cache_path("motionbooth") / "prior_clips" / f"{name}.safetensors"
