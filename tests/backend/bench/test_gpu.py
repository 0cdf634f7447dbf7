"""bench gpu: its parts on the bundled models, and what it says without a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from motionbooth.bench.gpu import PARTS, bench_gpu, psnr, short_training
from motionbooth.cli.app import app
from motionbooth_protocol.errors import InvalidInput
from typer.testing import CliRunner


@pytest.mark.slow
@pytest.mark.parametrize("name", ["toybox", "wantoy"])
def test_a_short_training_learns_and_a_resumed_one_ends_the_same(name: str) -> None:
    torch.set_num_threads(1)
    ratio, distance = short_training(name, "cpu", "float32")
    assert ratio < 1
    assert distance == 0.0


def test_a_clip_differs_from_a_noisy_one_by_the_noise() -> None:
    clip = np.random.default_rng(1).integers(20, 236, (8, 64, 96, 3)).astype(np.uint8)
    assert psnr(clip, clip) == 100.0
    noisy = clip.astype(float) + np.random.default_rng(0).normal(0, 2.55, clip.shape)
    assert psnr(noisy, clip) == pytest.approx(40.0, abs=0.1)  # 147,456 numbers: off by 0.02 dB


def test_an_unknown_part_and_a_missing_gpu_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="no part speed"):
        bench_gpu(["speed"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(app, ["bench", "gpu"])
    assert result.exit_code == 2
    assert "needs a GPU" in result.output


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_each_part_runs_on_a_gpu(part: str) -> None:
    measures = bench_gpu([part]).measures
    assert len(measures) > 1
    assert all(np.isfinite(measure.value) for measure in measures)
