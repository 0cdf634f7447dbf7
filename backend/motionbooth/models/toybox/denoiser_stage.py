"""Training the denoiser and the text encoder: first on single pictures, then on clips."""

import contextlib
import copy

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet3DConditionModel
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTextModel

from motionbooth.control.boxes import AttentionControl, BoxControl
from motionbooth.models.toybox.dataset import Batch, DrawnClips
from motionbooth.models.toybox.draw import FRAMES
from motionbooth.models.toybox.network import LATENT_SIZE, bypassed_time

PICTURES_A_STEP, CLIPS_A_STEP = 8, 2
"""In each process. A training this short gains more from many steps than from large ones."""

PICTURE_STEP_SHARE = 0.35
"""Share of the steps of the clip stage that take pictures."""

CAPTION_DROP = 0.1
SUBJECT_WEIGHT = 3.0
SNR_LIMIT = 5.0

BOX_SHARE_NOISY, BOX_SHARE_CLEAN = 0.6, 0.15
"""Share of samples that get the product's own attention edit with their true boxes, above and below t = 500."""

MAX_ALPHA = 10.0
SHARED_NOISE_SHARE, MAX_SHARED_NOISE = 0.8, 0.95
"""Share of the clips whose frames have noise in common, and the greatest common part rho."""

NOISE_MARGIN = 8
"""Cells around the frame on which the common noise is drawn: the fastest pan goes 7 cells in a clip."""


class Denoiser(nn.Module):
    """What is trained: the UNet and the text encoder."""

    def __init__(self, unet: UNet3DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder


class DenoiserStage:
    """The denoiser in training on pictures ("pictures") or on clips with some pictures between ("clips")."""

    def __init__(
        self,
        name: str,
        denoiser: Denoiser,
        averaged: Denoiser,
        scheduler: DDIMScheduler,
        clips: DrawnClips,
        empty: Tensor,
    ) -> None:
        self.name, self.trained, self.evaluated = name, denoiser, averaged
        self._is_pictures = name == "pictures"
        self._first_rate, self._last_rate = (1.2e-3, 4e-4) if self._is_pictures else (1e-3, 3e-5)
        self._alphas = scheduler.alphas_cumprod
        self._clips, self._empty = clips, empty
        self._control = AttentionControl.install(denoiser.unet)
        self.optimizer = torch.optim.AdamW(
            denoiser.parameters(), lr=self._first_rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=True
        )

    def learning_rate(self, share: float) -> float:
        """Cosine from the first rate to the last over the stage's time."""
        fall = 0.5 + 0.5 * float(np.cos(np.pi * share))
        return self._last_rate + (self._first_rate - self._last_rate) * fall

    def loss(self, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one random batch, and figures for the log."""
        as_pictures = self._is_pictures or rng.random() < PICTURE_STEP_SHARE
        frames = 1 if as_pictures else FRAMES
        batch = self._clips.sample(PICTURES_A_STEP if as_pictures else CLIPS_A_STEP, frames, rng)
        time = torch.from_numpy(rng.integers(0, 1000, size=len(batch.rows)))
        kept = torch.from_numpy(rng.random(len(batch.rows)) >= CAPTION_DROP)
        self._set_boxes(batch, time, kept, frames, rng)
        cells = np.stack([self._clips.camera_cells(row, frames) for row in batch.rows])
        context = bypassed_time(self.trained.unet) if self._is_pictures else contextlib.nullcontext()
        with context:
            error = self._squared_error(batch, time, kept, shared_noise(cells, rng))
        return self._weighted(error, batch, time), {
            "frames": float(frames * len(batch.rows)),
            "mse": error.mean().item(),
        }

    def _set_boxes(self, batch: Batch, time: Tensor, kept: Tensor, frames: int, rng: np.random.Generator) -> None:
        """Choose which samples are asked for their subject by box."""
        controls: list[BoxControl | None] = []
        for row, t, captioned in zip(batch.rows, time.tolist(), kept.tolist(), strict=True):
            share = BOX_SHARE_NOISY if t > 500 else BOX_SHARE_CLEAN
            edited = captioned and rng.random() < share
            alpha, amplify = float(rng.uniform(1, MAX_ALPHA)), bool(t > 200)
            controls.append(self._clips.box_control(row, frames, alpha, amplify) if edited else None)
        self._control.set_boxes(controls, LATENT_SIZE, frames)

    def _squared_error(self, batch: Batch, time: Tensor, kept: Tensor, noise: Tensor) -> Tensor:
        """(v_hat - v)^2, shape (B, 4, F, h, w)."""
        alpha = self._alphas[time].reshape(-1, 1, 1, 1, 1)
        signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        noisy = signal * batch.latents + sigma * noise
        velocity = signal * noise - sigma * batch.latents
        ids = torch.where(kept[:, None], batch.token_ids, self._empty)
        text = self.trained.text_encoder(ids).last_hidden_state
        predicted = self.trained.unet(noisy, time, encoder_hidden_states=text).sample
        return (predicted - velocity).square()

    def _weighted(self, error: Tensor, batch: Batch, time: Tensor) -> Tensor:
        """More weight on the subject, and min-SNR weights that keep a share at pure noise, where layout is decided."""
        alpha = self._alphas[time]
        snr = alpha / (1 - alpha)
        by_time = ((snr.clamp(max=SNR_LIMIT) + 1) / (snr + 1)).reshape(-1, 1, 1, 1, 1)
        by_place = 1 + (SUBJECT_WEIGHT - 1) * batch.weight
        return (error * by_time * by_place).mean()


def shared_noise(cells: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """Noise (B, 4, F, h, w), in most clips with a part in common to all frames: sqrt(1-rho) n_f + sqrt(rho) n_0.

    The common part moves with the camera by whole cells, `cells` (B, F, 2): as the product's latent shift leaves it. So
    the denoiser learns that a pan of any speed goes with noise that can only jump from cell to cell.
    """
    batch, frames = cells.shape[:2]
    own = torch.randn(batch, 4, frames, *LATENT_SIZE)
    if frames == 1:
        return own
    share = rng.uniform(0, MAX_SHARED_NOISE, batch) * (rng.random(batch) < SHARED_NOISE_SHARE)
    rho = torch.from_numpy(share).float().reshape(-1, 1, 1, 1, 1)
    return (1 - rho).sqrt() * own + rho.sqrt() * _moving_noise(cells)


def _moving_noise(cells: NDArray[np.int64]) -> Tensor:
    """Noise (B, 4, F, h, w) seen through a window that travels `cells` (B, F, 2), right and down."""
    height, width = LATENT_SIZE
    canvas = torch.randn(len(cells), 4, height + 2 * NOISE_MARGIN, width + 2 * NOISE_MARGIN)
    corners = np.clip(NOISE_MARGIN + cells, 0, 2 * NOISE_MARGIN)
    clips = [
        torch.stack([sheet[:, y : y + height, x : x + width] for x, y in track], 1)
        for sheet, track in zip(canvas, corners, strict=True)
    ]
    return torch.stack(clips)


def average_copy(denoiser: Denoiser) -> Denoiser:
    """A copy to hold the running average of the weights."""
    return copy.deepcopy(denoiser).requires_grad_(False)
