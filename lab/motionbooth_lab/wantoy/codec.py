"""wantoy's autoencoder, an AutoencoderKLWan: the encoder's weights are computed analytically; the decoder is trained.

A latent cell covers 4 x 4 pixels and one frame (the first) or four. Its channels are coefficients of the cell's cosine
transform in YCbCr: twelve of the mean of the frames (as in toybox), then twelve of the change in time, which are 0 in
the first frame. The mean and deviation of each channel are in the configuration, as in Wan; a channel is scaled with
the square root of its deviation, so that fine detail is kept but coarse structure is denoised first.

The decoder starts as the best linear inverse that its layout allows (start.py); the exact one is impossible, because it
upsamples by repeating cells.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from torch import Tensor

from motionbooth_lab.toybox.autoencoder import (
    FACTOR,
    LATENT_CHANNELS,
    MEAN,
    SPREAD,
    latents_of_noise,
    plane_basis,
)

GROUP = 4
"""Frames of a latent frame after the first."""

STILL = LATENT_CHANNELS
MOVING = ((0, 1), (2, 1), (6, 1), (9, 1), (0, 2), (1, 1), (2, 2), (3, 1), (1, 2), (3, 2), (5, 1), (4, 1))
"""(channel among the first twelve, frequency in time) of the other channels: those with the largest variance."""

MOVING_SPREAD = (0.24, 0.115, 0.138, 0.126, 0.1, 0.108, 0.068, 0.066, 0.073, 0.046, 0.054, 0.06)
"""Standard deviations, measured over composed clips."""

CHANNELS = STILL + len(MOVING)
WIDTH, DECODER_WIDTH = 52, 48
_LARGE = 128.0
"""A constant that dominates the signal in the last normalization; exact in half precision."""


def build_autoencoder() -> AutoencoderKLWan:
    """An AutoencoderKLWan with the analytic encoder and a random decoder."""
    spread = torch.tensor(SPREAD + MOVING_SPREAD)
    autoencoder = AutoencoderKLWan(
        base_dim=WIDTH,
        decoder_base_dim=DECODER_WIDTH,
        z_dim=CHANNELS,
        dim_mult=[1, 1, 1],
        num_res_blocks=0,
        temperal_downsample=[True, True],
        latents_mean=[*MEAN, *[0.0] * len(MOVING)],
        latents_std=[round(float(each), 4) for each in (spread * spread[0]).sqrt()],
        scale_factor_temporal=GROUP,
        scale_factor_spatial=FACTOR,
    )
    with torch.no_grad():
        for parameter in [*autoencoder.encoder.parameters(), *autoencoder.quant_conv.parameters()]:
            parameter.zero_()
        _set_encoder(autoencoder.encoder)
        autoencoder.quant_conv.weight[:, :, 0, 0, 0] = torch.eye(2 * CHANNELS)
    autoencoder.encoder.requires_grad_(False)
    autoencoder.quant_conv.requires_grad_(False)
    return autoencoder


def latent_scale(autoencoder: AutoencoderKLWan) -> tuple[Tensor, Tensor]:
    """Mean and deviation (24, 1, 1, 1) of the latents."""
    config = autoencoder.config
    mean, deviation = (torch.tensor(each)[:, None, None, None] for each in (config.latents_mean, config.latents_std))
    return mean, deviation


def latents_of_clips(pixels: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Normalized latents (B, 24, F', h, w) of clips (B, 1 + 4k, 3, H, W) in -1..1: the encoder's, but faster."""
    count, frames = pixels.shape[:2]
    coefficients = F.conv2d(pixels.flatten(0, 1), plane_basis().to(pixels), stride=FACTOR)
    still = coefficients.unflatten(0, (count, frames))  # (B, F, 12, h, w)
    first = torch.cat([still[:, :1], torch.zeros_like(still[:, :1])], 2)
    groups = still[:, 1:].unflatten(1, (-1, GROUP))
    later = torch.einsum("fcz,bgfchw->bgzhw", time_weights().to(pixels), groups)
    return (torch.cat([first, later], 1).transpose(1, 2) - mean) / deviation


def noise_in_cells(planes: Tensor) -> Tensor:
    """White noise (B, 24, h, w) of white noise (B, 6, H, W) in pixels, which moves with the pixels by any distance."""
    moving = latents_of_noise(planes[:, 3:])[:, [channel for channel, _ in MOVING]]
    return torch.cat([latents_of_noise(planes[:, :3]), moving], 1)


def time_weights() -> Tensor:
    """(4, 12, 24): how much each frame's coefficients contribute to each channel."""
    ticks = (torch.arange(GROUP) + 0.5) * torch.pi / GROUP
    weights = torch.zeros(GROUP, STILL, CHANNELS)
    weights[:, range(STILL), range(STILL)] = 1 / GROUP
    for number, (channel, frequency) in enumerate(MOVING):
        weights[:, channel, STILL + number] = 0.5 * (2 / GROUP) ** 0.5 * torch.cos(frequency * ticks)
    return weights


def _set_encoder(encoder: Any) -> None:
    """Make the encoder's network compute the coefficients. The residual and attention blocks stay the identity."""
    first, second = encoder.down_blocks
    for color in range(3):
        encoder.conv_in.weight[color, color, -1, 1, 1] = 1.0
    for place in range(4):  # the padding is on the right and bottom: tap (dy, dx) is the pixel (2y + dy, 2x + dx)
        for color in range(3):
            first.resample[1].weight[place * 3 + color, color, place // 2, place % 2] = 1.0
    for channel in range(12):  # pairs of frames; the first frame of a clip skips the convolutions over time
        for slot in range(2):
            first.time_conv.weight[12 * slot + channel, channel, 1 + slot, 0, 0] = 1.0
    _set_second_halving(second)
    encoder.norm_out.gamma.fill_(_LARGE * (4 / WIDTH) ** 0.5)
    for channel in range(CHANNELS):  # silu(x) - silu(-x) = x undoes the activation
        encoder.conv_out.weight[channel, channel, -1, 1, 1] = 1.0
        encoder.conv_out.weight[channel, CHANNELS + channel, -1, 1, 1] = -1.0
    encoder.conv_out.bias[CHANNELS:] = -30.0  # log variance: the posterior is a point


def _set_second_halving(halving: Any) -> None:
    """Write the 24 coefficients x, -x and four times a large constant M.

    The norm of (x, -x, M, M, M, M) is dominated by M, so multiplying with it undoes the last normalization.
    """
    basis, weights = plane_basis(), time_weights()
    space, time = halving.resample[1], halving.time_conv
    for row in range(FACTOR):
        for column in range(FACTOR):
            inner = (2 * (row % 2) + column % 2) * 3
            for slot in range(2):
                values = basis[:, :, row, column]
                taken = slice(12 * slot + inner, 12 * slot + inner + 3)
                for start, sign in ((12 * slot, 1.0), (CHANNELS + 12 * slot, -1.0)):
                    space.weight[start : start + 12, taken, row // 2, column // 2] = sign * values
    for frame in range(GROUP):
        taken = slice(12 * (frame % 2), 12 * (frame % 2) + 12)
        for start, sign in ((0, 1.0), (CHANNELS, -1.0)):
            time.weight[start : start + CHANNELS, taken, 1 + frame // 2, 0, 0] = sign * weights[frame].T
    space.bias[2 * CHANNELS :] = _LARGE
    time.bias[2 * CHANNELS :] = _LARGE
