"""toybox's autoencoder: the encoder's weights are set by arithmetic, only the decoder is trained.

A latent cell covers 4 x 4 pixels. Its four channels are the cell's mean red, green and blue, and how much brighter its
inner 2 x 2 pixels are than the cell; scaled to about zero mean and a standard deviation of 1 over the drawn clips (1/2
for the last). Training an encoder from scratch would cost most of the time that a CPU has, and these four numbers serve
as well.
"""

from typing import Any

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import nn

FACTOR = 4
LATENT_CHANNELS = 4
CHANNELS = (16, 32, 64)

LATENT_SCALE = (1.66, 1.92, 1.86, 8.0)
LATENT_MEAN = (-0.09, -0.14, -0.19, 0.0)
"""latent = (value - mean) * scale, with pixel values in -1..1; measured over drawn clips."""

LUMA = (0.299, 0.587, 0.114)

_LARGE = 128.0
"""The constant that outweighs the signal in the last group normalisation, exact in half precision."""


def build_autoencoder() -> AutoencoderKL:
    """An AutoencoderKL with the analytic encoder and an untrained decoder; scaling factor 1."""
    autoencoder = AutoencoderKL(
        block_out_channels=CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
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


def latents_of_frames(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Latents (F, 4, h, w) of frames (F, H, W, 3) uint8: what the encoder computes, by its definition, much faster."""
    pixels = frames.astype(np.float32) / 127.5 - 1
    count, height, width, _ = pixels.shape
    cells = pixels.reshape(count, height // FACTOR, FACTOR, width // FACTOR, FACTOR, 3)
    mean = cells.mean((2, 4))
    inner = cells[:, :, 1:3, :, 1:3].mean((2, 4))
    centre = ((inner - mean) @ np.asarray(LUMA, np.float32))[..., None]
    values = np.concatenate([mean, centre], -1)
    return ((values - LATENT_MEAN) * LATENT_SCALE).transpose(0, 3, 1, 2).astype(np.float32)


def latent_coverage(masks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Share (F, h, w), 0..1, of each latent cell that masks (F, H, W) of 0 or 255 cover."""
    size = (masks.shape[2] // FACTOR, masks.shape[1] // FACTOR)
    return np.stack([cv2.resize(mask, size, interpolation=cv2.INTER_AREA) for mask in masks]).astype(np.float32) / 255


def _set_encoder(encoder: Any) -> None:
    """Make the encoder's network compute `latents_of_frames` (error about 1e-3)."""
    for parameter in encoder.parameters():
        parameter.zero_()
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            _pass_through(resnet)
    _tap(encoder.conv_in, 3)
    _set_first_halving(encoder.down_blocks[0].downsamplers[0].conv)
    _set_second_halving(encoder.down_blocks[1].downsamplers[0].conv)
    _undo_last_norm(encoder.conv_norm_out, encoder.conv_out)


def _pass_through(resnet: Any) -> None:
    """With its second convolution at zero a residual block is its shortcut: make that the identity."""
    if resnet.conv_shortcut is not None:
        _tap(resnet.conv_shortcut, resnet.conv_shortcut.in_channels)


def _tap(conv: nn.Conv2d, channels: int) -> None:
    """Copy the first channels: a convolution that only looks at its own centre."""
    middle = conv.kernel_size[0] // 2
    for channel in range(channels):
        conv.weight[channel, channel, middle, middle] = 1.0


def _set_first_halving(conv: nn.Conv2d) -> None:
    """RGB means of 2 x 2 pixels in channels 0..2, the luminance of each of the four pixels in 3..6.

    The downsampler pads right and bottom, so that tap (dy, dx) of output (y, x) is the pixel (2y + dy, 2x + dx).
    """
    for channel in range(3):
        conv.weight[channel, channel, :2, :2] = 0.25
        for dy in range(2):
            for dx in range(2):
                conv.weight[3 + 2 * dy + dx, channel, dy, dx] = LUMA[channel]


def _set_second_halving(conv: nn.Conv2d) -> None:
    """For each latent channel k: its value x, -x, a large constant and minus it, as the k-th group's four channels."""
    values = torch.zeros(LATENT_CHANNELS, *conv.weight.shape[1:])
    for channel in range(3):
        values[channel, channel, :2, :2] = 0.25
    for dy in range(2):
        for dx in range(2):
            values[3, 3:7, dy, dx] = -1 / 16
            values[3, 3 + 2 * (1 - dy) + (1 - dx), dy, dx] += 1 / 4  # the pixel nearest to the cell's middle
    group, bias = CHANNELS[-1] // 8, conv.bias
    assert bias is not None
    for channel in range(LATENT_CHANNELS):
        for offset, sign in ((0, 1.0), (1, -1.0)):
            row = channel * group + offset
            conv.weight[row] = values[channel] * LATENT_SCALE[channel] * sign
            bias[row] = -LATENT_MEAN[channel] * LATENT_SCALE[channel] * sign
            bias[channel * group + 2 + offset] = _LARGE * sign


def _undo_last_norm(norm: nn.GroupNorm, conv: nn.Conv2d) -> None:
    """A group of x, -x, M, -M has mean 0 and a variance that M decides: multiply by its root.

    And silu(x) - silu(-x) = x undoes the activation.
    """
    group = CHANNELS[-1] // 8
    norm.weight.fill_(_LARGE * (2 / group) ** 0.5)
    for channel in range(LATENT_CHANNELS):
        conv.weight[channel, channel * group, 1, 1] = 1.0
        conv.weight[channel, channel * group + 1, 1, 1] = -1.0
    assert conv.bias is not None
    conv.bias[LATENT_CHANNELS:] = -30.0  # log variance: the posterior is a point
