"""AnimateDiff as a rival: a tiny one with random weights in the published layout, through the bench's own interface."""

import shlex
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from motionbooth.bench.animatediff import generate, motion_loras
from motionbooth.bench.paper_engines import run_rival
from motionbooth.generation.video import read_clip
from motionbooth.models.sources import TOYBOX
from motionbooth_protocol.errors import MotionBoothError
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import CameraPath, Shot
from peft import LoraConfig, get_peft_model_state_dict
from refused import refused
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

CHANNELS = (16, 32)
PUBLISHED = "diffusion_pytorch_model.safetensors"
"""The name of a motion LoRA's file on the hub."""


def spec(dx: float, dy: float = 0.0) -> GenerateSpec:
    shot = Shot("shot", 1, 4, 8, 64, 32, CameraPath.straight(dx, dy, 4), [])
    return GenerateSpec(shot, "a castle on a hill", num_inference_steps=2)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("animate diff")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        tokenizer = CLIPTokenizer.from_pretrained(TOYBOX / "tokenizer", local_files_only=True)
        text = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=32,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        unet = UNet2DConditionModel(
            block_out_channels=CHANNELS,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=16,
            attention_head_dim=4,
            norm_num_groups=8,
        )
        vae = AutoencoderKL(block_out_channels=(8,) * 4, norm_num_groups=4, **VAE)
        scheduler = DDIMScheduler(steps_offset=1, clip_sample=False)
        base = StableDiffusionPipeline(
            vae, CLIPTextModel(text), tokenizer, unet, scheduler, None, None, requires_safety_checker=False
        )
        base.save_pretrained(folder / "base")
        adapter = MotionAdapter(
            CHANNELS,
            motion_layers_per_block=1,
            motion_num_attention_heads=2,
            motion_norm_num_groups=8,
            motion_max_seq_length=8,
        )
        adapter.save_pretrained(folder / "adapter")
        whole = AnimateDiffPipeline.from_pretrained(folder / "base", motion_adapter=adapter)
        lora = LoraConfig(r=2, target_modules=r".*motion_modules.*\.to_[qkv]", init_lora_weights=False)
        whole.unet.add_adapter(lora)
        for name in ("pan-left", "pan-right", "tilt-up"):
            for key, value in whole.unet.named_parameters():
                if "lora_" in key:
                    torch.nn.init.normal_(value)
            layers = get_peft_model_state_dict(whole.unet)
            AnimateDiffPipeline.save_lora_weights(folder / name, layers, weight_name=PUBLISHED)
    return folder


VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
}


def test_the_direction_is_a_lora_and_the_amount_its_weight(weights: Path) -> None:
    assert motion_loras(CameraPath.straight(0.3, -0.2, 4)) == ["pan-right", "tilt-up"]
    assert motion_loras(CameraPath.straight(-0.3, 0.2, 4)) == ["pan-left", "tilt-down"]
    assert motion_loras(CameraPath.still(4)) == []
    still, none, half, full = (
        generate(weights, amount, each)
        for amount, each in ((1.0, spec(0)), (0.0, spec(0.3)), (0.5, spec(0.3)), (1.0, spec(0.3)))
    )
    assert still.shape == (4, 32, 64, 3)
    assert np.abs(still.astype(int) - none).max() <= 1, "a weight of 0 is no LoRA"
    changes = [np.abs(clip.astype(int) - still).mean() for clip in (half, full)]
    assert 0 < changes[0] < changes[1]
    left = generate(weights, 1.0, spec(-0.3))
    assert not np.array_equal(left, full)
    both = generate(weights, 1.0, spec(0.3, -0.2))
    assert not np.array_equal(both, full)


@pytest.mark.slow
def test_it_runs_as_a_rival_of_the_bench(weights: Path, tmp_path: Path) -> None:
    command = shlex.join([sys.executable, "-m", "motionbooth.bench.animatediff", str(weights), "0.5"])
    run_rival(command, spec(0.3), tmp_path / "clip.mp4")
    frames, fps = read_clip(tmp_path / "clip.mp4")
    assert frames.shape == (4, 32, 64, 3)
    assert fps == 8
    with refused(MotionBoothError, reason=...):
        run_rival(command, spec(0.3, 0.2), tmp_path / "clip.mp4")  # tilt-down is not there


def test_no_more_frames_than_the_motion_adapter_knows(weights: Path) -> None:
    shot = Shot("shot", 1, 12, 8, 64, 32, CameraPath.still(12), [])
    assert len(generate(weights, 1.0, msgspec.structs.replace(spec(0), shot=shot))) == 8
