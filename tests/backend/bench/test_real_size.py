"""bench real-size on a small network, and (slow) on the real one."""

from __future__ import annotations

import pytest
import torch
from motionbooth.bench.real_size import (
    bench_real_size,
    busy_plan,
    fill,
    lora_trainer,
    our_steps,
    peak_gb,
    random_base,
    random_step,
    random_text,
)
from motionbooth_lab.bench.midsize import TEXT_WIDTH, midsize_unet


def test_both_steps_are_taken_and_stay_finite() -> None:
    torch.set_num_threads(1)
    base = random_base(fill(midsize_unet()), (8, 12), frames=2)
    latents = our_steps(base, random_step((8, 12), 2, TEXT_WIDTH), [busy_plan((8, 12), 2)])
    assert latents.shape == (1, 4, 2, 8, 12)
    assert latents.isfinite().all()
    trainer = lora_trainer(base, random_text(77, TEXT_WIDTH))
    before = {name: value.clone() for name, value in base.network.named_parameters() if "lora_B" in name}
    losses = trainer.take_step()
    assert losses.total > 0
    assert losses.attention is not None
    assert losses.preservation is not None
    assert any(
        not torch.equal(value, before[name]) for name, value in base.network.named_parameters() if name in before
    )
    assert 0.1 < peak_gb() < 100


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_zeroscopes_size_fits_into_24_gigabytes() -> None:
    assert bench_real_size(24).value("peak_gb") < 24
