"""bench sampling: without control both loops compute the same, and the baseline is diffusers' own loop."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from motionbooth.bench.diffusers_loops import unet_steps
from motionbooth.bench.real_size import GUIDANCE, Step, busy_plan, our_steps
from motionbooth.control.plan import StepPlan
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source
from motionbooth_lab.bench.memory import peak_bytes
from motionbooth_lab.bench.midsize import FRAMES
from motionbooth_lab.bench.sampling import alternate

pytestmark = pytest.mark.numeric


@pytest.fixture
def tiny_single() -> Base:
    """The tiny base of the golden values in float32."""
    folder = Path(__file__).parents[2] / "golden" / "tiny_pipeline"
    return load_base(Source("tiny", folder, folder / "motionbooth.json"), device="cpu")


@pytest.fixture
def step() -> Step:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 4, 16, 24, generator=generator)
    return Step(latents, *torch.randn(2, 1, 77, 32, generator=generator))


def test_the_baseline_is_the_stock_pipelines_loop_bit_for_bit(tiny_single: Base, step: Step) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in diffusers
        from diffusers import TextToVideoSDPipeline

        pipeline = TextToVideoSDPipeline.from_pretrained(tiny_single.source.folder)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        prompt_embeds=step.conditional,
        negative_prompt_embeds=step.unconditional,
        latents=step.latents,
        num_inference_steps=2,
        guidance_scale=GUIDANCE,
        output_type="latent",
    ).frames
    assert torch.equal(unet_steps(pipeline.unet, pipeline.scheduler, step, 2), expected)


def test_our_loop_without_control_equals_the_baseline(tiny_single: Base, step: Step) -> None:
    ours = our_steps(tiny_single, step, [StepPlan(), StepPlan()])
    theirs = unet_steps(tiny_single.network, tiny_single.scheduler, step, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_in_the_measured_step_boxes_and_camera_act() -> None:
    plan = busy_plan((16, 24), FRAMES)
    assert plan.boxes is not None
    assert plan.boxes.amplify
    assert any(dx for dx, _ in plan.moves)
    assert any(dy for _, dy in plan.moves)


def test_every_function_is_timed_in_every_round() -> None:
    calls: list[str] = []
    seconds = alternate({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3)  # type: ignore[misc]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"


def test_peak_memory_counts_what_is_held_at_once() -> None:
    def two_after_each_other() -> None:
        torch.zeros(1000)
        torch.zeros(1000)

    def two_at_once() -> None:
        _held = torch.zeros(1000), torch.zeros(1000)

    assert 4000 <= peak_bytes(two_after_each_other) < 4500
    assert 8000 <= peak_bytes(two_at_once) < 8500
