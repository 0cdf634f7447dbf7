"""The analytic encoder computes what its definition says."""

import numpy as np
import pytest
import torch
from motionbooth_lab.toybox.autoencoder import (
    build_autoencoder,
    latent_coverage,
    latents_of_frames,
    latents_of_pixels,
    linear_inverse,
)
from motionbooth_lab.toybox.draw import draw_clip, kind_scene

pytestmark = pytest.mark.numeric


def test_the_encoder_network_equals_its_definition_even_in_half_precision_weights() -> None:
    frames = draw_clip(kind_scene("car", "orange", "snow"), np.random.default_rng(0)).frames
    autoencoder = build_autoencoder().half().float()
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        posterior = autoencoder.encode(pixels).latent_dist
    np.testing.assert_allclose(posterior.mean.numpy(), latents_of_frames(frames), atol=5e-3)
    assert posterior.std.max() < 1e-5


def test_latents_are_about_standard_normal() -> None:
    clips = [draw_clip(kind_scene("ball", "red", place), np.random.default_rng(1)) for place in ("sea", "snow", "road")]
    latents = latents_of_frames(np.concatenate([clip.frames for clip in clips]))
    assert latents.shape == (24, 12, 16, 24)
    assert np.abs(latents).max() < 6
    assert 0.1 < latents.std() < 1.6


def test_coverage_is_the_share_of_each_cell() -> None:
    masks = np.zeros((1, 64, 96), np.uint8)
    masks[0, 4:8, 8:10] = 255
    coverage = latent_coverage(masks)
    assert coverage.shape == (1, 16, 24)
    assert coverage[0, 1, 2] == pytest.approx(0.5, abs=1 / 255)
    assert np.count_nonzero(coverage) == 1


def test_the_linear_inverse_keeps_what_the_channels_hold() -> None:
    smooth = torch.linspace(-0.8, 0.8, 32)[None, None, None, :].expand(1, 3, 16, 32)
    grey = linear_inverse(latents_of_pixels(smooth))
    assert (grey - smooth).abs().max() < 0.01  # a slope within a cell is nearly the first cosine
    frames = draw_clip(kind_scene("house", "red", "snow"), np.random.default_rng(2)).frames[:1]
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1
    error = (linear_inverse(latents_of_pixels(pixels)) - pixels).square().mean()
    assert 10 * torch.log10(4 / error) > 24
    again = latents_of_pixels(linear_inverse(latents_of_pixels(pixels)))
    torch.testing.assert_close(again, latents_of_pixels(pixels), atol=1e-4, rtol=0)
