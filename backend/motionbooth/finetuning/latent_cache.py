"""Clips as latents, kept in the user's cache from one training to the next."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import platformdirs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def kept(depends_on: Any, make: Callable[[], Tensor]) -> Tensor:
    """The latents that `make` gives, as float16 on the CPU: made once for all that they depend on, then read again.

    `depends_on`: anything that JSON can hold. A file of the cache that was damaged is made anew.
    """
    found = find(depends_on)
    return keep(depends_on, make()) if found is None else found


def find(depends_on: Any) -> Tensor | None:
    """What `keep` was given for the same; None where there is nothing, or a damaged file."""
    return _read(_file(depends_on))


def is_kept(depends_on: Any) -> bool:
    """Whether there is something, looked at from outside only."""
    return _file(depends_on).is_file()


def keep(depends_on: Any, latents: Tensor) -> Tensor:
    """Write them down. Returns them as they will be read again: float16, on the CPU."""
    rounded = latents.to("cpu", torch.float16).contiguous()
    _write(_file(depends_on), rounded)
    return rounded


def _file(depends_on: Any) -> Path:
    name = hashlib.sha256(msgspec.json.encode(depends_on)).hexdigest()[:32]
    return platformdirs.user_cache_path("motionbooth") / "ordinary_clips" / f"{name}.safetensors"


def _read(file: Path) -> Tensor | None:
    try:
        return load_file(file)["clips"]
    except (FileNotFoundError, SafetensorError, KeyError):
        return None


def _write(file: Path, clips: Tensor) -> None:
    """At once or not at all: two workers may be at it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    save_file({"clips": clips}, scratch)
    scratch.replace(file)
