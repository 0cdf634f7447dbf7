"""Wan's base against diffusers' own pipeline, on tiny random checkpoints in the published layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from motionbooth.generation.sampling import SamplingInputs, denoise, generate_clip, plan_shot
from motionbooth.models.registry import load_base
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from tiny_wan import save_wan

PROMPT = "a sks dog running on the grass"


def spec(camera: CameraPath | None = None, **changes: object) -> GenerateSpec:
    boxes: list[Box | None] = [Box(0.1 + 0.05 * f, 0.2, 0.5 + 0.05 * f, 0.7) for f in range(9)]
    track = SubjectTrack("dog", "dog", boxes, token="sks")
    shot = Shot("s", 1, 24, 24, 64, 48, camera or CameraPath.still(9), [track])
    return GenerateSpec(shot, PROMPT, model="tinywan", negative_prompt="snow", **changes)


@pytest.mark.parametrize("sampler", ["euler", "unipc"])
@pytest.mark.parametrize("experts", [1, 2])
def test_a_plain_clip_is_that_of_diffusers_own_pipeline_to_the_last_bit(
    tmp_path: Path, sampler: str, experts: int
) -> None:
    source = save_wan(tmp_path / "model", sampler, experts)
    base = load_base(source, device="cpu")
    plain = spec(box_control=False, camera_control=False, seed=5, num_inference_steps=6)
    pipeline = WanPipeline.from_pretrained(source.folder)
    pipeline.set_progress_bar_config(disable=True)
    arguments = {
        "negative_prompt": "snow",
        "width": 64,
        "height": 48,
        "num_frames": 9,
        "num_inference_steps": 6,
        "guidance_scale": base.settings.guidance_scale,
        "max_sequence_length": base.settings.max_sequence_length,
    }
    expected = pipeline(PROMPT, generator=torch.Generator().manual_seed(5), output_type="latent", **arguments).frames
    inputs = SamplingInputs.from_prompts(base, [PROMPT], ["snow"], [5], plan_shot(base, plain))
    latents = denoise(base, inputs)
    assert torch.equal(latents, expected)
    frames = pipeline(PROMPT, generator=torch.Generator().manual_seed(5), output_type="np", **arguments).frames[0]
    assert np.array_equal(generate_clip(base, plain).numpy(), (frames * 255).round().astype(np.uint8))
