"""Training of the autoencoder's decoder, on composed clips and the encoder's latents of them."""

import copy
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from motionbooth_lab.toybox.autoencoder import FACTOR
from motionbooth_lab.toybox.bank import Bank
from motionbooth_lab.toybox.compose import compose
from motionbooth_lab.toybox.scenes import SceneMaker
from motionbooth_lab.toybox.train import Log
from motionbooth_lab.wantoy.batches import CASTING
from motionbooth_lab.wantoy.codec import build_autoencoder, latent_scale, latents_of_clips
from motionbooth_lab.wantoy.network import FRAMES
from motionbooth_lab.wantoy.start import CONSTANTS, start_decoder

DECODER = "decoder.pt"
CLIPS, CROP_CELLS = 2, 12
"""Clips per step, and the side of the square that is cut from each."""

START_FRAMES = 300
RATE, LAST_RATE, KEEP_AVERAGE = 3e-4, 2e-5, 0.99
WARM_UP_STEPS = 100
LATENT_NOISE = 0.03
"""Deviation of noise on the latents, as generated ones are not exact."""

CHECKPOINT_SECONDS = 90.0


def started_autoencoder(bank: Bank, seed: int, frames: int = START_FRAMES) -> AutoencoderKLWan:
    """The autoencoder with the analytic encoder and the linear decoder, fitted to so many frames."""
    autoencoder = build_autoencoder()
    scenes = SceneMaker(bank, CASTING).draw(frames, 1, np.random.default_rng([seed, 6]))
    start_decoder(autoencoder, compose(scenes, bank).pixels)
    return autoencoder


def train_decoder(out: Path, bank: Bank, budget: float, seed: int) -> None:
    """Train for `budget` seconds; the state is in `out` / DECODER. Resumes from it."""
    torch.manual_seed(seed)
    autoencoder = started_autoencoder(bank, seed)
    decoder, scale = autoencoder.decoder, latent_scale(autoencoder)
    scenes, log = SceneMaker(bank, CASTING), Log(out / "log.jsonl", "decoder")
    average = copy.deepcopy(decoder).requires_grad_(False)
    decoder.conv_out.weight.register_hook(_without_constants)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    step, seconds, saved, started = 0, 0.0, time.monotonic(), time.monotonic()
    before = 0.0
    if (out / DECODER).exists():
        state = torch.load(out / DECODER, weights_only=True)
        decoder.load_state_dict(state["decoder"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, before = state["steps"], state["seconds"]
        seconds = before
    while seconds < budget:
        pixels, latents = _batch(scenes, bank, scale, np.random.default_rng([seed, 5, step]))
        latents = latents + LATENT_NOISE * torch.randn_like(latents)
        rate = LAST_RATE + (RATE - LAST_RATE) * (0.5 + 0.5 * float(np.cos(np.pi * seconds / budget)))
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / WARM_UP_STEPS)
        decoded = autoencoder.decode(latents * scale[1] + scale[0]).sample.transpose(1, 2)
        squared = (decoded - pixels).square().mean()
        (squared + 0.05 * (decoded - pixels).abs().mean()).backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        keep = min(KEEP_AVERAGE, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(average.parameters()), list(decoder.parameters()), 1 - keep)
        now = time.monotonic()
        seconds = before + now - started
        log.add({"db": 10 * float(np.log10(4 / float(squared))), "frames": float(pixels.shape[0] * FRAMES)})
        log.maybe_write(step, seconds)
        if now - saved > CHECKPOINT_SECONDS or seconds >= budget:
            saved = now
            state = {"decoder": decoder.state_dict(), "average": average.state_dict()}
            state |= {"optimizer": optimizer.state_dict(), "steps": step, "seconds": seconds}
            torch.save(state, out / "decoder.partial")
            (out / "decoder.partial").replace(out / DECODER)


def _without_constants(gradient: Tensor) -> Tensor:
    """The last convolution must not start to use the large constant, which would make its steps too large."""
    kept = gradient.clone()
    kept[:, CONSTANTS] = 0
    return kept


@torch.no_grad()
def _batch(
    scenes: SceneMaker, bank: Bank, scale: tuple[Tensor, Tensor], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Pixels (B, F, 3, s, s) and latents of random squares, at multiples of a cell."""
    drawn = compose(scenes.draw(CLIPS, FRAMES, rng), bank).pixels.unflatten(0, (CLIPS, FRAMES))
    rows, columns = drawn.shape[-2] // FACTOR, drawn.shape[-1] // FACTOR
    side = CROP_CELLS * FACTOR
    corners = FACTOR * rng.integers(0, (rows - CROP_CELLS + 1, columns - CROP_CELLS + 1), (CLIPS, 2))
    cut = [clip[..., y : y + side, x : x + side] for clip, (y, x) in zip(drawn, corners, strict=True)]
    pixels = torch.stack(cut)
    return pixels, latents_of_clips(pixels, *scale)
