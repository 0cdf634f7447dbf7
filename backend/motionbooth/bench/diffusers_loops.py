"""The sampling loops of diffusers' own pipelines, which the benches compare with ours."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet3DConditionModel, WanTransformer3DModel
from torch import Tensor

from motionbooth.bench.random_wan import wan_sampler
from motionbooth.bench.real_size import GUIDANCE, Step


@torch.no_grad()
def unet_steps(unet: UNet3DConditionModel, scheduler: Any, step: Step, count: int) -> Tensor:
    """The loop of diffusers' TextToVideoSDPipeline.__call__ over `count` steps, copied verbatim."""
    text = torch.cat([step.unconditional, step.conditional])
    scheduler.set_timesteps(count, device=step.latents.device)
    latents = step.latents * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        model_input = scheduler.scale_model_input(torch.cat([latents] * 2), t)
        noise = unet(model_input, t, encoder_hidden_states=text, cross_attention_kwargs=None, return_dict=False)[0]
        without_text, with_text = noise.chunk(2)
        noise = without_text + GUIDANCE * (with_text - without_text)
        batch, channels, frames, width, height = latents.shape
        latents = latents.permute(0, 2, 1, 3, 4).reshape(batch * frames, channels, width, height)
        noise = noise.permute(0, 2, 1, 3, 4).reshape(batch * frames, channels, width, height)
        latents = scheduler.step(noise, t, latents).prev_sample
        latents = latents[None, :].reshape(batch, frames, channels, width, height).permute(0, 2, 1, 3, 4)
    return latents


@torch.no_grad()
def wan_steps(network: WanTransformer3DModel, step: Step, count: int) -> Tensor:
    """The loop of diffusers' WanPipeline.__call__ over `count` steps, without what only other variants need."""
    scheduler = wan_sampler()
    scheduler.set_timesteps(count, device=step.latents.device)
    scheduler.set_begin_index(0)
    latents = step.latents
    for t in scheduler.timesteps:
        timestep = t.expand(latents.shape[0])
        noise, without_text = (
            network(hidden_states=latents.to(text.dtype), timestep=timestep, encoder_hidden_states=text).sample
            for text in (step.conditional, step.unconditional)
        )
        noise = without_text + GUIDANCE * (noise - without_text)
        latents = scheduler.step(noise, t, latents, return_dict=False)[0]
    return latents
