"""A trained subject's weights: put into a network, saved to a file, loaded from it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import torch
from motionbooth_protocol.errors import InvalidInput
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save
from torch import nn

from motionbooth.models.base import Base
from motionbooth.models.subject_card import HEADER, SubjectCard, read_card
from motionbooth.models.unet_base import use_channels_last


def add_lora(network: nn.Module, rank: int, target_modules: str | list[str], seed: int) -> LoraModel:
    """Put untrained LoRA layers into `network` (in place); its output stays the same until they are trained."""
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=target_modules)
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(seed)
        warnings.filterwarnings("ignore", ".*get_apply_tensor_subclass")  # quantized layers are trained, never merged
        adapted = LoraModel(network, config, "default")
    use_channels_last(network)
    return adapted


@contextmanager
def without_lora(network: nn.Module) -> Iterator[None]:
    """A context in which `network` computes without its LoRA layers."""
    layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save_subject(path: Path, base: Base, card: SubjectCard) -> None:
    """Write the LoRA layers of the base's network, or all of its weights, as float16 safetensors."""
    state = (
        {base.lora_key(name): value for name, value in get_peft_model_state_dict(base.network).items()}
        if card.method == "lora"
        else base.network.state_dict()
    )
    half = {name: value.detach().to("cpu", torch.float16).contiguous() for name, value in state.items()}
    metadata = {"format": "pt", HEADER: msgspec.json.encode(card).decode(), **_for_other_programs(base, card)}
    path.write_bytes(_with_sorted_metadata(save(half, metadata)))


def _for_other_programs(base: Base, card: SubjectCard) -> dict[str, str]:
    """What diffusers, kohya's tools and readers of ModelSpec 1.0.1 look for.

    Without a date, so that the same training gives the same bytes.
    """
    name = base.source.name
    found = {
        "ss_base_model_version": name,
        "ss_output_name": card.name,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{name}/lora" if card.method == "lora" else name,
        "modelspec.implementation": "diffusers",
        "modelspec.title": card.name,
        "modelspec.resolution": f"{base.settings.width}x{base.settings.height}",
        "modelspec.trigger_phrase": card.phrase,
    }
    if card.method == "lora":
        adapter = {"r": card.rank, "lora_alpha": card.rank, "target_modules": card.target_modules}
        found |= {
            "lora_adapter_metadata": json.dumps({f"{base.part}.{key}": value for key, value in adapter.items()}),
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(card.rank),
            "ss_network_alpha": str(card.rank),
        }
    return found


def _with_sorted_metadata(content: bytes) -> bytes:
    """The contents of a safetensors file with sorted metadata, as the library's own order changes from run to run."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    if len(text) > size:
        raise ValueError(f"the header grew from {size} to {len(text)} bytes")
    return content[:8] + text.ljust(size) + content[8 + size :]


def load_subject(base: Base, path: Path) -> SubjectCard:
    """Load a subject into `base` (in place); LoRAs of several subjects add up. Raises InvalidInput for another base."""
    card = read_card(path)
    if card.base_sha256 != base.source.network_sha256:
        raise InvalidInput(
            'The subject "{subject}" was trained on another base model ({base}), but this shot uses '
            "{model}. Choose that model, or train the subject again on this one.",
            subject=card.name,
            base=card.base,
            model=base.source.name,
        )
    state = load_file(path)
    if card.method == "full":
        _check_fits(state, base.network.state_dict(), card)
        base.network.load_state_dict(state)
        return card
    state = _in_our_names(state, base)
    adapted = add_lora(base.network, card.rank, _lora_modules(state, base.network, card), seed=0)
    _check_fits(state, get_peft_model_state_dict(base.network), card)
    set_peft_model_state_dict(base.network, {name: value.to(base.dtype) for name, value in state.items()})
    adapted.merge_and_unload()
    return card


def _check_fits(state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], card: SubjectCard) -> None:
    """Raises InvalidInput unless the names and shapes are the same."""
    for name in sorted(state.keys() | expected.keys()):
        if name not in state or name not in expected or state[name].shape != expected[name].shape:
            raise _damaged(card, name)


def _damaged(card: SubjectCard, tensor: str) -> InvalidInput:
    return InvalidInput(
        'The file of the subject "{subject}" is damaged: {tensor} does not fit the model. Train it again.',
        subject=card.name,
        tensor=tensor,
    )


def _in_our_names(state: dict[str, torch.Tensor], base: Base) -> dict[str, torch.Tensor]:
    """The tensors of a LoRA's file by their names in the network; unknown ones keep their names."""
    names = [f"{name}.lora_{half}.weight" for name, _ in base.network.named_modules() for half in "AB"]
    ours = {base.lora_key(name): name for name in names}
    return {ours.get(key, key): value for key, value in state.items()}


def _lora_modules(state: dict[str, torch.Tensor], network: nn.Module, card: SubjectCard) -> list[str]:
    """The modules of `network` that the LoRA changes, by the names of its tensors.

    The card's regular expression is not used: another user may have written it so that it never ends. Raises
    InvalidInput for tensors of another network or rank.
    """
    layers = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
    known = {name for name, module in network.named_modules() if isinstance(module, layers)}
    modules = []
    for name, tensor in state.items():
        module, _, half = name.partition(".lora_")
        rank = {"A.weight": 0, "B.weight": 1}.get(half, -1)
        if module not in known or rank < 0 or tensor.ndim < 2 or not 0 < tensor.shape[rank] == card.rank:
            raise _damaged(card, name)
        modules.append(module)
    return sorted(set(modules))
