"""Training of wantoy: a resumed one equals an uninterrupted one, and it learns."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from motionbooth_lab.toybox.bank import Bank, build_bank
from motionbooth_lab.wantoy.decoder import started_autoencoder
from motionbooth_lab.wantoy.network import FRAMES
from motionbooth_lab.wantoy.train import Training


@pytest.fixture(scope="module")
def bank() -> Bank:
    return build_bank(characters=0, toys=2, textures=1, seed=1)


def take_step(training: Training, frames: int, seed: int) -> float:
    batch = training.batches.draw(2, frames, np.random.default_rng(seed))
    return training.training.step(batch, 1e-3)["loss"]


def test_a_resumed_training_takes_the_same_step_as_an_uninterrupted_one(tmp_path: Path, bank: Bank) -> None:
    uninterrupted = Training(tmp_path, (1.0, 1.0), bank, seed=1, compiled=False)
    take_step(uninterrupted, 1, seed=1)
    uninterrupted.keep()
    resumed = Training(tmp_path, (1.0, 1.0), bank, seed=2, compiled=False)
    assert take_step(uninterrupted, FRAMES, seed=2) == take_step(resumed, FRAMES, seed=2)
    pairs = zip(uninterrupted.training.average.parameters(), resumed.training.average.parameters(), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    saved = WanTransformer3DModel.from_pretrained(tmp_path / "bundle" / "transformer")
    assert sum(each.numel() for each in saved.parameters()) > 1e6


def test_steps_on_one_batch_lower_its_loss(tmp_path: Path, bank: Bank) -> None:
    training = Training(tmp_path, (1.0, 1.0), bank, seed=1, compiled=False)
    losses = [take_step(training, 1, seed=1) for _ in range(6)]
    assert losses[-1] < 0.9 * losses[0]


def test_the_linear_decoder_is_the_same_each_time(bank: Bank) -> None:
    one, other = (started_autoencoder(bank, seed=1).decoder.up_blocks[1].upsamplers[0] for _ in range(2))
    torch.testing.assert_close(one.resample[1].weight, other.resample[1].weight, rtol=0, atol=0)
