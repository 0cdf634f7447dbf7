"""Loads the parts of a base model from its diffusers folder."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from motionbooth_protocol.errors import InvalidInput
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from motionbooth.models.memory.plans import is_out_of_memory

Classes = Mapping[str, Sequence[type]]  # the classes that each part of a family's models may have


def load_parts(
    folder: Path, kinds: Mapping[str, type], device: str, dtype: torch.dtype, waiting: Collection[str] = ()
) -> dict[str, Any]:
    """Load each part from its sub-folder, its modules in eval mode and without gradients. Raises InvalidInput.

    The parts that are `waiting` stay in main memory.
    """
    disable_progress_bar()  # commands have their own progress bars
    parts = {}
    for name, kind in kinds.items():
        part = parts[name] = _load_part(kind, folder / name, dtype)
        if isinstance(part, nn.Module):
            place = "cpu" if name in waiting else device
            part.to(place).eval().requires_grad_(False)  # before the next one: main memory holds one at a time
    return parts


def _load_part(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    try:
        folder.stat()  # without it, a missing folder would be looked up on the hub
        if kind is AutoTokenizer or issubclass(kind, PreTrainedTokenizerBase):
            return kind.from_pretrained(folder)
        if issubclass(kind, PreTrainedModel):
            return kind.from_pretrained(folder, torch_dtype=dtype).to(dtype)  # some parts insist on float32
        has_safetensors = any(folder.glob("*.safetensors"))
        return kind.from_pretrained(folder, torch_dtype=dtype, use_safetensors=has_safetensors)
    except Exception as error:  # the tokenizers library raises nothing narrower
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise InvalidInput(
            "The base model's {part} in {folder} cannot be loaded ({reason}). If one of its files is missing or "
            "corrupt, fetch the model again.",
            part=folder.name,
            folder=folder,
            reason=reason,
        ) from error


def load_sampler(folder: Path, kinds: Sequence[Any]) -> Any:
    """The model's own sampler. Raises InvalidInput if it is not one of these kinds."""
    config = read_json(folder / "scheduler" / "scheduler_config.json")
    found, known = config.get("_class_name", "none"), {kind.__name__: kind for kind in kinds}
    if found not in known:
        raise InvalidInput(
            "The base model in {folder} samples with {sampler}, which is not supported. "
            "Name one of {samplers} in its scheduler/scheduler_config.json.",
            folder=folder,
            sampler=found,
            samplers=", ".join(known),
        )
    return known[found].from_config(config)


def part_classes(folder: Path, index: Mapping[str, Any], classes: Classes) -> dict[str, type]:
    """The class of each part, as named in model_index.json. Raises InvalidInput for one that is not in `classes`."""
    chosen = {}
    for name, kinds in classes.items():
        named = (index.get(name) or [None, "nothing"])[1]
        known = {kind.__name__: kind for kind in kinds}
        if named not in known:
            raise InvalidInput(
                "The base model in {folder} has {found} as its {part}, expected {expected}: only models of Zeroscope's "
                "architecture, LaVie after conversion, and Wan's text-to-video models can be used.",
                folder=folder,
                found=named,
                part=name,
                expected=" or ".join(known),
            )
        chosen[name] = known[named]
    return chosen


def read_json(path: Path) -> dict[str, Any]:
    """One of the model's JSON files. Raises InvalidInput if it is missing or corrupt."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, ValueError) as error:
        raise InvalidInput(
            "The base model's file {path} cannot be read ({reason}). Fetch the model again.", path=path, reason=error
        ) from error
