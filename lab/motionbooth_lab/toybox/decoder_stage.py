"""Training of the decoder, from analytic latents to the composed pixels."""

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from motionbooth_lab.toybox.autoencoder import latents_of_pixels
from motionbooth_lab.toybox.bank import Bank
from motionbooth_lab.toybox.compose import Composed, compose
from motionbooth_lab.toybox.masters import Masters
from motionbooth_lab.toybox.network import channels_last
from motionbooth_lab.toybox.scenes import SceneMaker

LATENT_NOISE = 0.03
"""Standard deviation of the noise added to latents, because generated latents are not perfect."""

SUBJECT_WEIGHT = 3.0


class DecoderStage:
    """Trains the decoder."""

    name = "decoder"

    def __init__(self, autoencoder: AutoencoderKL, bank: Bank, batch: int, first_rate: float = 2e-3) -> None:
        self._bank, self._scenes, self._batch, self._first_rate = bank, SceneMaker(bank), batch, first_rate
        self._decoder = channels_last(autoencoder.decoder)
        self.masters = Masters(self._decoder, betas=(0.9, 0.99), weight_decay=1e-3)

    def learning_rate(self, share: float) -> float:
        """The learning rate after a share of the stage's time, 0..1."""
        return self._first_rate * max(0.02, 0.5 + 0.5 * float(np.cos(np.pi * share)))

    def prepare(self, rng: np.random.Generator) -> tuple[Composed, Tensor]:
        """The pictures of a step and the noise for their latents."""
        composed = compose(self._scenes.draw(self._batch, 1, rng), self._bank)
        latents = latents_of_pixels(composed.pixels)
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(int(rng.integers(2**31))))
        return composed, latents + LATENT_NOISE * noise.to(latents)

    def train_step(self, prepared: tuple[Composed, Tensor], rate: float) -> dict[str, Any]:
        """Take one optimizer step. Returns figures for the log."""
        composed, latents = prepared
        self.masters.set_rate(rate)
        self.masters.clear_gradients()
        error = self._decoder(latents.contiguous(memory_format=torch.channels_last)) - composed.pixels
        weight = 1 + (SUBJECT_WEIGHT - 1) * composed.cover
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        squared = error.square()
        loss = (weight * (error.abs() + 2 * squared)).mean() + 0.5 * edges
        loss.backward()
        norm = self.masters.step()
        self.masters.count_step()
        return {
            "loss": loss.detach(),
            "gradient": norm,
            "psnr": psnr(squared.detach().mean()),
            "frames": float(self._batch),
        }


def psnr(squared_error: Tensor) -> Tensor:
    """Decibels of a mean squared error of pixels in -1..1."""
    return 10 * torch.log10(4 / squared_error.clamp_min(1e-12))
