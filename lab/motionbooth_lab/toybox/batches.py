"""Training batches of the denoiser: composed scenes as latents, noise that moves with the camera, and attention biases.

Everything is computed on the device from numbers drawn with a seeded generator.
"""

from dataclasses import dataclass

import numpy as np
import torch
from motionbooth.control.boxes import Grid, level_grids
from torch import Tensor
from transformers import CLIPTokenizer, PreTrainedTokenizerBase

from motionbooth_lab.toybox.autoencoder import FACTOR, LATENT_CHANNELS, latents_of_noise, latents_of_pixels
from motionbooth_lab.toybox.bank import Bank
from motionbooth_lab.toybox.compose import compose
from motionbooth_lab.toybox.draw import HEIGHT_PX, WIDTH_PX
from motionbooth_lab.toybox.network import LATENT_SIZE, WIDTHS
from motionbooth_lab.toybox.scenes import OWN_WORD, SceneMaker, Scenes
from motionbooth_lab.toybox.tokenizer import MAX_TOKENS

TRAINING_STEPS = 1000
CAPTION_DROP = 0.1

BOX_SHARE_NOISY, BOX_SHARE_CLEAN = 0.6, 0.3
"""Share of samples that get the product's attention edit with their true boxes, above and below t = 500."""

MAX_ALPHA = 10.0
SHARED_NOISE_SHARE, LEAST_OWN_NOISE = 0.85, 0.01
"""Share of the clips with noise shared by all frames, and the minimum of 1 - rho, the part that each frame has of its
own. Its logarithm is uniform, so that half of these clips share more than 0.9."""

NOISE_MARGIN_PX = 16
"""Margin around the frame of the periodic canvas of the shared noise; the fastest pan (28 px per clip) doesn't wrap."""

GRIDS = level_grids(LATENT_SIZE, len(WIDTHS))


@dataclass(frozen=True)
class Batch:
    """A training batch.

    `latents`, `noise` (B, 12, F, h, w). `subject` (B, 1, F, h, w): 1 on and next to the subject, 0 elsewhere. `time`
    (B,). `ids` (B, T): token ids, of an empty caption if it was dropped. `biases`: (B*F, 1, h*w, T) for each grid.
    """

    latents: Tensor
    noise: Tensor
    subject: Tensor
    time: Tensor
    ids: Tensor
    biases: list[Tensor]

    def tensors(self) -> list[Tensor]:
        return [self.latents, self.noise, self.subject, self.time, self.ids, *self.biases]


@dataclass(frozen=True)
class Captions:
    """Token ids (B, T) of captions, and bool masks (B, T) of the subject's tokens and of content tokens."""

    ids: Tensor
    subject: Tensor
    content: Tensor


