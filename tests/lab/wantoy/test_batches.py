"""wantoy's training batches: soft boxes, noise that moves with the camera, and captions' tokens."""

from functools import cache

import numpy as np
import pytest
import torch
from motionbooth.control.boxes import Grid
from motionbooth_lab.toybox.bank import Bank, build_bank
from motionbooth_lab.wantoy.batches import Batch, Batches, Scripts, Words, covered, grouped, rounded
from motionbooth_lab.wantoy.network import FRAMES, TOKENS
from motionbooth_lab.wantoy.tokenizer import build_tokenizer

pytestmark = pytest.mark.numeric

GRID: Grid = TOKENS


@cache
def bank() -> Bank:
    return build_bank(characters=1, toys=3, textures=1, seed=1)


def drawn(seed: int, frames: int = FRAMES) -> Batch:
    scripts = Scripts(bank(), Words(build_tokenizer(), len(bank().entries)))
    return Batches(bank()).compose(scripts.draw(12, frames, np.random.default_rng(seed)))


def test_a_soft_box_has_its_area_and_a_hard_one_whole_tokens() -> None:
    box = torch.tensor([[[0.13, 0.2, 0.58, 0.77]]])
    rows, columns = GRID
    assert float(covered(box).sum()) == pytest.approx(0.45 * columns * 0.57 * rows, rel=1e-5)
    assert set(rounded(box).unique().tolist()) == {0.0, 1.0}
    assert float(rounded(box).sum()) == (7 - 2) * (6 - 2)


def test_frames_are_grouped_as_latent_frames() -> None:
    frames = torch.arange(9.0)[None]
    assert grouped(frames, "mean").tolist() == [[0.0, 2.5, 6.5]]
    assert grouped(frames, "max").tolist() == [[0.0, 4.0, 8.0]]


def test_the_bias_is_on_the_subjects_tokens_alone_and_never_on_all_cells() -> None:
    batch = drawn(3)
    edited = (batch.bias != 0).flatten(1).any(1)
    assert 0 < edited.sum() < 12
    columns = (batch.bias[edited] != 0).any(2)[:, 0]
    assert (columns.sum(1) <= 6).all()  # "<own word> robot", "red and green robot"
    assert not columns[batch.ids[edited] <= 1].any()
    assert not torch.isinf(batch.bias).all(2).any()


def test_the_noise_is_white_and_frames_share_it() -> None:
    noise = torch.cat([drawn(seed).noise for seed in range(4)])
    # 48 clips x 384 cells x 3 frames, which share noise: at least 18,000 independent values in a channel.
    assert noise.std((0, 2, 3, 4)).sub(1).abs().max() < 0.03
    shared = (noise[:, :, 1] * noise[:, :, 2]).mean((1, 2, 3))
    assert shared.max() > 0.7  # a clip with a camera that hardly moves
    assert shared.min() < 0.05


def test_pictures_are_first_frames() -> None:
    batch = drawn(5, frames=1)
    assert batch.latents.shape[2] == 1
    assert batch.latents[:, 12:].abs().max() < 1e-5
