"""toybox's autoencoder: the encoder's weights are computed analytically; only the decoder is trained.

A latent cell covers 4 x 4 pixels. Its twelve channels are coefficients of the cell's discrete cosine transform in
YCbCr: the six lowest of Y in zigzag order, and the three lowest of Cb and Cr each. This preserves eyes and mouths,
unlike mean colors. Each channel is scaled by the square root of its standard deviation, so that fine detail is kept but
coarse structure is denoised first.

The decoder can't start as the exact inverse: AutoencoderKL upsamples by repeating cells, and if all neighboring cells
are equal, a convolution can't distinguish the pixels of a cell. It is trained from scratch.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

FACTOR = 4
CHANNELS = (32, 64, 64)
GROUPS = 16

ZIGZAG = ((0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2))
"""(row, column) frequencies, lowest first."""

LUMA_COUNT, CHROMA_COUNT = 6, 3
LATENT_CHANNELS = LUMA_COUNT + 2 * CHROMA_COUNT
_PLACES = [(0, pair) for pair in ZIGZAG[:LUMA_COUNT]] + [(c, pair) for c in (1, 2) for pair in ZIGZAG[:CHROMA_COUNT]]
"""Color plane and frequency of each channel."""

YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""ITU-R BT.601, full range."""

SPREAD = (1.92, 0.26, 0.31, 0.16, 0.12, 0.13, 0.64, 0.105, 0.115, 0.61, 0.105, 0.115)
MEAN = (-0.25, 0, 0, 0, 0, 0, -0.23, 0, 0, 0.04, 0, 0)
"""Standard deviation and mean of each coefficient, with pixels in -1..1; measured over composed clips."""

_LARGE = 128.0
"""A constant that dominates the signal in the last group normalization; exact in half precision."""


