"""Training from nothing: two processes, three stages, a bundle that diffusers loads; and going on after a stop."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from motionbooth.models.sources import source_named
from motionbooth.models.toybox.ranks import Ranks
from motionbooth.models.toybox.train import Training, TrainPlan
from safetensors.torch import load_file


def tiny_plan(out: Path) -> TrainPlan:
    return TrainPlan(out, 0.02, 0.02, 0.02, 0.02, 10.0, clips=8, pixel_clips=4, processes=1, seed=1)


def test_a_resumed_training_takes_the_very_step_that_an_unbroken_one_takes(tmp_path: Path) -> None:
    unbroken = Training(tiny_plan(tmp_path), Ranks(0, 1))
    stage = unbroken.stage(1)
    unbroken.take_step(stage, 0.1)
    unbroken.take_step(stage, 0.2)
    unbroken.save_state(stage)
    resumed = Training(tiny_plan(tmp_path), Ranks(0, 1))
    resumed_stage = resumed.resumed_stage()
    assert resumed_stage is not None
    unbroken.take_step(stage, 0.3)
    resumed.take_step(resumed_stage, 0.3)
    for one, other in zip(unbroken.denoiser.parameters(), resumed.denoiser.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_training_that_starts_from_a_bundle_has_its_weights_to_half_precision(tmp_path: Path) -> None:
    bundle = source_named("toybox").folder
    training = Training(replace(tiny_plan(tmp_path), start_from=bundle), Ranks(0, 1))
    shipped = load_file(bundle / "unet" / "diffusion_pytorch_model.safetensors")
    for name, weight in training.denoiser.unet.state_dict().items():
        torch.testing.assert_close(weight, shipped[name].float(), rtol=0, atol=0)


@pytest.mark.slow
def test_the_command_trains_all_stages_and_leaves_a_bundle_that_diffusers_loads(tmp_path: Path) -> None:
    minutes = ["--decoder-minutes", "0.05", "--picture-minutes", "0.05", "--clip-minutes", "0.05"]
    minutes += ["--finish-minutes", "0.05"]
    command = [sys.executable, "-m", "motionbooth.models.toybox.train", "--out", str(tmp_path), *minutes]
    subprocess.run([*command, "--clips", "16", "--pixel-clips", "8"], check=True, timeout=280)
    from diffusers import TextToVideoSDPipeline

    pipeline = TextToVideoSDPipeline.from_pretrained(tmp_path / "bundle", torch_dtype=torch.float32)
    assert pipeline.unet.config.in_channels == 4
    assert list((tmp_path / "sheets").glob("clips_*.png"))
    assert all(json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
