"""The blocks of LaVie's UNet. Inside it a clip is (B*F, C, h, w), the frames of a sample one after the other."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from einops import rearrange
from torch import Tensor, nn

ROTARY_DIM, THETA = 32, 10_000.0
BUCKETS, FARTHEST = 32, 32


@dataclass(frozen=True)
class Context:
    """What every layer gets besides its input."""

    time: Tensor  # (B*F, D), the embedding of the timestep
    text: Tensor  # (B*F, tokens, E)
    frames: int  # of a sample


@dataclass(frozen=True)
class Widths:
    """The sizes of a level."""

    channels: int
    time: int  # channels of the timestep's embedding
    text: int  # channels of the text's embedding
    heads: int
    groups: int  # of the group norms


def norm_across_frames(norm: nn.GroupNorm, hidden: Tensor, frames: int) -> Tensor:
    """A group norm with the mean and variance over all frames of a sample."""
    clip = rearrange(hidden, "(b f) c h w -> b c f h w", f=frames)
    return rearrange(norm(clip), "b c f h w -> (b f) c h w")


class ResnetBlock(nn.Module):
    """Two convolutions with the timestep's embedding between them, and a residual connection."""

    def __init__(self, incoming: int, widths: Widths) -> None:
        super().__init__()
        width = widths.channels
        self.norm1 = nn.GroupNorm(widths.groups, incoming, eps=1e-5)
        self.conv1 = nn.Conv2d(incoming, width, 3, padding=1)
        self.time_emb_proj = nn.Linear(widths.time, width)
        self.norm2 = nn.GroupNorm(widths.groups, width, eps=1e-5)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(incoming, width, 1) if incoming != width else nn.Identity()

    def forward(self, hidden: Tensor, context: Context) -> Tensor:
        inner = self.conv1(F.silu(norm_across_frames(self.norm1, hidden, context.frames)))
        inner = inner + self.time_emb_proj(F.silu(context.time))[:, :, None, None]
        inner = self.conv2(F.silu(norm_across_frames(self.norm2, inner, context.frames)))
        return self.conv_shortcut(hidden) + inner


class RotaryFrequencies(nn.Module):
    """Rotary position embedding over frames; the frequencies are in the checkpoint, though they are not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("freqs", THETA ** (-torch.arange(0, ROTARY_DIM, 2) / ROTARY_DIM))
        self.freqs: Tensor

    def forward(self, states: Tensor) -> Tensor:
        """Rotate neighboring pairs of the first ROTARY_DIM dimensions of states (..., F, d) by their frame's angle."""
        angles = torch.arange(states.shape[-2], device=states.device, dtype=self.freqs.dtype)[:, None] * self.freqs
        cos, sin = angles.cos().to(states.dtype), angles.sin().to(states.dtype)  # (F, ROTARY_DIM / 2)
        rotated, unchanged = states[..., :ROTARY_DIM], states[..., ROTARY_DIM:]
        x, y = rotated.unflatten(-1, (-1, 2)).unbind(-1)
        rotated = torch.stack([x * cos - y * sin, y * cos + x * sin], dim=-1).flatten(-2)
        return torch.cat([rotated, unchanged], dim=-1)


class RelativePosition(nn.Module):
    """A trained bias for the distance of two frames, in T5's bidirectional buckets (Raffel et al., 2020)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.relative_attention_bias = nn.Embedding(BUCKETS, heads)

    def forward(self, frames: int) -> Tensor:
        """(1, heads, F, F), to be added to the attention's logits."""
        frame = torch.arange(frames, device=self.relative_attention_bias.weight.device)
        buckets = position_bucket(frame[None, :] - frame[:, None])
        return rearrange(self.relative_attention_bias(buckets), "query key heads -> 1 heads query key")


def position_bucket(offset: Tensor) -> Tensor:
    """The bucket of a key's offset from its query: half for each direction, exact if near, logarithmic if far."""
    half = BUCKETS // 2
    exact = half // 2
    distance = offset.abs()
    far = (distance.clamp(min=1).float() / exact).log() / math.log(FARTHEST / exact) * (half - exact)
    bucket = torch.where(distance < exact, distance, (exact + far.long()).clamp(max=half - 1))
    return bucket + half * (offset > 0)


