"""Wan with random weights, for benches of time and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel
from torch import Tensor

from motionbooth.bench.real_size import Step, busy_plan, our_steps, random_module
from motionbooth.control.boxes import Grid
from motionbooth.control.plan import StepPlan
from motionbooth.control.prompt import PromptTokens
from motionbooth.models.settings import BaseSettings
from motionbooth.models.sources import MODELS, Source
from motionbooth.models.wan.attention import install_control
from motionbooth.models.wan.base import WanBase

PUBLISHED = {"num_attention_heads": 12, "attention_head_dim": 128, "text_dim": 4096, "ffn_dim": 8960, "num_layers": 30}
"""Wan 2.1 T2V 1.3B; the rest is the default of WanTransformer3DModel."""

LATENTS: Grid = (60, 104)
PATCH, TEMPORAL = 2, 4
TOKENS = PromptTokens(length=512, content=range(9), subjects=((1, 2),), padding=502)


def random_network(dtype: torch.dtype = torch.float32, device: str = "cpu", /, **config: Any) -> WanTransformer3DModel:
    """See `random_module`."""
    network = random_module(lambda: WanTransformer3DModel(**config), device, dtype)
    rope = network.rope
    network.rope = type(rope)(rope.attention_head_dim, rope.patch_size, rope.max_seq_len).to(device)  # computed
    return network


def random_wan(network: WanTransformer3DModel, latent_size: Grid, frames: int) -> WanBase:
    """A base model with this network and Wan 2.1 1.3B's settings; without the parts that run before and after it."""
    with torch.device("meta"):
        vae = AutoencoderKLWan()
    settings = BaseSettings.read(MODELS / "wan-1.3b.json")
    height, width = (cells * vae.config.scale_factor_spatial for cells in latent_size)
    return WanBase(
        Source("random", Path(), Path()),
        msgspec.structs.replace(settings, frames=frames, height=height, width=width),
        network,
        vae,
        text_encoder=None,
        tokenizer=None,
        scheduler=wan_sampler(),
        control=install_control(network),
        device=torch.device("cpu"),
        dtype=network.dtype,
    )


def wan_sampler() -> UniPCMultistepScheduler:
    """As published with Wan."""
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def wan_step(base: WanBase) -> Step:
    """Random input of a denoising step."""
    generator = torch.Generator().manual_seed(1)
    text = torch.randn(2, 1, TOKENS.length, base.network.config.text_dim, generator=generator).to(base.dtype)
    return Step(torch.randn(1, *base.latent_shape, generator=generator), *text)


def busy_wan_plan(latent_size: Grid, frames: int) -> StepPlan:
    """As `busy_plan`, for Wan."""
    return busy_plan(latent_size, frames, TOKENS, PATCH, TEMPORAL)


def controlled_steps(base: WanBase, count: int) -> Tensor:
    """`count` steps with all controls active."""
    return our_steps(base, wan_step(base), [busy_wan_plan(base.latent_size, base.settings.frames)] * count)
