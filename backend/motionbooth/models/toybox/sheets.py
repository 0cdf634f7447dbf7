"""Sheets of samples, to look at while toybox trains."""

from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet3DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from motionbooth.models.toybox.autoencoder import LATENT_CHANNELS, latents_of_frames
from motionbooth.models.toybox.decoder_stage import as_pixels, psnr
from motionbooth.models.toybox.draw import FRAMES, draw_clip, held_out_combinations, kind_scene, random_scene
from motionbooth.models.toybox.network import LATENT_SIZE, bypassed_time, channels_last

STEPS, GUIDANCE, SHARED_NOISE = 20, 4.0, 0.9
COLUMNS = 6


@torch.no_grad()
def decoder_sheet(autoencoder: AutoencoderKL, path: Path) -> float:
    """Unseen frames above the same through latents and decoder; returns the decoder's PSNR in dB."""
    rngs = [np.random.default_rng([99, index]) for index in range(24)]
    frames = np.stack([draw_clip(random_scene(rng), rng).frames[0] for rng in rngs])
    decoded = autoencoder.decoder(torch.from_numpy(latents_of_frames(frames)))
    pairs = [np.concatenate(pair, 0) for pair in zip(frames, as_frames(decoded), strict=True)]
    _write(path, pairs)
    return psnr((decoded.clamp(-1, 1) - as_pixels(frames)).square().mean())


@torch.no_grad()
def sample_sheet(bundle: Path, path: Path, is_clips: bool, seed: int) -> None:
    """Samples of held-out prompts by plain DDIM, without any control: pictures, or three frames of each clip.

    A few only: the other processes of the training wait.
    """
    scenes = [kind_scene(*combination) for combination in held_out_combinations()[:: 13 if is_clips else 6]]
    prompts = [scene.caption for scene in scenes] + ["a red and yellow toy on the grass"]
    frames = FRAMES if is_clips else 1
    unet = channels_last(UNet3DConditionModel.from_pretrained(bundle / "unet", torch_dtype=torch.float32))
    latents = _sample(bundle, unet, prompts, frames, seed)
    autoencoder = AutoencoderKL.from_pretrained(bundle / "vae", torch_dtype=torch.float32)
    images = []
    for latent in latents:
        decoded = as_frames(autoencoder.decoder(latent.transpose(0, 1)))
        images.append(np.concatenate(list(decoded[:: max(1, (frames - 1) // 2)]), 0))
    _write(path, images)


def as_frames(decoded: Tensor) -> NDArray[np.uint8]:
    """(B, H, W, 3) uint8 of pixels (B, 3, H, W) in -1..1."""
    return ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def _sample(bundle: Path, unet: UNet3DConditionModel, prompts: list[str], frames: int, seed: int) -> Tensor:
    tokenizer = CLIPTokenizer.from_pretrained(bundle / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(bundle / "text_encoder", dtype=torch.float32)
    scheduler = DDIMScheduler.from_pretrained(bundle / "scheduler")
    scheduler.set_timesteps(STEPS)
    ids = tokenizer([""] * len(prompts) + prompts, padding="max_length", return_tensors="pt").input_ids
    text = text_encoder(ids).last_hidden_state
    dice = torch.Generator().manual_seed(seed)
    shape = (len(prompts), LATENT_CHANNELS, frames, *LATENT_SIZE)
    own, common = torch.randn(shape, generator=dice), torch.randn(shape, generator=dice)[:, :, :1]
    latents = (1 - SHARED_NOISE) ** 0.5 * own + SHARED_NOISE**0.5 * common
    for step in scheduler.timesteps:
        if frames == 1:
            with bypassed_time(unet):
                both = unet(torch.cat([latents, latents]), step, encoder_hidden_states=text).sample
        else:
            both = unet(torch.cat([latents, latents]), step, encoder_hidden_states=text).sample
        plain, worded = both.chunk(2)
        latents = scheduler.step(plain + GUIDANCE * (worded - plain), step, latents).prev_sample
    return latents


def _write(path: Path, images: list[NDArray[np.uint8]]) -> None:
    rows = [np.concatenate(images[i : i + COLUMNS], 1) for i in range(0, len(images), COLUMNS)]
    cv2.imwrite(str(path), cv2.cvtColor(np.concatenate(rows, 0), cv2.COLOR_RGB2BGR))
