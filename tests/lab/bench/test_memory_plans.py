"""bench memory: the prediction and the measurement agree, quickly on toybox and as the bench does it."""

from __future__ import annotations

import pytest
import torch
from motionbooth.models.memory.estimate import estimates
from motionbooth.models.sources import source_named
from motionbooth_lab.bench.memory_plans import bench_memory, measured_peak


def test_two_plans_of_toybox_need_what_is_predicted() -> None:
    """Toybox is so small that the frames of the clip, which are no part of the model, count: within a third."""
    torch.set_num_threads(1)
    source = source_named("toybox")
    found = [each for each in estimates(source, torch.float32) if each.plan.name in ("all", "offloaded")]
    for estimate in found:
        assert estimate.peak / measured_peak(source, estimate.plan) == pytest.approx(1, abs=0.33)
    assert found[1].peak < 0.7 * found[0].peak


@pytest.mark.slow
def test_four_plans_of_a_base_of_medium_size_need_what_is_predicted() -> None:
    result = bench_memory((10, 18))
    assert result.value("memory_plan_error") == pytest.approx(1, abs=0.15)
    assert result.value("offloaded_measured_mb") < 0.5 * result.value("all_measured_mb")
