"""Loads a base model from a diffusers folder, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, UNet3DConditionModel
from motionbooth_protocol.errors import InvalidInput
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils.logging import disable_progress_bar

from motionbooth.control.boxes import AttentionControl, Grid
from motionbooth.models.lavie.unet import LaVieUNet
from motionbooth.models.settings import BaseSettings
from motionbooth.models.sources import Source

# Samplers without memory of past steps, so that latents may be moved between two steps.
SAMPLERS = {kind.__name__: kind for kind in (DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler)}
# The classes that each part of a base model may have.
PARTS: dict[str, tuple[type, ...]] = {
    "unet": (UNet3DConditionModel, LaVieUNet),
    "vae": (AutoencoderKL,),
    "text_encoder": (CLIPTextModel,),
    "tokenizer": (CLIPTokenizer,),
}
UNet: TypeAlias = UNet3DConditionModel | LaVieUNet


@dataclass
class Base:
    """A loaded base model. `control` is installed in `unet` and has no effect until boxes are set."""

    source: Source
    settings: BaseSettings
    unet: UNet
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    scheduler: Any
    control: AttentionControl
    device: torch.device
    dtype: torch.dtype

    @property
    def cell(self) -> int:
        """Width and height of a latent cell in pixels."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def latent_size(self) -> Grid:
        """(h, w) of the latents in cells."""
        return self.settings.height // self.cell, self.settings.width // self.cell

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings (B, tokens, D), padded or truncated to the tokenizer's maximum length."""
        ids = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return self.text_encoder(ids.to(self.device)).last_hidden_state.to(self.dtype)


def load_base(source: Source, device: str | None = None, dtype: torch.dtype | None = None) -> Base:
    """Load all parts; by default in float16 on the GPU if there is one, otherwise in float32 on the CPU.

    Raises InvalidInput if the folder is not a base model, or if a file is missing or corrupt.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu" and source.settings.cpu_threads:
        torch.set_num_threads(source.settings.cpu_threads)
    dtype = dtype or (torch.float16 if device.startswith("cuda") else torch.float32)
    disable_progress_bar()  # commands have their own progress bars
    kinds = part_classes(source.folder)
    parts = {name: _load_part(kind, source.folder / name, dtype) for name, kind in kinds.items()}
    for part in parts.values():
        if isinstance(part, nn.Module):
            part.to(device).eval().requires_grad_(False)
    for name in ("unet", "vae"):
        use_channels_last(parts[name])
    return Base(
        source,
        source.settings,
        scheduler=load_sampler(source),
        control=AttentionControl.install(parts["unet"]),
        device=torch.device(device),
        dtype=dtype,
        **parts,
    )


def load_sampler(source: Source) -> Any:
    """The model's own sampler. Raises InvalidInput if it has memory of past steps, or cannot merge scenery as set."""
    sampler = _sampler_in(source.folder)
    if source.settings.control.merge_until and isinstance(sampler, EulerDiscreteScheduler):
        raise InvalidInput(
            "The base model in {folder} samples with EulerDiscreteScheduler, with which scenery cannot be "
            "merged. Set merge_until to 0 in its motionbooth.json, or name DDIMScheduler in its scheduler.",
            folder=source.folder,
        )
    return sampler


def _load_part(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    try:
        folder.stat()  # without it, a missing folder would be looked up on the hub
        if kind is CLIPTokenizer:
            return kind.from_pretrained(folder)
        if kind is CLIPTextModel:
            return kind.from_pretrained(folder).to(dtype)  # the argument's name differs between releases
        has_safetensors = any(folder.glob("*.safetensors"))
        return kind.from_pretrained(folder, torch_dtype=dtype, use_safetensors=has_safetensors)
    except Exception as error:  # the tokenizers library raises nothing narrower
        reason = " ".join(str(error).split())[:200]
        raise InvalidInput(
            "The base model's {part} in {folder} cannot be loaded ({reason}). If one of its files is missing or "
            "corrupt, fetch the model again.",
            part=folder.name,
            folder=folder,
            reason=reason,
        ) from error


def use_channels_last(module: nn.Module) -> None:
    """Put the weights (in place) into the layout in which 2-D convolutions run several times faster on a CPU."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _sampler_in(folder: Path) -> Any:
    config = _read_json(folder / "scheduler" / "scheduler_config.json")
    kind = config.get("_class_name", "none")
    if kind not in SAMPLERS:
        raise InvalidInput(
            "The base model in {folder} samples with {sampler}, but a moving camera needs a sampler "
            "without memory of past steps. Name one of {samplers} in its scheduler/scheduler_config.json.",
            folder=folder,
            sampler=kind,
            samplers=", ".join(SAMPLERS),
        )
    return SAMPLERS[kind].from_config(config)


def part_classes(folder: Path) -> dict[str, type]:
    """The class of each part, as named in model_index.json. Raises InvalidInput for a class that is not in PARTS."""
    index = _read_json(folder / "model_index.json")
    chosen = {}
    for name, kinds in PARTS.items():
        named = index.get(name, [None, "nothing"])[1]
        known = {kind.__name__: kind for kind in kinds}
        if named not in known:
            raise InvalidInput(
                "The base model in {folder} has {found} as its {part}, expected {expected}: "
                "only models of Zeroscope's architecture, and LaVie after conversion, can be used.",
                folder=folder,
                found=named,
                part=name,
                expected=" or ".join(known),
            )
        chosen[name] = known[named]
    return chosen


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, ValueError) as error:
        raise InvalidInput(
            "The base model's file {path} cannot be read ({reason}). Fetch the model again.", path=path, reason=error
        ) from error
