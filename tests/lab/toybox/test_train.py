"""Training of toybox: resuming, starting from a bundle, and the bundle that it writes."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from motionbooth_lab.toybox.train import SHIPPED, Stage, Training, TrainPlan, start_files
from safetensors.torch import load_file


def tiny_plan(out: Path) -> TrainPlan:
    return TrainPlan(
        out, (0.02,) * 4, 10.0, pictures=2, clips=1, characters=1, toys=2, textures=1, seed=1, device="cpu"
    )


def take_step(training: Training, stage: Stage, share: float) -> None:
    training.take_step(stage, stage.prepare(training.draws(training.steps)), share)


@pytest.mark.parametrize("index", [1, 2])
def test_a_resumed_training_takes_the_same_step_as_an_uninterrupted_one(tmp_path: Path, index: int) -> None:
    uninterrupted = Training(tiny_plan(tmp_path))
    stage = uninterrupted.stage(index)
    for _ in range(2):
        take_step(uninterrupted, stage, 0.1)
    uninterrupted.save_state(stage)
    resumed = Training(tiny_plan(tmp_path))
    resumed_stage = resumed.resumed_stage()
    assert resumed_stage is not None
    take_step(uninterrupted, stage, 0.3)
    take_step(resumed, resumed_stage, 0.3)
    for one, other in zip(uninterrupted.denoiser.parameters(), resumed.denoiser.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_training_that_starts_from_a_bundle_has_its_weights_to_half_precision(tmp_path: Path) -> None:
    bundle, own_words = start_files(SHIPPED)
    words = load_file(own_words)["words"]
    # The bank of the shipped model has 64 kinds, 200 toys and 800 characters; here flat toys stand for all of these.
    plan = replace(tiny_plan(tmp_path), characters=0, toys=len(words) - 64, start_from=SHIPPED)
    training = Training(plan)
    shipped = load_file(bundle / "unet" / "diffusion_pytorch_model.safetensors")
    for name, weight in training.denoiser.unet.state_dict().items():
        torch.testing.assert_close(weight, shipped[name].float(), rtol=0, atol=0)
    embedding = training.denoiser.text_encoder.get_input_embeddings().weight
    torch.testing.assert_close(embedding[-len(words) :].detach(), words.float(), rtol=0, atol=0)


def test_a_training_starts_from_what_an_earlier_one_wrote(tmp_path: Path) -> None:
    first = Training(tiny_plan(tmp_path / "first"))
    first.keep(first.stage(0))
    second = Training(replace(tiny_plan(tmp_path / "second"), seed=2, start_from=tmp_path / "first"))
    for one, other in zip(first.denoiser.unet.parameters(), second.denoiser.unet.parameters(), strict=True):
        torch.testing.assert_close(one.half().float(), other, rtol=0, atol=0)
    words = load_file(tmp_path / "first" / "own_words.safetensors")["words"]
    embedding = second.denoiser.text_encoder.get_input_embeddings()
    torch.testing.assert_close(embedding.weight[-len(words) :].detach(), words.float(), rtol=0, atol=0)


@pytest.mark.slow
def test_the_command_trains_all_stages_and_leaves_a_bundle_that_diffusers_loads(tmp_path: Path) -> None:
    minutes = ["--decoder-minutes", "0.05", "--picture-minutes", "0.05", "--clip-minutes", "0.05"]
    minutes += ["--finish-minutes", "0.05", "--pictures", "2", "--clips", "1"]
    bank = ["--characters", "30", "--toys", "4", "--textures", "1"]
    command = [sys.executable, "-m", "motionbooth_lab.toybox.train", "--out", str(tmp_path), *minutes, *bank]
    subprocess.run(command, check=True, timeout=290)
    from diffusers import TextToVideoSDPipeline

    pipeline = TextToVideoSDPipeline.from_pretrained(tmp_path / "bundle", torch_dtype=torch.float32)
    assert pipeline.unet.config.in_channels == 12
    assert list((tmp_path / "sheets").glob("clips_*.png"))
    assert all(json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
