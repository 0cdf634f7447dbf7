"""Sample sheets for watching the training."""

from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler
from numpy.typing import NDArray
from torch import Tensor

from motionbooth_lab.toybox.autoencoder import latents_of_pixels
from motionbooth_lab.toybox.bank import Bank
from motionbooth_lab.toybox.batches import GRIDS, Captions, Words, bias
from motionbooth_lab.toybox.compose import compose
from motionbooth_lab.toybox.decoder_stage import psnr
from motionbooth_lab.toybox.denoiser_stage import Denoiser, GivenBias
from motionbooth_lab.toybox.draw import FRAMES, held_out_combinations, kind_scene
from motionbooth_lab.toybox.network import LATENT_SIZE, bypassed_time
from motionbooth_lab.toybox.scenes import OWN_WORD, SceneMaker

STEPS, GUIDANCE, SHARED_NOISE = 20, 2.5, 0.95
COLUMNS = 8


@torch.no_grad()
def decoder_sheet(autoencoder: AutoencoderKL, bank: Bank, path: Path) -> float:
    """Write unseen frames above their decoded latents. Returns the decoder's PSNR in dB."""
    composed = compose(SceneMaker(bank).draw(24, 1, np.random.default_rng(99)), bank)
    decoded = autoencoder.decoder(latents_of_pixels(composed.pixels))
    pairs = [np.concatenate(pair, 0) for pair in zip(as_frames(composed.pixels), as_frames(decoded), strict=True)]
    _write(path, pairs)
    return float(psnr((decoded.clamp(-1, 1) - composed.pixels).square().mean()))


@torch.no_grad()
def sample_sheet(
    denoiser: Denoiser,
    autoencoder: AutoencoderKL,
    scheduler: DDIMScheduler,
    bank: Bank,
    words: Words,
    path: Path,
    clips: bool,
) -> None:
    """Write samples of characters, prompted by their own words and shown below their drawings, and of held-out kinds.

    Samples by plain DDIM single pictures, or three frames of each clip, with the attention edit at the scene's boxes.
    """
    frames = FRAMES if clips else 1
    device = bank.sprites.device
    scenes = SceneMaker(bank).draw(400, frames, np.random.default_rng(98))
    own = [row for row, phrase in enumerate(scenes.phrases) if phrase.startswith(OWN_WORD[0])][
        : COLUMNS * (1 if clips else 3)
    ]
    composed = compose(scenes, bank)
    prompts, phrases = [scenes.captions[row] for row in own], [scenes.phrases[row] for row in own]
    boxes = composed.boxes[own]
    held_out = held_out_combinations()
    extra = held_out[:: len(held_out) // COLUMNS][:COLUMNS]
    kinds = [kind_scene(*combination) for combination in extra]
    prompts += [scene.caption for scene in kinds]
    phrases += [scene.phrase for scene in kinds]
    centered = torch.tensor([0.25, 0.12, 0.75, 0.88], device=device).expand(len(kinds), frames, 4)
    worded = words(prompts, phrases)
    latents = sample(
        denoiser, scheduler, worded.ids.to(device), words.empty.to(device), torch.cat([boxes, centered]), worded, frames
    )
    shown = [0] if frames == 1 else [0, frames // 2, frames - 1]
    decoded = as_frames(autoencoder.decoder(latents[:, :, shown].transpose(1, 2).flatten(0, 1)))
    made = decoded.reshape(len(prompts), len(shown), *decoded.shape[1:])
    true = as_frames(composed.pixels).reshape(len(scenes.captions), frames, *decoded.shape[1:])[own]
    images = []
    for start in range(0, len(own), COLUMNS):
        images += [row[0] for row in true[start : start + COLUMNS]]
        for column in range(len(shown)):
            images += [row[column] for row in made[start : start + COLUMNS]]
    for column in range(len(shown)):
        images += [row[column] for row in made[len(own) :]]
    _write(path, images)


def as_frames(pixels: Tensor) -> NDArray[np.uint8]:
    """(B, H, W, 3) uint8 of pixels (B, 3, H, W) in -1..1."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def sample(
    denoiser: Denoiser,
    scheduler: DDIMScheduler,
    ids: Tensor,
    empty: Tensor,
    boxes: Tensor,
    worded: Captions,
    frames: int,
) -> Tensor:
    """Latents (B, C, F, h, w) of the prompts, by plain DDIM with the attention edit at the boxes (B, F, 4)."""
    control = GivenBias.install(denoiser.unet)
    count, device = len(ids), ids.device
    dtype = next(denoiser.parameters()).dtype
    scheduler.set_timesteps(STEPS)
    text = denoiser.text_encoder(torch.cat([empty.expand(count, -1), ids])).last_hidden_state
    dice = torch.Generator().manual_seed(4)
    shape = (count, denoiser.unet.config.in_channels, frames, *LATENT_SIZE)
    latents = (1 - SHARED_NOISE) ** 0.5 * torch.randn(shape, generator=dice)
    latents = (latents + SHARED_NOISE**0.5 * torch.randn((*shape[:2], 1, *shape[3:]), generator=dice)).to(device)
    if frames == 1:
        latents = torch.randn(shape, generator=dice).to(device)
    edited = torch.ones(count, dtype=torch.bool, device=device)
    for number, step in enumerate(scheduler.timesteps):
        alpha = torch.full((count,), 3.0 if number < STEPS // 2 else 0.0, device=device)
        halves = [bias(boxes, worded, edited, alpha, grid).to(dtype) for grid in GRIDS]
        control.set([torch.cat([torch.zeros_like(half), half]) for half in halves])
        both = torch.cat([latents, latents]).to(dtype)
        if frames == 1:
            with bypassed_time(denoiser.unet):
                out = denoiser.unet(both, step, encoder_hidden_states=text).sample
        else:
            out = denoiser.unet(both, step, encoder_hidden_states=text).sample
        plain, asked = out.float().chunk(2)
        latents = scheduler.step(plain + GUIDANCE * (asked - plain), step, latents).prev_sample
    return latents


def _write(path: Path, images: list[NDArray[np.uint8]]) -> None:
    rows = [np.concatenate(images[i : i + COLUMNS], 1) for i in range(0, len(images), COLUMNS)]
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows, 0), cv2.COLOR_RGB2BGR))
