"""bench training --model wan, on a small network."""

from __future__ import annotations

import pytest
from motionbooth_lab.bench.training_wan import bench_training_wan

SMALL = {"num_attention_heads": 2, "attention_head_dim": 12, "text_dim": 16, "ffn_dim": 32, "num_layers": 3}


@pytest.mark.slow
def test_it_compares_our_step_with_the_plain_network_and_a_lora_with_full_fine_tuning() -> None:
    result = bench_training_wan(1, (4, 8), SMALL)
    assert result.value("iteration_ratio") > 1  # the attention loss and the optimizer cost something
    assert 0 < result.value("lora_memory") < result.value("full_memory")