class Words:
    """Tokenizes captions. The characters' own words get ids after the tokenizer's vocabulary."""

    length = MAX_TOKENS
    first = 1
    """Position of a caption's first token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, entries: int) -> None:
        self._tokenizer, self.first_own = tokenizer, len(tokenizer)
        self.size = self.first_own + entries
        self._known = {OWN_WORD.format(number): [self.first_own + number] for number in range(entries)}
        self.empty = torch.tensor(self._padded([]))

    def __call__(self, captions: list[str], phrases: list[str]) -> Captions:
        ids = np.empty((len(captions), self.length), np.int64)
        subject, content = np.zeros(ids.shape, bool), np.zeros(ids.shape, bool)
        for row, (caption, phrase) in enumerate(zip(captions, phrases, strict=True)):
            before = self._pieces(caption.split(phrase)[0]) if phrase else []
            pieces, own = self._pieces(caption), self._pieces(phrase)
            ids[row] = self._padded(pieces)
            start = self.first + len(before)
            content[row, self.first : self.first + len(pieces)] = True
            subject[row, start : start + len(own)] = True
        return Captions(*map(torch.from_numpy, (ids, subject, content)))

    def _pieces(self, text: str) -> list[int]:
        pieces: list[int] = []
        for word in text.split():
            if word not in self._known:
                self._known[word] = self._tokenizer(word, add_special_tokens=False).input_ids
            pieces += self._known[word]
        return pieces

    def _padded(self, pieces: list[int]) -> list[int]:
        ends = [self._tokenizer.eos_token_id] + [self._tokenizer.pad_token_id] * self.length
        start = [self._tokenizer.bos_token_id] * self.first
        return [*start, *pieces, *ends][: self.length]


class Batches:
    """Draws batches from a bank. `edits`: with the attention edit in some samples. `shared`: with noise that the frames
    of most clips share. The random draws are the same without.
    """

    def __init__(self, bank: Bank, tokenizer: CLIPTokenizer, edits: bool = True, shared: bool = True) -> None:
        self._edits, self._shared = edits, shared
        self.bank, self.words = bank, Words(tokenizer, len(bank.entries))
        self._scenes = SceneMaker(bank)
        self._device = bank.sprites.device

    @torch.no_grad()
    def draw(self, count: int, frames: int, rng: np.random.Generator, dtype: torch.dtype) -> Batch:
        """A random batch of clips (`frames` = FRAMES) or of single pictures (1)."""
        device = self._device
        dice = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        scenes = self._scenes.draw(count, frames, rng)
        composed = compose(scenes, self.bank)
        latents = latents_of_pixels(composed.pixels).unflatten(0, (count, frames)).transpose(1, 2)
        cells = torch.nn.functional.max_pool2d(composed.cover, FACTOR) > 0.05
        grown = torch.nn.functional.max_pool2d(cells.float(), 3, stride=1, padding=1)
        steps = rng.integers(TRAINING_STEPS, size=count)
        time = torch.from_numpy(steps).to(device)
        worded = self.words(scenes.captions, scenes.phrases)
        kept = rng.random(count) >= CAPTION_DROP
        noisy = steps > TRAINING_STEPS // 2
        edited = kept & (rng.random(count) < np.where(noisy, BOX_SHARE_NOISY, BOX_SHARE_CLEAN))
        edited &= self._edits & np.array([bool(phrase) for phrase in scenes.phrases])
        alpha = torch.from_numpy(rng.uniform(1, MAX_ALPHA, count)).float().to(device)
        ids = torch.where(torch.from_numpy(kept)[:, None], worded.ids, self.words.empty)
        chosen = torch.from_numpy(edited).to(device)
        amplified = alpha * (time > TRAINING_STEPS // 5)
        return Batch(
            latents=latents.to(dtype).contiguous(),
            noise=noise_of(scenes, rng, dice, self._shared).to(dtype),
            subject=grown.unflatten(0, (count, frames)).transpose(1, 2).to(dtype),
            time=time,
            ids=ids.to(device),
            biases=[bias(composed.boxes, worded, chosen, amplified, grid).to(dtype) for grid in GRIDS],
        )


def bias(boxes: Tensor, worded: Captions, edited: Tensor, alpha: Tensor, grid: Grid) -> Tensor:
    """The product's attention edit (control.boxes, suppress="content") for a batch: (B*F, 1, cells, T).

    `boxes` (B, F, 4). `edited` (B,): which samples are edited; the others get zeros. `alpha` (B,): amplification.
    """
    height, width = grid
    edges = boxes * boxes.new_tensor([width, height, width, height])
    low, high = edges[..., :2].round(), edges[..., 2:].round()
    middle = ((edges[..., :2] + edges[..., 2:]) / 2).floor()
    thin = low == high
    low, high = torch.where(thin, middle, low), torch.where(thin, middle + 1, high)
    column, row = torch.arange(width, device=boxes.device), torch.arange(height, device=boxes.device)[:, None]
    x1, y1, x2, y2 = (each[..., None, None] for each in (*low.unbind(-1), *high.unbind(-1)))
    inside = ((column >= x1) & (column < x2) & (row >= y1) & (row < y2)).flatten(2)  # (B, F, cells)
    raised = alpha[:, None, None] * (1 - inside.float().mean(-1, keepdim=True))
    own = torch.where(inside, raised, -torch.inf)[..., None]
    subject, content = (each.to(boxes.device)[:, None, None] for each in (worded.subject, worded.content))
    full = torch.where(subject, own, torch.where(content, -torch.inf, 0.0))  # (B, F, cells, T)
    full = torch.where(edited[:, None, None, None], full, 0.0)
    return full.flatten(0, 1)[:, None]


def noise_of(scenes: Scenes, rng: np.random.Generator, dice: torch.Generator, shared: bool = True) -> Tensor:
    """Noise (B, C, F, h, w). If `shared`, most clips have a part shared by all frames: sqrt(1-rho) n_f + sqrt(rho) n_0.

    The shared part moves exactly with the camera: it is white noise in pixels, moved like the pixels of the scenery and
    then transformed to latents. With noise that jumped by whole cells, the model learned to make fine textures jump.
    """
    count, frames = scenes.sprite.shape
    device = dice.device
    own = torch.randn(count, LATENT_CHANNELS, frames, *LATENT_SIZE, generator=dice, device=device)
    if frames == 1:
        return own
    own_share = np.exp(rng.uniform(np.log(LEAST_OWN_NOISE), 0, count))
    own_share = np.where((rng.random(count) < SHARED_NOISE_SHARE) & shared, own_share, 1.0)
    mixed = torch.from_numpy(own_share).float().to(device).reshape(-1, 1, 1, 1, 1)
    wide, high = WIDTH_PX + 2 * NOISE_MARGIN_PX, HEIGHT_PX + 2 * NOISE_MARGIN_PX
    canvas = torch.randn(count, 3, high, wide, generator=dice, device=device)
    moved = moved_by_phase(canvas, torch.from_numpy(scenes.camera).to(device))[..., :HEIGHT_PX, :WIDTH_PX]
    common = latents_of_noise(moved.flatten(0, 1)).unflatten(0, (count, frames)).transpose(1, 2)
    return mixed.sqrt() * own + (1 - mixed).sqrt() * common


def moved_by_phase(canvas: Tensor, travel: Tensor) -> Tensor:
    """Shift a periodic canvas (B, C, H, W) by the camera's `travel` (B, F, 2), pixels right and down: (B, F, C, H, W).

    The shift multiplies the phases of the Fourier transform, which keeps white noise white.
    """
    high, wide = canvas.shape[-2:]
    across, down = (each[..., None, None] for each in travel.unbind(-1))
    turns = across * torch.fft.rfftfreq(wide, device=canvas.device)
    turns = turns + down * torch.fft.fftfreq(high, device=canvas.device)[:, None]  # (B, F, H, W / 2 + 1)
    spectrum = torch.fft.rfft2(canvas)[:, None] * torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)[:, :, None]
    return torch.fft.irfft2(spectrum, s=(high, wide))
