"""Wan as a base model: a flow-matching transformer, a causal video autoencoder and UMT5's text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanTransformer3DModel,
)
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from einops import rearrange
from torch import Tensor
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from motionbooth.control.boxes import BoxControl, Grid
from motionbooth.control.prompt import PromptTokens, prompt_tokens
from motionbooth.models.base import TILE_PX, Base, NoisyBatch
from motionbooth.models.memory.moving import cast_weights
from motionbooth.models.memory.plans import ALL, Plan
from motionbooth.models.parts import load_parts, load_sampler
from motionbooth.models.sources import Source
from motionbooth.models.wan.attention import install_control
from motionbooth.models.wan.experts import Experts, FirstOfExperts
from motionbooth.models.wan.folder import check_index, check_network, check_settings
from motionbooth.models.wan.lora import foreign_layers, published_key

EMBEDDED_AT_ONCE = 8  # prompts: the text encoder's activations for all captions of a training would fill a card
SAMPLERS = (FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler)


class WanBase(Base):
    """Wan 2.1 T2V, of any size, and Wan 2.2 T2V A14B."""

    part = "transformer"
    half = torch.bfloat16  # the text encoder overflows in float16

    @classmethod
    def load(
        cls,
        source: Source,
        index: Mapping[str, Any],
        device: str,
        dtype: torch.dtype,
        text_dtype: torch.dtype,
        plan: Plan = ALL,
        network_dtype: torch.dtype | None = None,
    ) -> WanBase:
        """Load all parts, the text encoder in `text_dtype`, the network in `network_dtype`.

        Raises InvalidInput for another variant of Wan, or settings that do not fit it.
        """
        names = check_index(source.folder, index)
        waiting = plan.waiting(names)
        vae = load_parts(source.folder, {"vae": AutoencoderKLWan}, device, torch.float32, waiting)["vae"]
        kinds = dict.fromkeys(names, WanTransformer3DModel)
        experts = load_parts(source.folder, kinds, device, network_dtype or dtype, waiting)
        kinds = {"text_encoder": UMT5EncoderModel, "tokenizer": AutoTokenizer}
        text = load_parts(source.folder, kinds, device, text_dtype, waiting)
        sampler = load_sampler(source.folder, SAMPLERS)
        network, *others = experts.values()
        check_network(source.folder, network.config, vae.config)
        control = install_control(network, *others)
        if others:
            network = Experts(network, others[0], index["boundary_ratio"] * sampler.config.num_train_timesteps)
        base = cls(
            source,
            source.settings,
            network=network,
            vae=vae,
            scheduler=sampler,
            control=control,
            device=torch.device(device),
            dtype=dtype,
            **text,
        )
        check_settings(base)
        return base.arranged(plan)

    @classmethod
    def without_weights(cls, source: Source, configs: Mapping[str, dict[str, Any]], dtype: torch.dtype) -> WanBase:
        """The VAE in float32, as it is loaded. Of two experts, both count and the first one computes."""
        with torch.device("meta"):
            experts = [WanTransformer3DModel.from_config(configs[name]) for name in configs if "transformer" in name]
            vae = AutoencoderKLWan.from_config(configs["vae"])
            text_encoder = UMT5EncoderModel(UMT5Config(**configs["text_encoder"]))
        for part in (*experts, text_encoder):
            cast_weights(part, dtype)
        for part in (*experts, vae, text_encoder):
            part.eval().requires_grad_(False)
        return cls(
            source,
            source.settings,
            network=experts[0] if len(experts) == 1 else FirstOfExperts(experts[0], experts[1], boundary=0),
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=None,
            scheduler=None,
            control=install_control(*experts),
            device=torch.device("meta"),
            dtype=dtype,
        )

    def tile_vae(self) -> None:
        overlap = TILE_PX // 4
        self.vae.enable_tiling(TILE_PX, TILE_PX, TILE_PX - overlap, TILE_PX - overlap)
        self.vae.enable_slicing()

    def use_attention(self, kind: str) -> None:
        own: Any = self.network
        for network in [own.transformer, own.transformer_2] if isinstance(own, Experts) else [own]:
            network.set_attention_backend(kind)

    @property
    def cell(self) -> int:
        return self.vae.config.scale_factor_spatial

    @property
    def temporal(self) -> int:
        return self.vae.config.scale_factor_temporal

    @property
    def patch(self) -> int:
        return self.network.config.patch_size[1]

    @property
    def latent_dtype(self) -> torch.dtype:
        return torch.float32

    def attention_grid(self, latent_size: Grid) -> Grid:
        return latent_size[0] // self.patch, latent_size[1] // self.patch

    def _embed(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """Cleaned as diffusers does, padded with zeros or truncated to `max_sequence_length` tokens."""
        firsts = range(0, len(prompts), EMBEDDED_AT_ONCE)
        return torch.cat([self._embed_some(prompts[first : first + EMBEDDED_AT_ONCE], device) for first in firsts])

    def _embed_some(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        tokens = self.tokenizer(
            [prompt_clean(prompt) for prompt in prompts],
            padding="max_length",
            max_length=self._tokens,
            truncation=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask.to(device)
        states = self.text_encoder(tokens.input_ids.to(device), mask).last_hidden_state.to(self.dtype)
        return states.masked_fill(mask[..., None] == 0, 0.0).to(self.device)

    @property
    def _tokens(self) -> int:
        return self.settings.max_sequence_length or self.tokenizer.model_max_length

    def prompt_tokens(self, prompt: str, phrases: Sequence[str], background_phrase: str = "") -> PromptTokens:
        """As in the cleaned prompt, which `embed` embeds."""
        phrases = [prompt_clean(phrase) for phrase in phrases]
        found = prompt_tokens(
            self.tokenizer, prompt_clean(prompt), phrases, prompt_clean(background_phrase), self._tokens
        )
        return replace(found, padding=found.length - found.content.stop - 1)  # EOS is not padding

    def predict(
        self,
        latents: Tensor,
        t: Tensor,
        text: Tensor,
        negative_text: Tensor,
        guidance_scale: float,
        boxes: BoxControl | None,
    ) -> Tensor:
        batch, _, frames, height, width = latents.shape
        noisy, time = latents.to(self.dtype), t.expand(batch)
        self.control.set_boxes([boxes] * batch, (height, width), frames)
        conditional = self.network(noisy, time, text).sample
        if guidance_scale <= 1:
            return conditional
        with self.control.suspended():
            unconditional = self.network(noisy, time, negative_text).sample
        return unconditional + guidance_scale * (conditional - unconditional)

    def noise_levels(self, steps: int) -> list[float]:
        self.scheduler.set_timesteps(steps, device="cpu")
        return self.scheduler.sigmas[:steps].tolist()

    def clean_estimate(self, predicted: Tensor, t: Tensor, latents: Tensor) -> Tensor:
        return latents.float() - self._sigma(latents) * predicted.float()

    def prediction_of(self, clean: Tensor, t: Tensor, latents: Tensor) -> Tensor:
        return (latents.float() - clean) / self._sigma(latents)

    def _sigma(self, latents: Tensor) -> Tensor:
        """Of the coming step. Not from its time, which UniPC rounds."""
        return self.scheduler.sigmas[self.scheduler.step_index or 0].to(latents.device, torch.float32)

    def random_times(self, count: int, generator: torch.Generator) -> Tensor:
        """As dense as the sampler's steps: most at high noise levels. All are times of the same expert."""
        config = self.scheduler.config
        shift = config.flow_shift if "flow_shift" in config else config.shift

        def draw() -> Tensor:
            even = 1 - torch.rand(count, generator=generator)  # in (0, 1]: 0 would be no noise
            return config.num_train_timesteps * shift * even / (1 + (shift - 1) * even)

        times = draw()
        if isinstance(self.network, Experts):
            while (others := (times >= self.network.boundary) != (times[0] >= self.network.boundary)).any():
                times = torch.where(others, draw(), times)
        return times.to(self.device)

    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> NoisyBatch:
        """On the straight line from the latents to the noise. The target is its direction."""
        sigma = (times / self.scheduler.config.num_train_timesteps).view(-1, 1, 1, 1, 1)
        return NoisyBatch((1 - sigma) * latents + sigma * noise, times, noise - latents)

    def lora_key(self, name: str) -> str:
        return published_key(name)

    def foreign_layers(self, name: str) -> list[str]:
        return foreign_layers(name)

    def to_pixels(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics
        frames = self.vae.decode((latents.to(mean) / (1.0 / std) + mean)[None]).sample
        return rearrange(frames, "1 c f h w -> f c h w")

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = self._statistics
        posterior = self.vae.encode(rearrange(frames.to(mean), "f c h w -> 1 c f h w")).latent_dist
        return (posterior.mean[0] - mean) / std, posterior.std[0] / std

    @property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the autoencoder's latents, (C, 1, 1, 1), which the network's have not."""
        config = self.vae.config
        values = torch.tensor([config.latents_mean, config.latents_std], device=self.device, dtype=self.vae.dtype)
        mean, std = values[..., None, None, None]
        return mean, std
