"""The base models of the paper: a UNet whose frames are encoded one by one, and CLIP's text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UNet3DConditionModel,
    UniPCMultistepScheduler,
)
from einops import rearrange
from motionbooth_protocol.errors import InvalidInput
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from motionbooth.control.boxes import AttentionControl, BoxControl, Grid, level_grids
from motionbooth.control.prompt import PromptTokens, prompt_tokens
from motionbooth.models.base import TILE_PX, Base, NoisyBatch
from motionbooth.models.lavie.unet import LaVieUNet
from motionbooth.models.memory.moving import cast_weights
from motionbooth.models.memory.plans import ALL, Plan
from motionbooth.models.parts import load_parts, load_sampler, part_classes
from motionbooth.models.sources import Source

UNet: TypeAlias = UNet3DConditionModel | LaVieUNet

SAMPLERS = (
    *(DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler),
    *(DPMSolverMultistepScheduler, UniPCMultistepScheduler),
)
CLASSES: dict[str, tuple[type, ...]] = {
    "unet": (UNet3DConditionModel, LaVieUNet),
    "vae": (AutoencoderKL,),
    "text_encoder": (CLIPTextModel,),
    "tokenizer": (CLIPTokenizer,),
}


class UNetBase(Base):
    """Zeroscope, ModelScope, LaVie, toybox."""

    part = "unet"
    half = torch.float16

    @classmethod
    def load(
        cls,
        source: Source,
        index: dict[str, Any],
        device: str,
        dtype: torch.dtype,
        text_dtype: torch.dtype,
        plan: Plan = ALL,
        network_dtype: torch.dtype | None = None,
    ) -> UNetBase:
        """Load all parts, the text encoder in `text_dtype`, the network in `network_dtype`. Raises InvalidInput."""
        kinds, waiting = part_classes(source.folder, index, CLASSES), plan.waiting([cls.part])
        network = {cls.part: kinds.pop(cls.part)}
        parts = load_parts(source.folder, network, device, network_dtype or dtype, waiting)
        parts |= load_parts(source.folder, kinds, device, dtype, waiting)
        parts["text_encoder"].to(text_dtype)
        unet = parts.pop("unet")
        for part in (unet, parts["vae"]):
            use_channels_last(part)
        if device != "cpu":
            parts["vae"].enable_slicing()  # a guide's frames one by one: together they take more than the network
        base = cls(
            source,
            source.settings,
            network=unet,
            scheduler=load_sampler(source.folder, SAMPLERS),
            control=AttentionControl.install(unet),
            device=torch.device(device),
            dtype=dtype,
            **parts,
        )
        return base.arranged(plan)

    @classmethod
    def without_weights(cls, source: Source, configs: Mapping[str, dict[str, Any]], dtype: torch.dtype) -> UNetBase:
        kinds = {kind.__name__: kind for kind in CLASSES["unet"]}
        with torch.device("meta"):
            unet = kinds[configs["unet"]["_class_name"]].from_config(configs["unet"])  # type: ignore[attr-defined]
            vae = AutoencoderKL.from_config(configs["vae"])
            text_encoder = CLIPTextModel(CLIPTextConfig(**configs["text_encoder"]))
        for part in (unet, vae, text_encoder):
            cast_weights(part.eval().requires_grad_(False), dtype)
        return cls(
            source,
            source.settings,
            network=unet,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=None,
            scheduler=DDPMScheduler(),
            control=AttentionControl.install(unet),
            device=torch.device("meta"),
            dtype=dtype,
        )

    def tile_vae(self) -> None:
        self.vae.tile_sample_min_size, self.vae.tile_latent_min_size = TILE_PX, TILE_PX // self.cell
        self.vae.enable_tiling()
        self.vae.enable_slicing()

    def use_attention(self, kind: str) -> None:
        raise InvalidInput(
            "{model} always computes attention by torch's own kernels; --attention {kind} is for Wan. Leave it out.",
            model=self.settings.title,
            kind=kind,
        )

    @property
    def cell(self) -> int:
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def attention_grid(self, latent_size: Grid) -> Grid:
        return level_grids(latent_size, levels=3)[-1]  # two halvings: (H / 32, W / 32) where a cell is 8 pixels

    def _embed(self, prompts: Sequence[str], device: torch.device) -> Tensor:
        """Padded or truncated to the tokenizer's maximum length."""
        ids = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        return self.text_encoder(ids.to(device)).last_hidden_state.to(self.device, self.dtype)

    def prompt_tokens(self, prompt: str, phrases: Sequence[str], background_phrase: str = "") -> PromptTokens:
        return prompt_tokens(self.tokenizer, prompt, phrases, background_phrase)

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
        guided, controls = guidance_scale > 1, [boxes] * batch
        if guided and self.plan.in_turn:
            return self._predict_in_turn(latents, t, text, negative_text, guidance_scale, boxes)
        if guided:
            if negative_text.shape[1] < text.shape[1]:  # the prompt is split; every key twice attends the same
                negative_text = torch.cat([negative_text, negative_text], dim=1)
            latents, text = torch.cat([latents, latents]), torch.cat([negative_text, text])
            controls = [*[None] * batch, *controls]
        self.control.set_boxes(controls, (height, width), frames)
        predicted = self.network(self.scheduler.scale_model_input(latents, t), t, text).sample
        if not guided:
            return predicted
        unconditional, conditional = predicted.chunk(2)
        return unconditional + guidance_scale * (conditional - unconditional)

    def _predict_in_turn(
        self,
        latents: Tensor,
        t: Tensor,
        text: Tensor,
        negative_text: Tensor,
        guidance_scale: float,
        boxes: BoxControl | None,
    ) -> Tensor:
        batch, _, frames, height, width = latents.shape
        noisy = self.scheduler.scale_model_input(latents, t)
        self.control.set_boxes([boxes] * batch, (height, width), frames)
        conditional = self.network(noisy, t, text).sample
        with self.control.suspended():
            unconditional = self.network(noisy, t, negative_text).sample
        return unconditional + guidance_scale * (conditional - unconditional)

    def noise_levels(self, steps: int) -> list[float]:
        self.scheduler.set_timesteps(steps, device="cpu")
        alphas = self.scheduler.alphas_cumprod.cpu()[self.scheduler.timesteps.long()]
        return (1 - alphas).sqrt().tolist()

    def clean_estimate(self, predicted: Tensor, t: Tensor, latents: Tensor) -> Tensor:
        noisy, signal, sigma = self._noisy(latents, t)
        output = predicted.float()
        return signal * noisy - sigma * output if self._is_velocity else (noisy - sigma * output) / signal

    def prediction_of(self, clean: Tensor, t: Tensor, latents: Tensor) -> Tensor:
        noisy, signal, sigma = self._noisy(latents, t)
        return (signal * noisy - clean) / sigma if self._is_velocity else (noisy - signal * clean) / sigma

    @property
    def _is_velocity(self) -> bool:
        return self.scheduler.config.prediction_type == "v_prediction"

    def _noisy(self, latents: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents of variance 1, and the factors of the clean latents and of the noise in them; in float32.

        Half precision does not do: near the last step, 1 - alpha is 0.
        """
        noisy = self.scheduler.scale_model_input(latents.float(), t)
        if isinstance(self.scheduler, EulerDiscreteScheduler):  # its times are fractions
            alpha = 1 / (1 + self.scheduler.sigmas[self.scheduler.step_index] ** 2)
        else:
            alpha = self.scheduler.alphas_cumprod.to(latents.device)[t]
        alpha = alpha.float()
        return noisy, alpha.sqrt(), (1 - alpha).sqrt()

    def random_times(self, count: int, generator: torch.Generator) -> Tensor:
        number = self._training_schedule.config.num_train_timesteps
        return torch.randint(number, (count,), generator=generator).to(self.device)

    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> NoisyBatch:
        """Forward diffusion. The target is what this base predicts: the noise or the velocity."""
        sample = self._training_schedule.add_noise(latents, noise, times)
        if self._is_velocity:
            return NoisyBatch(sample, times, self._training_schedule.get_velocity(latents, noise, times))
        return NoisyBatch(sample, times, noise)

    @cached_property
    def _training_schedule(self) -> DDPMScheduler:
        return DDPMScheduler.from_config(self.scheduler.config)

    def lora_key(self, name: str) -> str:
        return f"{self.part}.{name}"

    def foreign_layers(self, name: str) -> list[str]:
        """diffusers', and kohya's."""
        return [f"{self.part}.{name}", f"lora_unet_{name.replace('.', '_')}"]

    def foreign_text_layers(self, name: str) -> list[str]:
        name = f"text_model.{name.removeprefix('text_model.')}"  # which some versions of transformers leave out
        return [f"text_encoder.{name}", f"lora_te_{name.replace('.', '_')}"]

    def to_pixels(self, latents: Tensor) -> Tensor:
        latents = latents / self.vae.config.scaling_factor
        return self.vae.decode(rearrange(latents, "c f h w -> f c h w").to(self.dtype)).sample

    def encode(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.vae.encode(frames.to(self.dtype)).latent_dist
        mean, std = (value * self.vae.config.scaling_factor for value in (posterior.mean, posterior.std))
        return rearrange(mean, "f c h w -> c f h w"), rearrange(std, "f c h w -> c f h w")


def use_channels_last(module: nn.Module) -> None:
    """Put the weights (in place) into the layout in which 2-D convolutions run several times faster on a CPU."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
