"""toybox's untrained denoiser and text encoder, and their noise schedule."""

import torch
from diffusers import DDIMScheduler, UNet3DConditionModel
from diffusers.models.resnet import TemporalConvLayer
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from motionbooth_lab.toybox.autoencoder import FACTOR, LATENT_CHANNELS
from motionbooth_lab.toybox.draw import HEIGHT_PX, WIDTH_PX

LATENT_SIZE = (HEIGHT_PX // FACTOR, WIDTH_PX // FACTOR)
"""(h, w) of the latents."""

WIDTHS = (48, 80, 112)
TEXT_WIDTH = 96


def build_unet(channels: int = LATENT_CHANNELS) -> UNet3DConditionModel:
    """The denoiser. `channels`: of the latents. Its temporal layers start as the identity, so it is an image model."""
    unet = UNet3DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=WIDTHS,
        down_block_types=("CrossAttnDownBlock3D",) * 3,
        up_block_types=("CrossAttnUpBlock3D", "CrossAttnUpBlock3D", "UpBlock3D"),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=16,
    )
    for module in unet.modules():
        if isinstance(module, TransformerTemporalModel):
            nn.init.zeros_(module.proj_out.weight)
            nn.init.zeros_(module.proj_out.bias)
    return channels_last(unet)


def channels_last(model: nn.Module) -> nn.Module:
    """Convert the weights of all 2D convolutions to channels_last, which is several times faster on a CPU."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


class bypassed_time:
    """A context in which the temporal layers of a UNet are skipped: twice as fast for single pictures."""

    def __init__(self, unet: nn.Module) -> None:
        self._parts = [m for m in unet.modules() if isinstance(m, TemporalConvLayer | TransformerTemporalModel)]

    def __enter__(self) -> None:
        for part in self._parts:
            is_convolution = isinstance(part, TemporalConvLayer)
            part.forward = _same if is_convolution else _same_in_tuple

    def __exit__(self, *_: object) -> None:
        for part in self._parts:
            del part.forward


def _same(hidden_states: Tensor, num_frames: int = 1) -> Tensor:
    return hidden_states


def _same_in_tuple(hidden_states: Tensor, num_frames: int = 1, **_: object) -> tuple[Tensor]:
    return (hidden_states,)


def build_text_encoder(tokenizer: CLIPTokenizer, words: int) -> CLIPTextModel:
    """A text encoder with two layers. `words`: number of the tokenizer's words and of the bank's own words."""
    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=TEXT_WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_factor=1.0,
    )
    return CLIPTextModel(config)


def build_scheduler() -> DDIMScheduler:
    """v-prediction with zero terminal SNR and trailing timesteps."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
    )
