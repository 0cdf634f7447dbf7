"""A base model as the rest of the program sees it, whichever network it has.

There are two families: UNets (unet_base.py) and diffusion transformers (wan/). What differs between them is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from msgspec import structs
from torch import Tensor

from motionbooth.control.boxes import AttentionControl, BoxControl, Grid
from motionbooth.control.prompt import PromptTokens
from motionbooth.models.memory.moving import let_layers_visit, visiting
from motionbooth.models.memory.plans import ALL, Plan
from motionbooth.models.settings import BaseSettings
from motionbooth.models.sources import Source

TILE_PX = 256
"""Width and height of the tiles in which the autoencoder works, if the plan says so."""
KEPT_EMBEDDINGS = 32
"""Prompts whose embeddings are kept while the text encoder is not on the device."""


@dataclass(frozen=True)
class NoisyBatch:
    """Latents with noise of random times, and the network's training target."""

    sample: Tensor  # (B, C, F', h, w)
    times: Tensor  # (B,)
    target: Tensor  # (B, C, F', h, w)


@dataclass
class Base(ABC):
    """A loaded base model. `control` is installed in `network` and has no effect until boxes are set."""

    part: ClassVar[str]
    """Name of the network in its folder."""

    source: Source
    settings: BaseSettings
    network: Any
    """Called with (latents, time, text embeddings); its result's `sample` is the prediction."""
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    control: AttentionControl
    device: torch.device
    dtype: torch.dtype
    """Precision of the network."""
    plan: Plan = ALL
    """Which parts are on the device when. `arranged` puts it into effect, once."""
    _embeddings: dict[str, Tensor] = field(default_factory=dict, repr=False)
    _visitors: set[str] = field(default_factory=set, repr=False)

    @classmethod
    @abstractmethod
    def without_weights(cls, source: Source, configs: Mapping[str, dict[str, Any]], dtype: torch.dtype) -> Base:
        """A base of the same sizes on torch's "meta" device, by its parts' configurations; it has no tokenizer."""

    def arranged(self: Self, plan: Plan) -> Self:
        """This base with `plan` in effect, whose waiting parts are in main memory and all others on the device."""
        if plan.tiled:
            self.tile_vae()
        if plan.layers_visit:
            let_layers_visit(self.network, self.device)
        return replace(self, plan=plan)

    @abstractmethod
    def tile_vae(self) -> None:
        """Let the VAE work in tiles of at most TILE_PX pixels, on one frame or clip at a time."""

    @abstractmethod
    def use_attention(self, kind: str) -> None:
        """Compute attention without a mask by the kernel "flash" or "sage". Raises InvalidInput."""

    @contextmanager
    def vae_at_work(self) -> Iterator[None]:
        """A context in which the VAE is on the device. It costs nothing inside another one."""
        if not self.plan.vae_visits or "vae" in self._visitors:
            yield
            return
        with visiting(self.vae, self.device):
            self._visitors.add("vae")
            try:
                yield
            finally:
                self._visitors.discard("vae")

    @property
    @abstractmethod
    def cell(self) -> int:
        """Width and height of a latent cell in pixels."""

    @property
    def temporal(self) -> int:
        """Frames of the clip in each latent frame but the first, which has one."""
        return 1

    @property
    def patch(self) -> int:
        """Width and height in cells of the pieces that the network attends to; the camera moves by whole ones."""
        return 1

    @property
    def latent_dtype(self) -> torch.dtype:
        """Precision of the latents between two steps."""
        return self.dtype

    @property
    def latent_size(self) -> Grid:
        """(h, w) of the latents in cells."""
        return self.settings.height // self.cell, self.settings.width // self.cell

    @property
    def latent_frames(self) -> int:
        """F', the latent frames of a clip."""
        return 1 + (self.settings.frames - 1) // self.temporal

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(C, F', h, w) of a clip's latents."""
        return self.network.config.in_channels, self.latent_frames, *self.latent_size

    @abstractmethod
    def attention_grid(self, latent_size: Grid) -> Grid:
        """The grid of the attention layers whose attention to the subject is trained (STCA loss)."""

    @torch.no_grad()
    def embed(self, prompts: Sequence[str]) -> Tensor:
        """Text embeddings (B, tokens, D) on the device. They are kept if the text encoder is not there."""
        if self.plan.text == "device":
            return self._embed(prompts, self.device)
        if missing := [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._embeddings]:
            if len(self._embeddings) + len(missing) > KEPT_EMBEDDINGS:
                self._embeddings.clear()
                missing = list(dict.fromkeys(prompts))
            self._embeddings.update(zip(missing, self._embed_away(missing), strict=True))
        return torch.stack([self._embeddings[prompt] for prompt in prompts])

    def forget_embeddings(self) -> None:
        """To be called when the text encoder has changed."""
        self._embeddings.clear()

    def _embed_away(self, prompts: Sequence[str]) -> Tensor:
        if self.plan.text == "cpu":
            return self._embed(prompts, torch.device("cpu"))
        with visiting(self.text_encoder, self.device):
            return self._embed(prompts, self.device)

    @abstractmethod
    def _embed(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """Text embeddings (B, tokens, D) on `self.device`, computed on `device`, where the text encoder is."""

    @abstractmethod
    def prompt_tokens(self, prompt: str, phrases: Sequence[str], background_phrase: str = "") -> PromptTokens:
        """Where the subjects' phrases and the background's are among the tokens that `embed` embeds.

        Raises InvalidInput if one is missing from the prompt, or too late in it.
        """

    @abstractmethod
    def predict(
        self,
        latents: Tensor,
        t: Tensor,
        text: Tensor,
        negative_text: Tensor,
        guidance_scale: float,
        boxes: BoxControl | None,
    ) -> Tensor:
        """The prediction for latents (B, C, F', h, w) and texts (B, tokens, D), with classifier-free guidance.

        `boxes` edit the conditional pass only. A scale of 1 or less leaves the unconditional pass out.
        """

    @abstractmethod
    def noise_levels(self, steps: int) -> list[float]:
        """The standard deviation (0..1) of the noise in the latents at each of `steps` sampling steps."""

    @abstractmethod
    def clean_estimate(self, predicted: Tensor, t: Tensor, latents: Tensor) -> Tensor:
        """The clean latents that a prediction implies, in float32. Call it before the sampler's step."""

    @abstractmethod
    def prediction_of(self, clean: Tensor, t: Tensor, latents: Tensor) -> Tensor:
        """The prediction that implies these clean latents, in float32: the inverse of `clean_estimate`."""

    @abstractmethod
    def random_times(self, count: int, generator: torch.Generator) -> Tensor:
        """Times of training (count,), as `network` takes them. Drawn on the CPU."""

    @abstractmethod
    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> NoisyBatch:
        """Latents (B, C, F', h, w) with noise of these times (B,), and what the network must predict from them."""

    @abstractmethod
    def lora_key(self, name: str) -> str:
        """The name of a LoRA's weight in a file that other programs read, from its name in `network`."""

    @abstractmethod
    def foreign_layers(self, name: str) -> list[str]:
        """How LoRA files of other programs may call a layer of `network`."""

    def foreign_text_layers(self, name: str) -> list[str]:
        """How they may call a layer of `text_encoder`; nothing if none of them changes it."""
        return []

    def of_length(self, frames: int | None) -> Base:
        """This base with clips of so many frames; it shares all parts. None for its own length."""
        return replace(self, settings=structs.replace(self.settings, frames=frames)) if frames else self

    @abstractmethod
    def to_pixels(self, latents: Tensor) -> Tensor:
        """Latents (C, F', h, w) of a clip to frames (F, 3, H, W), -1..1."""

    @abstractmethod
    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (F, 3, H, W) of a clip, -1..1, to mean and standard deviation (C, F', h, w) of their latents."""

    def long_to_pixels(self, latents: Tensor) -> Tensor:
        """`to_pixels` of a clip of any length, in the memory of the base's own clip: in parts of its length, unless
        the autoencoder itself works in parts, as one does that encodes several frames together."""
        parts = [latents] if self.temporal > 1 else latents.split(self.settings.frames, dim=1)
        return torch.cat([self.to_pixels(part) for part in parts])

    def long_encode(self, frames: Tensor) -> Tensor:
        """The mean of `encode`, as in `long_to_pixels`."""
        parts = [frames] if self.temporal > 1 else frames.split(self.settings.frames)
        return torch.cat([self.encode(part)[0] for part in parts], dim=1)
