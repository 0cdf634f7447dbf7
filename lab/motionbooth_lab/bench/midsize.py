"""A base model of medium size with random weights, for the benchmarks of speed and memory.

It is about a fifth as wide as Zeroscope: UNet with 64, 128 and 256 channels (Zeroscope: 320 to 1280), VAE with 32 to
128 (128 to 512), text encoder of width 256 (1024) with 23 layers. The clips are as long as LaVie's.
"""

from pathlib import Path

import msgspec
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet3DConditionModel
from motionbooth.control.boxes import AttentionControl, Grid
from motionbooth.models.settings import BaseSettings
from motionbooth.models.sources import MODELS, TOYBOX, Source
from motionbooth.models.unet_base import UNetBase, use_channels_last
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

FRAMES = 16
CELL_PX = 8
TEXT_WIDTH, TEXT_TOKENS = 256, 77
CHANNELS = (64, 128, 256)


def midsize_unet(seed: int = 0) -> UNet3DConditionModel:
    """The UNet in eval mode with diffusers' own attention and memory layout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet3DConditionModel(
            block_out_channels=CHANNELS,
            down_block_types=("CrossAttnDownBlock3D",) * 3,
            up_block_types=("CrossAttnUpBlock3D",) * 3,
            layers_per_block=2,
            norm_num_groups=32,
            cross_attention_dim=TEXT_WIDTH,
            attention_head_dim=64,
        )
    return unet.eval()


def midsize_base(latent_size: Grid) -> UNetBase:
    """The whole base model for latents of (h, w) cells on the CPU in float32, as `load_base` would return it."""
    settings = msgspec.structs.replace(
        BaseSettings.read(MODELS / "zeroscope.json"),
        title="random weights, medium size",
        frames=FRAMES,
        height=latent_size[0] * CELL_PX,
        width=latent_size[1] * CELL_PX,
    )
    tokenizer = CLIPTokenizer.from_pretrained(TOYBOX / "tokenizer", model_max_length=TEXT_TOKENS)
    unet, vae, text_encoder = midsize_unet(), _vae(), _text_encoder(tokenizer)
    for part in (unet, vae, text_encoder):
        part.eval().requires_grad_(False)
    use_channels_last(unet)
    use_channels_last(vae)
    return UNetBase(
        Source("midsize", Path(), Path()),
        settings,
        unet,
        vae,
        text_encoder,
        tokenizer,
        DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        AttentionControl.install(unet),
        torch.device("cpu"),
        torch.float32,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 64, 128, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=32,
        latent_channels=4,
    )


def _text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=23,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)
