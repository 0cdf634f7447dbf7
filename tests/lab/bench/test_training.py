"""bench training compares like with like, and its memory target also holds at a small size."""

from functools import partial

import pytest
import torch
from motionbooth_lab.bench.memory import peak_bytes
from motionbooth_lab.bench.midsize import FRAMES, midsize_unet
from motionbooth_lab.bench.training import (
    PICTURES,
    forward_and_backward,
    full_trainer,
    in_fresh_process,
    random_batches,
    train_full,
    train_lora,
)

SMALL = (8, 8)


def test_baseline_and_trainer_have_the_same_weights_and_batch_sizes() -> None:
    trainer, plain, batches = full_trainer(SMALL), midsize_unet(), random_batches(SMALL)
    for ours, theirs in zip(trainer.base.network.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert [tuple(sample.shape) for sample in batches.samples] == [(PICTURES, 4, 1, *SMALL), (1, 4, FRAMES, *SMALL)]
    assert trainer.data.mean.shape == batches.samples[0].shape
    assert trainer.data.clips[:1].shape == batches.samples[1].shape
    assert trainer.settings.image_batch >= PICTURES
    assert batches.texts[0].shape[1:] == trainer.data.text.shape[1:]
    forward_and_backward(plain, batches)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in plain.parameters())


@pytest.mark.slow
def test_a_lora_with_gradient_checkpointing_needs_a_fraction_of_the_memory() -> None:
    full, lora = (in_fresh_process(peak_bytes, partial(train, SMALL)) for train in (train_full, train_lora))
    assert lora < 0.5 * full
