"""The analytic encoder equals its definition."""

import numpy as np
import pytest
import torch
from motionbooth_lab.toybox.autoencoder import (
    build_autoencoder,
    latents_of_pixels,
    linear_inverse,
)
from motionbooth_lab.toybox.draw import Clip, draw_clip, kind_scene

pytestmark = pytest.mark.numeric


def pixels_of(clip: Clip) -> torch.Tensor:
    """(F, 3, H, W) in -1..1."""
    return torch.from_numpy(clip.frames).permute(0, 3, 1, 2) / 127.5 - 1


def test_the_encoder_network_equals_its_definition_even_in_half_precision_weights() -> None:
    pixels = pixels_of(draw_clip(kind_scene("car", "orange", "snow"), np.random.default_rng(0)))
    autoencoder = build_autoencoder().half().float()
    with torch.no_grad():
        posterior = autoencoder.encode(pixels).latent_dist
    torch.testing.assert_close(posterior.mean, latents_of_pixels(pixels), atol=5e-3, rtol=0)
    assert posterior.std.max() < 1e-5


def test_latents_are_about_standard_normal() -> None:
    clips = [draw_clip(kind_scene("ball", "red", place), np.random.default_rng(1)) for place in ("sea", "snow", "road")]
    latents = latents_of_pixels(torch.cat([pixels_of(clip) for clip in clips]))
    assert latents.shape == (24, 12, 16, 24)
    assert latents.abs().max() < 6
    assert 0.1 < latents.std() < 1.6


def test_the_linear_inverse_keeps_what_the_channels_hold() -> None:
    smooth = torch.linspace(-0.8, 0.8, 32)[None, None, None, :].expand(1, 3, 16, 32)
    grey = linear_inverse(latents_of_pixels(smooth))
    assert (grey - smooth).abs().max() < 0.01  # a slope within a cell is nearly the first cosine
    pixels = pixels_of(draw_clip(kind_scene("house", "red", "snow"), np.random.default_rng(2)))[:1]
    error = (linear_inverse(latents_of_pixels(pixels)) - pixels).square().mean()
    assert 10 * torch.log10(4 / error) > 24
    again = latents_of_pixels(linear_inverse(latents_of_pixels(pixels)))
    torch.testing.assert_close(again, latents_of_pixels(pixels), atol=1e-4, rtol=0)
