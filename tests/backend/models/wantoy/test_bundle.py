"""wantoy's bundle in the repository is complete, small, and what it says."""

import json

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanPipeline
from motionbooth.models.registry import load_base
from motionbooth.models.sources import source_named
from motionbooth.models.wan.base import WanBase
from motionbooth_lab.toybox.draw import HEIGHT_PX, WANTOY, WIDTH_PX, draw_clip, held_out_combinations, kind_scene
from motionbooth_lab.wantoy.codec import latent_scale, latents_of_clips

BUNDLE = source_named("wantoy").folder


def test_the_whole_bundle_is_below_20_mb_and_its_weights_are_half_precision() -> None:
    assert sum(path.stat().st_size for path in BUNDLE.rglob("*") if path.is_file()) < 20e6
    for path in BUNDLE.rglob("*.safetensors"):
        header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
        assert {entry["dtype"] for name, entry in json.loads(header).items() if name != "__metadata__"} == {"F16"}


def test_its_settings_are_those_it_was_trained_with() -> None:
    settings = source_named("wantoy").settings
    assert (settings.width, settings.height, settings.frames) == (WIDTH_PX, HEIGHT_PX, WANTOY.frames)
    assert settings.fps == WANTOY.fps


def test_diffusers_own_pipeline_loads_and_generates_with_it() -> None:
    pipeline = WanPipeline.from_pretrained(BUNDLE).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    length = source_named("wantoy").settings.max_sequence_length
    size = {"height": HEIGHT_PX, "width": WIDTH_PX, "num_frames": WANTOY.frames, "max_sequence_length": length}
    frames = pipeline("a red ball on the road", num_inference_steps=2, **size).frames
    assert np.shape(frames) == (1, WANTOY.frames, HEIGHT_PX, WIDTH_PX, 3)


def test_the_product_loads_it_as_a_wan_model() -> None:
    base = load_base(source_named("wantoy"))
    assert isinstance(base, WanBase)
    assert base.latent_shape == (24, 3, 16, 24)


@torch.no_grad()
def test_its_decoder_shows_unseen_clips_at_26_db_or_more() -> None:
    vae = AutoencoderKLWan.from_pretrained(BUNDLE / "vae")
    scenes = [kind_scene(*combination) for combination in held_out_combinations()[::8]]
    clips = [draw_clip(scene, np.random.default_rng([99, n]), clip_format=WANTOY) for n, scene in enumerate(scenes)]
    pixels = torch.from_numpy(np.stack([clip.frames for clip in clips])).permute(0, 1, 4, 2, 3) / 127.5 - 1
    mean, deviation = latent_scale(vae)
    decoded = vae.decode(latents_of_clips(pixels, mean, deviation) * deviation + mean).sample.transpose(1, 2)
    error = (decoded - pixels).square().mean()
    assert 10 * torch.log10(4 / error) >= 26


def test_its_provenance_says_how_it_was_made() -> None:
    provenance = json.loads((BUNDLE / "provenance.json").read_text())
    assert {"commands", "seed", "device", "minutes", "samples", "losses", "figures"} <= set(provenance)
    assert sum(provenance["samples"].values()) > 1e4
