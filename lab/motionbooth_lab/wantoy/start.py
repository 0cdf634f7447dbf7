"""The start of the decoder: a linear inverse of the encoder, fitted to drawn clips.

The decoder splits four frames into pairs, and doubles the picture's size; then it splits the pairs into frames, and
doubles the size again. Each doubling repeats the cells and then convolves, 3 x 3, which is fitted by least squares.
What the residual blocks add is 0 at first, and trained (decoder.py).
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from torch import Tensor

from motionbooth_lab.toybox.autoencoder import FACTOR, plane_basis
from motionbooth_lab.wantoy.codec import CHANNELS, DECODER_WIDTH, GROUP, STILL, time_weights

HALF = 12
"""Channels of 2 x 2 pixels, and of the coefficients of one frame."""

_LARGE = 32.0
"""A constant that dominates the signal in the last normalization."""

CONSTANTS = slice(6, 10)
"""The channels of that constant."""

_RIDGE = 1e-4


@torch.no_grad()
def start_decoder(autoencoder: AutoencoderKLWan, frames: Tensor) -> None:
    """Set the decoder's weights. `frames` (N, 3, H, W) in -1..1: drawn ones, some hundred."""
    decoder: Any = autoencoder.decoder
    first, second, last = decoder.up_blocks
    blocks = [*decoder.mid_block.resnets, *(block for up in decoder.up_blocks for block in up.resnets)]
    for block in blocks:
        _clear(block.conv2)
    _clear(decoder.mid_block.attentions[0].proj)
    _clear(autoencoder.post_quant_conv, torch.eye(CHANNELS))
    _clear(decoder.conv_in, torch.eye(DECODER_WIDTH, CHANNELS))
    cells = F.conv2d(frames, plane_basis(), stride=FACTOR)
    fine, coarse_kernel = _fitted_doubling(cells, F.pixel_unshuffle(frames, 2))
    _, fine_kernel = _fitted_doubling(fine, frames)
    _clear(first.upsamplers[0].time_conv, _pairs())
    _clear(first.upsamplers[0].resample[1])
    for slot in range(2):  # the mean of two frames, and half their difference
        taken = slice(HALF * slot, HALF * (slot + 1))
        first.upsamplers[0].resample[1].weight[taken, taken] = coarse_kernel
    _clear(second.resnets[0].conv_shortcut, torch.eye(DECODER_WIDTH, 2 * HALF))
    _clear(second.upsamplers[0].time_conv, _frames_of_a_pair())
    _clear(second.upsamplers[0].resample[1])
    second.upsamplers[0].resample[1].weight[:3, :HALF] = fine_kernel
    colors = torch.zeros(DECODER_WIDTH, 2 * HALF)
    colors[:3, :3], colors[3:6, :3] = torch.eye(3), -torch.eye(3)  # silu(x) - silu(-x) = x undoes the activation
    _clear(last.resnets[0].conv_shortcut, colors)
    last.resnets[0].conv_shortcut.bias[CONSTANTS] = _LARGE
    decoder.norm_out.gamma.fill_(_LARGE * (4 / DECODER_WIDTH) ** 0.5)
    both = torch.zeros(3, DECODER_WIDTH)
    both[:, :3], both[:, 3:6] = torch.eye(3), -torch.eye(3)
    _clear(decoder.conv_out, both)


def _clear(conv: Any, matrix: Tensor | None = None) -> None:
    """Zero a convolution, but for a matrix (out, in) at the present frame and the middle pixel."""
    conv.weight.zero_()
    conv.bias.zero_()
    if matrix is not None:
        middle = [size // 2 for size in conv.kernel_size]
        if len(middle) == 3:
            middle[0] = conv.kernel_size[0] - 1
        conv.weight[(slice(None), slice(None), *middle)] = matrix


def _fitted_doubling(small: Tensor, large: Tensor) -> tuple[Tensor, Tensor]:
    """The 3 x 3 kernel that brings repeated `small` (N, c, h, w) closest to `large` (N, C, 2h, 2w), and the result."""
    repeated = F.interpolate(small, scale_factor=2, mode="nearest")
    seen = F.unfold(repeated, 3, padding=1).transpose(1, 2).flatten(0, 1)
    wanted = large.flatten(2).transpose(1, 2).flatten(0, 1)
    square = seen.T @ seen / len(seen) + _RIDGE * torch.eye(seen.shape[1])
    kernel = torch.linalg.solve(square, seen.T @ wanted / len(seen)).T
    kernel = kernel.reshape(large.shape[1], small.shape[1], 3, 3)
    return F.conv2d(repeated, kernel, padding=1), kernel


def _pairs() -> Tensor:
    """(96, 48): from a latent frame to both pairs of frames: their means, and half their differences (last - first)."""
    coefficients = time_weights().flatten(0, 1)  # (4 * 12, 24): of the frames, in each channel
    frames = torch.linalg.pinv(coefficients).T.reshape(GROUP, STILL, CHANNELS)
    matrix = torch.zeros(2, DECODER_WIDTH, DECODER_WIDTH)
    for pair in range(2):
        one, other = frames[2 * pair], frames[2 * pair + 1]
        matrix[pair, : 2 * HALF, :CHANNELS] = torch.cat([(one + other) / 2, (other - one) / 2])
    return matrix.flatten(0, 1)


def _frames_of_a_pair() -> Tensor:
    """(96, 48): from means and half differences to both frames."""
    matrix = torch.zeros(2, DECODER_WIDTH, DECODER_WIDTH)
    for frame, sign in enumerate((-1.0, 1.0)):
        matrix[frame, :HALF, :HALF] = torch.eye(HALF)
        matrix[frame, :HALF, HALF : 2 * HALF] = sign * torch.eye(HALF)
    return matrix.flatten(0, 1)