def build_autoencoder() -> AutoencoderKL:
    """An AutoencoderKL with the analytic encoder and an untrained decoder; scaling factor 1."""
    autoencoder = AutoencoderKL(
        block_out_channels=CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=GROUPS,
        sample_size=64,
        scaling_factor=1.0,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    with torch.no_grad():
        _set_encoder(autoencoder.encoder)
    autoencoder.encoder.requires_grad_(False)
    return autoencoder


def analysis() -> tuple[Tensor, Tensor]:
    """Weight (12, 3, 4, 4) and bias (12,) of the convolution with stride 4 that encodes pixels in -1..1."""
    weight, scale = plane_basis(), _scale()
    return weight * scale[:, None, None, None], -torch.tensor(MEAN) * scale


def plane_basis() -> Tensor:
    """(12, 3, 4, 4): the functions whose products with the pixels of a cell are its coefficients."""
    return torch.stack([torch.tensor(YCBCR[plane])[:, None, None] * _basis(*pair) for plane, pair in _PLACES])


def linear_inverse(latents: Tensor) -> Tensor:
    """Decode latents (B, 12, h, w) to pixels (B, 3, H, W) with the inverse transform, a baseline for the decoder."""
    weight, _ = analysis()
    scale = _scale().to(latents)[:, None, None]
    coefficients = latents / scale + torch.tensor(MEAN).to(latents)[:, None, None]
    basis = (weight / _scale()[:, None, None, None]).flatten(1)  # rows not orthogonal across colors: invert
    inverse = torch.linalg.pinv(basis).T.reshape(weight.shape).to(latents)
    return F.conv_transpose2d(coefficients, inverse, stride=FACTOR)


def latents_of_pixels(pixels: Tensor) -> Tensor:
    """Latents (B, 12, H/4, W/4) of pixels (B, 3, H, W) in -1..1: the same as the encoder, but much faster."""
    weight, bias = (each.to(pixels) for each in analysis())
    return F.conv2d(pixels, weight, bias, stride=FACTOR)


def latents_of_noise(planes: Tensor) -> Tensor:
    """Latents (B, 12, H/4, W/4) of white noise (B, 3, H, W) in the planes Y, Cb and Cr.

    If the noise moves with a picture's pixels, its latents move like the picture's latents, also by fractions of a
    cell. The latents are white, too, because the rows of the transform are orthonormal.
    """
    weight = torch.zeros(LATENT_CHANNELS, 3, FACTOR, FACTOR)
    for channel, (plane, frequency) in enumerate(_PLACES):
        weight[channel, plane] = _basis(*frequency)
    return F.conv2d(planes, weight.to(planes), stride=FACTOR)


def _scale() -> Tensor:
    """1 / sqrt(own deviation x the first one): the first channel gets deviation 1, the others are amplified."""
    spread = torch.tensor(SPREAD)
    return 1 / (spread * spread[0]).sqrt()


def _basis(row: int, column: int) -> Tensor:
    """(4, 4): one orthonormal DCT-II function."""
    ticks = (torch.arange(FACTOR) + 0.5) * torch.pi / FACTOR
    down, across = ((2 / FACTOR) ** 0.5 * torch.cos(k * ticks) * (0.5**0.5 if k == 0 else 1) for k in (row, column))
    return down[:, None] * across


def _set_encoder(encoder: Any) -> None:
    """Make the encoder's network compute `latents_of_pixels` (error about 1e-3)."""
    for parameter in encoder.parameters():
        parameter.zero_()
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            _pass_through(resnet)
    _tap(encoder.conv_in, 3)
    _gather_pixels(encoder.down_blocks[0].downsamplers[0].conv)
    _set_second_halving(encoder.down_blocks[1].downsamplers[0].conv)
    _undo_last_norm(encoder.conv_norm_out, encoder.conv_out)


def _pass_through(resnet: Any) -> None:
    """Make a residual block the identity: its second convolution is zero, so only the shortcut counts."""
    if resnet.conv_shortcut is not None:
        _tap(resnet.conv_shortcut, resnet.conv_shortcut.in_channels)


def _tap(conv: nn.Conv2d, channels: int) -> None:
    """Make the convolution copy the first channels, using only its center tap."""
    middle = conv.kernel_size[0] // 2
    for channel in range(channels):
        conv.weight[channel, channel, middle, middle] = 1.0


def _gather_pixels(conv: nn.Conv2d) -> None:
    """The three colors of each of 2 x 2 pixels, as twelve channels (dy, dx, color).

    The downsampler pads right and bottom, so that tap (dy, dx) of output (y, x) is the pixel (2y + dy, 2x + dx).
    """
    for dy in range(2):
        for dx in range(2):
            for color in range(3):
                conv.weight[(2 * dy + dx) * 3 + color, color, dy, dx] = 1.0


def _set_second_halving(conv: nn.Conv2d) -> None:
    """For each latent channel k, write x, -x, a large constant M and -M to the four channels of group k."""
    weight, bias = analysis()
    values = torch.zeros(LATENT_CHANNELS, *conv.weight.shape[1:])
    for row in range(FACTOR):
        for column in range(FACTOR):
            inner = (2 * (row % 2) + column % 2) * 3
            values[:, inner : inner + 3, row // 2, column // 2] = weight[:, :, row, column]
    assert conv.bias is not None
    for channel in range(LATENT_CHANNELS):
        for offset, sign in ((0, 1.0), (1, -1.0)):
            conv.weight[4 * channel + offset] = values[channel] * sign
            conv.bias[4 * channel + offset] = bias[channel] * sign
            conv.bias[4 * channel + 2 + offset] = _LARGE * sign


def _undo_last_norm(norm: nn.GroupNorm, conv: nn.Conv2d) -> None:
    """Undo the group normalization and the activation.

    A group of x, -x, M, -M has mean 0 and a variance dominated by M, so multiplying with its root undoes the
    norm. silu(x) - silu(-x) = x undoes the activation.
    """
    norm.weight.fill_(_LARGE * 0.5**0.5)
    for channel in range(LATENT_CHANNELS):
        conv.weight[channel, 4 * channel, 1, 1] = 1.0
        conv.weight[channel, 4 * channel + 1, 1, 1] = -1.0
    assert conv.bias is not None
    conv.bias[LATENT_CHANNELS:] = -30.0  # log variance: the posterior is a point
