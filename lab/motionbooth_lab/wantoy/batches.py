"""Training batches: composed clips as latents, noise that moves with the camera, and the boxes' attention biases."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from motionbooth_lab.toybox import batches
from motionbooth_lab.toybox.autoencoder import FACTOR
from motionbooth_lab.toybox.bank import Bank
from motionbooth_lab.toybox.batches import NOISE_MARGIN_PX, Captions, moved_by_phase
from motionbooth_lab.toybox.compose import compose
from motionbooth_lab.toybox.draw import HEIGHT_PX, WANTOY, WIDTH_PX
from motionbooth_lab.toybox.scenes import Casting, SceneMaker, Scenes
from motionbooth_lab.wantoy.codec import (
    CHANNELS,
    GROUP,
    build_autoencoder,
    latent_scale,
    latents_of_clips,
    noise_in_cells,
)
from motionbooth_lab.wantoy.network import LATENT_SIZE, TOKENS
from motionbooth_lab.wantoy.tokenizer import MAX_TOKENS

CASTING = Casting(WANTOY, empty_share=0.05, kind_share=0.6, places=8)
"""More of the kinds than in toybox, and only their places."""

CAPTION_DROP = 0.1
BOX_SHARE, HARD_SHARE, ALPHA_SHARE, MAX_ALPHA = 0.6, 0.2, 0.5, 5.0
"""Shares: of samples with the attention edit of their own boxes; of these, with hard edges, and with amplification.
Half of the others have the share of each token that the latent frame's mean box covers, half the mean of the frames'
shares."""

SHARED_NOISE_SHARE, LEAST_OWN_NOISE = 0.7, 0.01
"""Share of the clips with noise shared by all latent frames, and the minimum of 1 - rho (its logarithm is uniform)."""

NOISE_DEVIATION, NOISE_SHIFT, UNIFORM_SHARE = 1.2, 2.0, 0.2
"""Noise levels: logit-normal, shifted toward noise as in sampling; in some samples uniform."""


@dataclass(frozen=True)
class Batch:
    """A training batch.

    `latents`, `noise` (B, 24, F', h, w). `subject` (B, 1, F', h, w): 1 on and next to the subject. `sigma` (B,).
    `ids` (B, T). `bias` (B, 1, tokens, T).
    """

    latents: Tensor
    noise: Tensor
    subject: Tensor
    sigma: Tensor
    ids: Tensor
    bias: Tensor


class Words(batches.Words):
    """Captions as UMT5 reads them: no token before the first one, zeros after the end."""

    length, first = MAX_TOKENS, 0


@dataclass(frozen=True)
class Script:
    """What a batch shows, as numbers. `rng`: the generator of all further random choices."""

    scenes: Scenes
    worded: Captions
    rng: np.random.Generator


class Scripts:
    """Draws random scripts of a bank's subjects."""

    def __init__(self, bank: Bank, words: Words) -> None:
        self._scenes, self.words = SceneMaker(bank, CASTING), words

    def draw(self, count: int, frames: int, rng: np.random.Generator) -> Script:
        """A script for clips (all frames) or for single pictures (1)."""
        scenes = self._scenes.draw(count, frames, rng)
        return Script(scenes, self.words(scenes.captions, scenes.phrases), rng)


class Batches:
    """Composes batches from a bank, on its device."""

    def __init__(self, bank: Bank) -> None:
        self._bank, self._device = bank, bank.sprites.device
        mean, deviation = latent_scale(build_autoencoder())
        self._scale = mean.to(self._device), deviation.to(self._device)

    @torch.no_grad()
    def compose(self, script: Script) -> Batch:
        """The batch of a script."""
        scenes, worded, rng = script.scenes, script.worded, script.rng
        count, frames = scenes.sprite.shape
        dice = torch.Generator(self._device).manual_seed(int(rng.integers(2**62)))
        composed = compose(scenes, self._bank)
        latents = latents_of_clips(composed.pixels.unflatten(0, (count, frames)), *self._scale)
        cells = F.max_pool2d(composed.cover, FACTOR) > 0.05
        grown = F.max_pool2d(cells.float(), 3, stride=1, padding=1).unflatten(0, (count, frames))
        kept = torch.from_numpy(rng.random(count) >= CAPTION_DROP)
        has_subject = torch.tensor([bool(phrase) for phrase in scenes.phrases])
        edited = kept & has_subject & torch.from_numpy(rng.random(count) < BOX_SHARE)
        edges = torch.from_numpy(rng.random(count))[:, None, None].to(self._device)
        alpha = torch.from_numpy(rng.uniform(0, MAX_ALPHA, count) * (rng.random(count) < ALPHA_SHARE)).float()
        mean_boxes = grouped(composed.boxes, "mean")
        inside = torch.where(
            edges < (1 + HARD_SHARE) / 2, covered(mean_boxes), grouped(covered(composed.boxes), "mean")
        )
        inside = torch.where(edges < HARD_SHARE, rounded(mean_boxes), inside)
        ids = torch.where(kept[:, None], worded.ids, torch.eye(1, MAX_TOKENS, dtype=torch.long))
        chosen = worded.subject & edited[:, None]
        return Batch(
            latents=latents.contiguous(),
            noise=shared_noise(scenes, rng, dice),
            subject=grouped(grown, "max").transpose(1, 2),
            sigma=torch.from_numpy(noise_levels(count, rng)).to(self._device),
            ids=ids.to(self._device),
            bias=bias(inside, chosen.to(self._device), alpha.to(self._device)),
        )