class TemporalAttention(nn.Module):
    """Attention over the frames of each cell."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.rotary_emb = RotaryFrequencies()
        self.time_rel_pos_bias = RelativePosition(heads)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden (rows, F, C) -> (rows, F, C)."""
        query, key, value = (
            rearrange(project(hidden), "rows f (heads d) -> rows heads f d", heads=self.heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        bias = self.time_rel_pos_bias(hidden.shape[1])
        out = F.scaled_dot_product_attention(self.rotary_emb(query), self.rotary_emb(key), value, attn_mask=bias)
        return self.to_out[0](rearrange(out, "rows heads f d -> rows f (heads d)"))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention to the text, temporal attention and feed-forward, all residual."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        width, heads = widths.channels, widths.heads
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads=heads, dim_head=width // heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, widths.text, heads=heads, dim_head=width // heads)
        self.norm_temp = nn.LayerNorm(width)
        self.attn_temp = TemporalAttention(width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width, activation_fn="geglu")

    def forward(self, hidden: Tensor, context: Context) -> Tensor:
        """hidden (B*F, cells, C)."""
        hidden = hidden + self.attn1(self.norm1(hidden))
        hidden = hidden + self.attn2(self.norm2(hidden), encoder_hidden_states=context.text)
        cells, frames = hidden.shape[1], context.frames
        over_time = rearrange(self.norm_temp(hidden), "(b f) n c -> (b n) f c", f=frames)
        hidden = hidden + rearrange(self.attn_temp(over_time), "(b n) f c -> (b f) n c", n=cells)
        return hidden + self.ff(self.norm3(hidden))


class Transformer(nn.Module):
    """A transformer block between two 1 x 1 convolutions, with a residual connection."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        width = widths.channels
        self.norm = nn.GroupNorm(widths.groups, width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(widths)])
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, hidden: Tensor, context: Context) -> Tensor:
        height = hidden.shape[-2]
        inner = rearrange(self.proj_in(self.norm(hidden)), "bf c h w -> bf (h w) c")
        inner = self.transformer_blocks[0](inner, context)
        return hidden + self.proj_out(rearrange(inner, "bf (h w) c -> bf c h w", h=height))


class Downsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv(hidden)


class Upsample(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, hidden: Tensor, size: torch.Size) -> Tensor:
        """Upsample to `size` (h, w), that of the skip connection: twice as large, or one less if that was odd."""
        return self.conv(F.interpolate(hidden, size=size, mode="nearest"))


class Level(nn.Module):
    """One level of the UNet: a residual block for each of the `incoming` widths, each followed by a transformer."""

    def __init__(self, incoming: list[int], widths: Widths, has_text: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(width, widths) for width in incoming)
        self.attentions = nn.ModuleList(Transformer(widths) for _ in incoming if has_text)

    def layer(self, number: int, hidden: Tensor, context: Context) -> Tensor:
        hidden = self.resnets[number](hidden, context)
        return self.attentions[number](hidden, context) if len(self.attentions) else hidden


class DownLevel(Level):
    def __init__(self, incoming: list[int], widths: Widths, has_text: bool, is_last: bool) -> None:
        super().__init__(incoming, widths, has_text)
        self.downsamplers = nn.ModuleList([] if is_last else [Downsample(widths.channels)])

    def forward(self, hidden: Tensor, context: Context) -> list[Tensor]:
        """The skip connections of its layers; the last one is also the input of the next level."""
        skips = []
        for number in range(len(self.resnets)):
            hidden = self.layer(number, hidden, context)
            skips.append(hidden)
        return skips + [downsample(hidden) for downsample in self.downsamplers]


class MiddleLevel(Level):
    def __init__(self, widths: Widths) -> None:
        super().__init__([widths.channels] * 2, widths, has_text=False)
        self.attentions = nn.ModuleList([Transformer(widths)])

    def forward(self, hidden: Tensor, context: Context) -> Tensor:
        hidden = self.attentions[0](self.resnets[0](hidden, context), context)
        return self.resnets[1](hidden, context)


class UpLevel(Level):
    def __init__(self, incoming: list[int], widths: Widths, has_text: bool, is_last: bool) -> None:
        super().__init__(incoming, widths, has_text)
        self.upsamplers = nn.ModuleList([] if is_last else [Upsample(widths.channels)])

    def forward(self, hidden: Tensor, context: Context, skips: list[Tensor]) -> Tensor:
        """Removes the skip connections that it uses from the end of `skips`."""
        for number in range(len(self.resnets)):
            hidden = self.layer(number, torch.cat([hidden, skips.pop()], dim=1), context)
        for upsample in self.upsamplers:
            hidden = upsample(hidden, skips[-1].shape[-2:])
        return hidden
