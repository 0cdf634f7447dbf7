"""Training of wantoy: a resumed one equals an uninterrupted one, and it learns."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from motionbooth_lab.toybox.bank import Bank, build_bank
from motionbooth_lab.wantoy.decoder import started_autoencoder
from motionbooth_lab.wantoy.network import FRAMES
from motionbooth_lab.wantoy.train import Drawing, Plan, Training
from torch.utils.data import DataLoader


@pytest.fixture(scope="module")
def bank() -> Bank:
    return build_bank(characters=0, toys=2, textures=1, seed=1)


def plan(out: Path, seed: int = 1, processes: int = 1) -> Plan:
    return Plan(out, (1.0, 1.0), pictures=2, clips=1, seed=seed, processes=processes, compiled=False)


def take_step(training: Training, frames: int, seed: int) -> float:
    batch = training.batches.compose(training.scripts.draw(2, frames, np.random.default_rng(seed)))
    return float(training.training.step(batch, 1e-3)["loss"])


def test_any_number_of_processes_draws_the_same_batches_in_the_same_order(tmp_path: Path, bank: Bank) -> None:
    training = Training(plan(tmp_path), bank)

    def drawn(processes: int) -> list[torch.Tensor]:
        drawing = Drawing(training.scripts, training.batches, training.plan, as_clips=True, start=5)
        batches = itertools.islice(DataLoader(drawing, None, num_workers=processes), 5)
        return [batch.latents for batch in batches]

    for one, other in zip(drawn(1), drawn(2), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_processes_draw_the_same_bank() -> None:
    one, other = (build_bank(1, 1, 1, seed=1, processes=processes) for processes in (1, 2))
    assert one.entries == other.entries
    torch.testing.assert_close(one.sprites, other.sprites, rtol=0, atol=0)
    torch.testing.assert_close(one.textures, other.textures, rtol=0, atol=0)


def test_a_resumed_training_takes_the_same_step_as_an_uninterrupted_one(tmp_path: Path, bank: Bank) -> None:
    uninterrupted = Training(plan(tmp_path), bank)
    take_step(uninterrupted, 1, seed=1)
    uninterrupted.keep()
    resumed = Training(plan(tmp_path, seed=2), bank)
    assert take_step(uninterrupted, FRAMES, seed=2) == take_step(resumed, FRAMES, seed=2)
    pairs = zip(uninterrupted.training.average.parameters(), resumed.training.average.parameters(), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    saved = WanTransformer3DModel.from_pretrained(tmp_path / "bundle" / "transformer")
    assert sum(each.numel() for each in saved.parameters()) > 1e6


def test_steps_on_one_batch_lower_its_loss(tmp_path: Path, bank: Bank) -> None:
    training = Training(plan(tmp_path), bank)
    losses = [take_step(training, 1, seed=1) for _ in range(6)]
    assert losses[-1] < 0.9 * losses[0]


def test_the_linear_decoder_is_the_same_each_time(bank: Bank) -> None:
    one, other = (started_autoencoder(bank, seed=1, frames=40).decoder.up_blocks[1].upsamplers[0] for _ in range(2))
    torch.testing.assert_close(one.resample[1].weight, other.resample[1].weight, rtol=0, atol=0)