def grouped(values: Tensor, how: str) -> Tensor:
    """Values (B, F, ...) of frames to latent frames (B, F', ...): the first, then the "mean" or "max" of each four."""
    groups = values[:, 1:].unflatten(1, (-1, GROUP))
    return torch.cat([values[:, :1], groups.mean(2) if how == "mean" else groups.amax(2)], 1)


def covered(boxes: Tensor) -> Tensor:
    """The share of each token (B, F, tokens) that the boxes (B, F, 4) cover."""
    rows, columns = TOKENS
    x1, y1, x2, y2 = (boxes * boxes.new_tensor([columns, rows, columns, rows]))[..., None].unbind(2)
    across, down = torch.arange(columns, device=boxes.device), torch.arange(rows, device=boxes.device)
    wide = (torch.minimum(x2, across + 1) - torch.maximum(x1, across)).clamp(0)
    high = (torch.minimum(y2, down + 1) - torch.maximum(y1, down)).clamp(0)
    return (high[..., :, None] * wide[..., None, :]).flatten(2)


def rounded(boxes: Tensor) -> Tensor:
    """1 in the tokens (B, F, tokens) that the boxes (B, F, 4) cover, rounded to tokens; 0 elsewhere."""
    rows, columns = TOKENS
    edges = (boxes * boxes.new_tensor([columns, rows, columns, rows])).round()
    x1, y1, x2, y2 = edges[..., None].unbind(2)
    across, down = torch.arange(columns, device=boxes.device), torch.arange(rows, device=boxes.device)
    wide, high = (across >= x1) & (across < x2), (down >= y1) & (down < y2)
    return (high[..., :, None] & wide[..., None, :]).flatten(2).float()


def bias(inside: Tensor, subject: Tensor, alpha: Tensor) -> Tensor:
    """The attention bias (B, 1, tokens, T) of the subject's columns; the others get 0.

    `inside` (B, F', tokens), 0..1. `subject` (B, T), all False for no edit. `alpha` (B,).
    """
    raised = alpha[:, None, None] * (1 - inside.mean(-1, keepdim=True))
    own = torch.where(inside > 0, inside.clamp_min(1e-6).log() + raised, -torch.inf)
    nowhere = ~(inside > 0).any(-1, keepdim=True)  # thinner than half a token
    own = torch.where(nowhere, 0.0, own).flatten(1)
    return torch.where(subject[:, None, None], own[:, None, :, None], 0.0)


def noise_levels(count: int, rng: np.random.Generator) -> np.ndarray:
    """Random sigma (B,) float32 in (0, 1)."""
    drawn = 1 / (1 + np.exp(-rng.normal(0, NOISE_DEVIATION, count)))
    shifted = NOISE_SHIFT * drawn / (1 + (NOISE_SHIFT - 1) * drawn)
    return np.where(rng.random(count) < UNIFORM_SHARE, rng.random(count), shifted).astype(np.float32)


def shared_noise(scenes: Scenes, rng: np.random.Generator, dice: torch.Generator) -> Tensor:
    """Noise (B, C, F', h, w), in most clips with a part shared by all latent frames, which moves with the camera."""
    count, frames = scenes.sprite.shape
    travel = grouped(torch.from_numpy(scenes.camera).to(dice.device), "mean")
    latent_frames = travel.shape[1]
    own = torch.randn(count, CHANNELS, latent_frames, *LATENT_SIZE, generator=dice, device=dice.device)
    if frames == 1:
        return own
    own_share = np.exp(rng.uniform(np.log(LEAST_OWN_NOISE), 0, count))
    own_share = np.where(rng.random(count) < SHARED_NOISE_SHARE, own_share, 1.0)
    mixed = torch.from_numpy(own_share).float().to(dice.device).reshape(-1, 1, 1, 1, 1)
    size = (HEIGHT_PX + 2 * NOISE_MARGIN_PX, WIDTH_PX + 2 * NOISE_MARGIN_PX)
    canvas = torch.randn(count, 6, *size, generator=dice, device=dice.device)
    moved = moved_by_phase(canvas, travel)[..., :HEIGHT_PX, :WIDTH_PX]
    common = noise_in_cells(moved.flatten(0, 1)).unflatten(0, (count, latent_frames)).transpose(1, 2)
    return mixed.sqrt() * own + (1 - mixed).sqrt() * common
