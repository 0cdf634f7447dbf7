"""wantoy's analytic encoder equals its definition, and its decoder starts as an inverse."""

import numpy as np
import pytest
import torch
from motionbooth_lab.toybox.draw import WANTOY, draw_clip, held_out_combinations, kind_scene
from motionbooth_lab.wantoy.codec import CHANNELS, STILL, build_autoencoder, latent_scale, latents_of_clips
from motionbooth_lab.wantoy.start import start_decoder
from torch import Tensor

pytestmark = pytest.mark.numeric


def drawn(numbers: range) -> Tensor:
    """(B, 9, 3, 64, 96) in -1..1."""
    scenes = [kind_scene(*held_out_combinations()[number]) for number in numbers]
    clips = [draw_clip(scene, np.random.default_rng([4, n]), clip_format=WANTOY) for n, scene in enumerate(scenes)]
    return torch.from_numpy(np.stack([clip.frames for clip in clips])).permute(0, 1, 4, 2, 3) / 127.5 - 1


def test_the_encoder_network_equals_its_definition_even_in_half_precision_weights() -> None:
    pixels = drawn(range(2))
    autoencoder = build_autoencoder().half().float()
    mean, deviation = latent_scale(autoencoder)
    with torch.no_grad():
        posterior = autoencoder.encode(pixels.transpose(1, 2)).latent_dist
    latents = latents_of_clips(pixels, mean, deviation)
    assert latents.shape == (2, CHANNELS, 3, 16, 24)
    # The weights, up to 0.5, are rounded to 11 bits, and 192 of them add up: 192 ** 0.5 * 2 ** -12 is 3e-3.
    torch.testing.assert_close((posterior.mean - mean) / deviation, latents, atol=5e-3, rtol=0)
    assert posterior.std.max() < 1e-5


def test_a_still_clip_has_the_same_latents_in_all_frames_and_none_of_motion() -> None:
    pixels = drawn(range(1))[:, :1].expand(-1, 9, -1, -1, -1)
    latents = latents_of_clips(pixels, *latent_scale(build_autoencoder()))
    torch.testing.assert_close(latents[:, :, 1:], latents[:, :, :1].expand(-1, -1, 2, -1, -1), atol=1e-5, rtol=0)
    assert latents[:, STILL:].abs().max() < 1e-5


def test_the_decoder_starts_as_an_inverse_of_25_db_or_more_on_unseen_clips() -> None:
    autoencoder = build_autoencoder()
    start_decoder(autoencoder, drawn(range(0, 40, 2)).flatten(0, 1))
    unseen = drawn(range(1, 16, 4))
    mean, deviation = latent_scale(autoencoder)
    latents = latents_of_clips(unseen, mean, deviation) * deviation + mean
    with torch.no_grad():
        decoded = autoencoder.decode(latents).sample.transpose(1, 2)
    error = (decoded - unseen).square().mean((0, 2, 3, 4))
    assert (10 * torch.log10(4 / error)).min() >= 25
