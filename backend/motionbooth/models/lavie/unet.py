"""LaVie's UNet (Wang et al., 2023, arXiv 2309.15103): Stable Diffusion's, inflated to clips.

Convolutions work on single frames. Frames interact in the temporal attention of each transformer block and in the group
norms of the residual blocks, whose statistics are over all frames. Parameter names are those of the published
checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention import AttentionMixin
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.unets.unet_3d_condition import UNet3DConditionOutput
from einops import rearrange, repeat
from torch import Tensor, nn

from motionbooth.models.lavie.blocks import Context, DownLevel, MiddleLevel, UpLevel, Widths, norm_across_frames


class LaVieUNet(ModelMixin, AttentionMixin, ConfigMixin):
    """Predicts the noise in latents (B, C, F, h, w). The defaults are those of LaVie-base.

    `attention_head_dim` is the number of heads, as in Stable Diffusion's files: one for all levels, or one for each.
    All levels but the last have cross-attention to the text.
    """

    _keep_in_fp32_modules = ("rotary_emb",)

    @register_to_config
    def __init__(
        self,
        in_channels: int = 4,
        out_channels: int = 4,
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        layers_per_block: int = 2,
        cross_attention_dim: int = 768,
        attention_head_dim: int | tuple[int, ...] = 8,
        norm_num_groups: int = 32,
    ) -> None:
        super().__init__()
        channels = tuple(block_out_channels)
        count, first = len(channels), channels[0]
        heads = (attention_head_dim,) * count if isinstance(attention_head_dim, int) else tuple(attention_head_dim)
        levels = [
            Widths(width, 4 * first, cross_attention_dim, own_heads, norm_num_groups)
            for width, own_heads in zip(channels, heads, strict=True)
        ]
        self.conv_in = nn.Conv2d(in_channels, first, 3, padding=1)
        self.time_proj = Timesteps(first, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(first, 4 * first)

        skips = [first]  # widths of the skip connections
        self.down_blocks = nn.ModuleList()
        for number, widths in enumerate(levels):
            is_last = number == count - 1
            incoming = [skips[-1]] + [widths.channels] * (layers_per_block - 1)
            self.down_blocks.append(DownLevel(incoming, widths, not is_last, is_last))
            skips += [widths.channels] * (layers_per_block + (not is_last))
        self.mid_block = MiddleLevel(levels[-1])
        self.up_blocks = nn.ModuleList()
        before = channels[-1]
        for number, widths in reversed(list(enumerate(levels))):
            incoming = [width + skips.pop() for width in (before, *[widths.channels] * layers_per_block)]
            self.up_blocks.append(UpLevel(incoming, widths, number < count - 1, number == 0))
            before = widths.channels
        self.conv_norm_out = nn.GroupNorm(norm_num_groups, first, eps=1e-5)
        self.conv_out = nn.Conv2d(first, out_channels, 3, padding=1)

    def forward(
        self, sample: Tensor, timestep: Tensor | float, encoder_hidden_states: Tensor, **_: Any
    ) -> UNet3DConditionOutput:
        """sample (B, C, F, h, w), timestep scalar or (B,), encoder_hidden_states (B, tokens, D).

        Returns an object, as diffusers' UNets do, whose `sample` has the shape of the input.
        """
        batch, _channels, frames, *_size = sample.shape
        times = torch.as_tensor(timestep, device=sample.device).expand(batch)
        time = self.time_embedding(self.time_proj(times).to(sample.dtype))
        context = Context(
            repeat(time, "b d -> (b f) d", f=frames),
            repeat(encoder_hidden_states, "b n d -> (b f) n d", f=frames),
            frames,
        )
        hidden = self.conv_in(rearrange(sample, "b c f h w -> (b f) c h w"))
        skips = [hidden]
        for level in self.down_blocks:
            skips += level(skips[-1], context)
        hidden = self.mid_block(skips[-1], context)
        for level in self.up_blocks:
            hidden = level(hidden, context, skips)
        hidden = self.conv_out(F.silu(norm_across_frames(self.conv_norm_out, hidden, frames)))
        return UNet3DConditionOutput(sample=rearrange(hidden, "(b f) c h w -> b c f h w", f=frames))
