"""bench sampling --model wan and bench real-size --model wan-1.3b, on a small network."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanTransformer3DModel
from motionbooth.bench.diffusers_loops import wan_steps
from motionbooth.bench.random_wan import (
    PUBLISHED,
    busy_wan_plan,
    controlled_steps,
    random_network,
    random_wan,
    wan_step,
)
from motionbooth.bench.real_size import our_steps
from motionbooth.bench.real_wan import bench_real_wan, training_step
from motionbooth.control.plan import StepPlan

SMALL = {"num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 16, "ffn_dim": 32, "num_layers": 2}


@pytest.mark.numeric
def test_our_loop_without_control_equals_the_baseline_to_the_last_bit() -> None:
    base = random_wan(random_network(**SMALL), (8, 12), frames=9)
    step = wan_step(base)
    ours = our_steps(base, step, [StepPlan(), StepPlan()])
    assert torch.equal(ours, wan_steps(random_network(**SMALL), step, 2))


def test_in_the_measured_step_boxes_and_camera_act_and_it_stays_finite() -> None:
    plan = busy_wan_plan((8, 12), 9)
    assert plan.boxes is not None
    assert plan.boxes.amplify
    assert any(dx for dx, _ in plan.moves)
    base = random_wan(random_network(**SMALL), (8, 12), frames=9)
    latents = controlled_steps(base, 2)
    assert latents.shape == (1, 16, 3, 8, 12)
    assert latents.isfinite().all()


def test_random_weights_change_nothing_that_is_computed() -> None:
    """A rotary embedding is no parameter; on the meta device it would be lost."""
    ours, theirs = random_network(**SMALL), WanTransformer3DModel(**SMALL)
    assert torch.equal(ours.rope.freqs_cos, theirs.rope.freqs_cos)
    assert torch.equal(ours.rope.freqs_sin, theirs.rope.freqs_sin)
    assert {name: value.shape for name, value in ours.named_parameters()} == {
        name: value.shape for name, value in theirs.named_parameters()
    }


def test_the_measured_steps_run_in_bfloat16_with_all_losses_and_change_the_lora() -> None:
    base = random_wan(random_network(torch.bfloat16, **SMALL), (8, 12), frames=9)
    assert controlled_steps(base, 1).isfinite().all()
    losses = training_step(base)
    outputs = {name: value for name, value in base.network.named_parameters() if "lora_B" in name}
    assert losses.total > 0
    assert losses.attention is not None
    assert losses.preservation is not None
    assert outputs
    assert all(value.any() for value in outputs.values())  # they start at zero


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_both_steps_of_wan_13b_fit_into_24_gigabytes() -> None:
    assert PUBLISHED["num_layers"] == 30
    assert bench_real_wan(5).value("peak_gb") < 24
