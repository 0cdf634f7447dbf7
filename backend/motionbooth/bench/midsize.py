"""A base of middling size with random weights: what the benches of speed and memory run on.

About a fifth of Zeroscope in the width of everything: UNet 64, 128, 256 channels (of 320 to 1280), VAE 32 to 128 (of
128 to 512), text 256 wide and 23 layers deep (of 1024 and 23). The clips are as long as LaVie's.
"""

from pathlib import Path

import msgspec
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet3DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from motionbooth.control.boxes import AttentionControl, Grid
from motionbooth.models.registry import Base, lay_channels_last
from motionbooth.models.settings import BaseSettings
from motionbooth.models.sources import MODELS, TOYBOX, Source

FRAMES = 16
CELL_PX = 8
TEXT_WIDTH, TEXT_TOKENS = 256, 77
CHANNELS = (64, 128, 256)


def midsize_unet(seed: int = 0) -> UNet3DConditionModel:
    """In eval mode, as diffusers makes it: its own attention, its own memory layout."""
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


def midsize_base(latent_size: Grid) -> Base:
    """The whole base for latents of (h, w) cells, on the CPU in float32, as `load_base` would give it."""
    settings = msgspec.structs.replace(
        BaseSettings.read(MODELS / "zeroscope.json"),
        title="random, of middling size",
        frames=FRAMES,
        height=latent_size[0] * CELL_PX,
        width=latent_size[1] * CELL_PX,
    )
    tokenizer = CLIPTokenizer.from_pretrained(TOYBOX / "tokenizer", model_max_length=TEXT_TOKENS)
    unet, vae, text_encoder = midsize_unet(), _vae(), _text_encoder(tokenizer)
    for part in (unet, vae, text_encoder):
        part.eval().requires_grad_(False)
    lay_channels_last(unet)
    lay_channels_last(vae)
    return Base(
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
