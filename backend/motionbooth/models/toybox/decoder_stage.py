"""Training the decoder: from the analytic latents back to the drawn pixels."""

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

from motionbooth.models.toybox.autoencoder import latents_of_frames
from motionbooth.models.toybox.dataset import DrawnClips
from motionbooth.models.toybox.network import channels_last

BATCH = 8
LEARNING_RATE = 2e-3
LATENT_NOISE = 0.04
"""Standard deviation of the noise on latents while training: generated latents are not perfect either."""


class DecoderStage:
    """One decoder in training; `step` is called until the stage's time is up."""

    name = "decoder"

    def __init__(self, autoencoder: AutoencoderKL, clips: DrawnClips) -> None:
        self._frames = clips.frames
        self.trained = self.evaluated = channels_last(autoencoder.decoder)
        self.optimizer = torch.optim.AdamW(self.trained.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99))

    def learning_rate(self, share: float) -> float:
        """The rate after a share of the stage's time, 0..1."""
        return LEARNING_RATE * max(0.02, 0.5 + 0.5 * float(np.cos(np.pi * share)))

    def loss(self, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one random batch, and figures for the log."""
        frames = self._frames[rng.integers(len(self._frames), size=BATCH)]
        wanted = as_pixels(frames)
        latents = torch.from_numpy(latents_of_frames(frames))
        latents = latents + LATENT_NOISE * torch.randn_like(latents)
        decoded = self.trained(latents.contiguous(memory_format=torch.channels_last))
        error = decoded - wanted
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        squared = error.square().mean()
        return error.abs().mean() + 2 * squared + 0.5 * edges, {"psnr": psnr(squared.detach())}


def as_pixels(frames: NDArray[np.uint8]) -> Tensor:
    """(B, 3, H, W) in -1..1 of frames (B, H, W, 3) uint8."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr(squared_error: Tensor) -> float:
    """Decibels of a mean squared error of pixels in -1..1."""
    return float(10 * torch.log10(4 / squared_error.clamp_min(1e-12)))
