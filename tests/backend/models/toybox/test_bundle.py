"""The bundle in the repository is complete, small, and what it says."""

import json
import warnings

import numpy as np
import torch
from diffusers import AutoencoderKL
from motionbooth.models.sources import source_named
from motionbooth_lab.toybox.autoencoder import latents_of_pixels
from motionbooth_lab.toybox.draw import FRAMES, HEIGHT_PX, WIDTH_PX, draw_clip, held_out_combinations, kind_scene

BUNDLE = source_named("toybox").folder


def test_the_whole_bundle_is_below_20_mb_and_its_weights_are_half_precision() -> None:
    assert sum(path.stat().st_size for path in BUNDLE.rglob("*") if path.is_file()) < 20e6
    for path in BUNDLE.rglob("*.safetensors"):
        header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
        kinds = {entry["dtype"] for name, entry in json.loads(header).items() if name != "__metadata__"}
        assert kinds <= {"F16", "I64"}


def test_its_settings_are_those_it_was_drawn_with() -> None:
    settings = source_named("toybox").settings
    assert (settings.width, settings.height, settings.frames) == (WIDTH_PX, HEIGHT_PX, FRAMES)


def test_diffusers_own_pipeline_loads_and_generates_with_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers announces the pipeline's retirement; the layout is what counts
        from diffusers import TextToVideoSDPipeline

        pipeline = TextToVideoSDPipeline.from_pretrained(BUNDLE, torch_dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        size = {"height": HEIGHT_PX, "width": WIDTH_PX, "num_frames": FRAMES}
        frames = pipeline("a red ball on the road", num_inference_steps=1, **size).frames
    assert np.shape(frames) == (1, FRAMES, HEIGHT_PX, WIDTH_PX, 3)


@torch.no_grad()
def test_its_decoder_shows_unseen_clips_at_25_db_or_more() -> None:
    vae = AutoencoderKL.from_pretrained(BUNDLE / "vae", torch_dtype=torch.float32)
    scenes = [kind_scene(*combination) for combination in held_out_combinations()[::8]]
    clips = [draw_clip(scene, np.random.default_rng([99, number])) for number, scene in enumerate(scenes)]
    frames = np.concatenate([clip.frames[:2] for clip in clips])
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1
    decoded = vae.decode(latents_of_pixels(pixels)).sample.clamp(-1, 1)
    error = (decoded - pixels).square().mean()
    assert 10 * torch.log10(4 / error) >= 25


def test_its_provenance_says_how_it_was_made() -> None:
    provenance = json.loads((BUNDLE / "provenance.json").read_text())
    assert {"commands", "seed", "device", "minutes", "samples", "losses", "figures"} <= set(provenance)
    assert sum(provenance["samples"].values()) > 1e6
