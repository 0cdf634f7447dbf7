"""wantoy's untrained transformer and text encoder, and its noise schedule."""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from torch import nn
from transformers import UMT5Config, UMT5EncoderModel

from motionbooth_lab.toybox.autoencoder import FACTOR
from motionbooth_lab.toybox.draw import HEIGHT_PX, WANTOY, WIDTH_PX
from motionbooth_lab.wantoy.codec import CHANNELS, GROUP

FRAMES = WANTOY.frames
LATENT_FRAMES = 1 + (FRAMES - 1) // GROUP
LATENT_SIZE = (HEIGHT_PX // FACTOR, WIDTH_PX // FACTOR)
"""(h, w) of the latents."""

PATCH = 2
TOKENS = (LATENT_SIZE[0] // PATCH, LATENT_SIZE[1] // PATCH)
"""Rows and columns of a latent frame's tokens."""

HEADS, HEAD_WIDTH, LAYERS = 4, 48, 8
TEXT_WIDTH = 128
FLOW_SHIFT = 3.0


class Denoiser(nn.Module):
    """The trained networks."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.transformer = build_transformer()
        self.text_encoder = build_text_encoder(words)


def build_transformer() -> WanTransformer3DModel:
    """The denoiser, with the published layout: patches of 2 x 2 cells, normalized queries, keys and cross-attention."""
    transformer = WanTransformer3DModel(
        patch_size=(1, PATCH, PATCH),
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_WIDTH,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=128,
        ffn_dim=3 * HEADS * HEAD_WIDTH,
        num_layers=LAYERS,
        rope_max_seq_len=64,
    )
    nn.init.zeros_(transformer.proj_out.weight)
    nn.init.zeros_(transformer.proj_out.bias)
    rope = transformer.rope
    rope.freqs_cos, rope.freqs_sin = rope.freqs_cos.float(), rope.freqs_sin.float()  # float64 halves the speed
    return transformer


def build_text_encoder(words: int) -> UMT5EncoderModel:
    """A text encoder with two layers. `words`: number of the tokenizer's words and of the bank's own words."""
    config = UMT5Config(
        vocab_size=words,
        d_model=TEXT_WIDTH,
        d_kv=32,
        d_ff=2 * TEXT_WIDTH,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=32,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return UMT5EncoderModel(config)


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Flow matching, with more of the steps at high noise."""
    return FlowMatchEulerDiscreteScheduler(shift=FLOW_SHIFT)


def dropped_padding(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The pipeline's text states (B, T, D): the padding's are 0."""
    return states * mask[..., None].to(states)
