"""Gradient checkpointing changes memory and nothing else."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.resnet import TemporalConvLayer
from motionbooth.finetuning.gradient_checkpointing import enable_gradient_checkpointing
from motionbooth.finetuning.trainer import NoisyBatch, clip_loss, image_loss
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source
from torch import Tensor

pytestmark = pytest.mark.numeric

POSITIONS = (2, 3, 4)


def losses_and_gradients(base: Base) -> tuple[list[Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    base.network.requires_grad_(True)
    masks = torch.zeros(2, 1, 64, 96)
    masks[:, :, 20:45, 30:65] = 1
    settings, text = base.settings.full, base.embed(["a sks dog"])

    def noisy(*shape: int) -> NoisyBatch:
        sample, target = torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator)
        return NoisyBatch(sample, torch.randint(1000, shape[:1], generator=generator), target)

    losses = []
    for loss in (
        lambda: image_loss(base, settings, noisy(2, 4, 1, 8, 12), text, masks, POSITIONS),
        lambda: clip_loss(base, settings, noisy(1, 4, 3, 8, 12), text),
    ):
        made = loss()
        made.total.backward()
        losses.append(made.total.detach())
    return losses, {name: p.grad for name, p in base.network.named_parameters() if p.grad is not None}


def test_losses_and_gradients_stay_the_same_to_the_last_bit(tiny_source: Source) -> None:
    plain, twice = load_base(tiny_source, device="cpu"), load_base(tiny_source, device="cpu")
    enable_gradient_checkpointing(twice.network, twice.control)
    expected, found = losses_and_gradients(plain), losses_and_gradients(twice)
    assert expected[0] == found[0]
    assert expected[1].keys() == found[1].keys()
    assert all(torch.equal(gradient, found[1][name]) for name, gradient in expected[1].items())


def test_temporal_dropout_stays_off(tiny_single: Base) -> None:
    enable_gradient_checkpointing(tiny_single.network, tiny_single.control)
    tiny_single.network.requires_grad_(True)
    layers = [module for module in tiny_single.network.modules() if isinstance(module, TemporalConvLayer)]
    assert layers
    assert not any(part.training for layer in layers for part in layer.modules())
    sample, text = torch.randn(1, 4, 3, 8, 12), tiny_single.embed(["a dog"])
    assert torch.equal(tiny_single.network(sample, 5, text).sample, tiny_single.network(sample, 5, text).sample)


def test_what_is_held_for_the_backward_pass_is_less(tiny_source: Source) -> None:
    def held(base: Base) -> int:
        base.network.requires_grad_(True)
        saved: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            base.network(torch.randn(1, 4, 4, 16, 24), 5, base.embed(["a dog"]))
        return sum(saved.values())

    plain, twice = load_base(tiny_source, device="cpu"), load_base(tiny_source, device="cpu")
    enable_gradient_checkpointing(twice.network, twice.control)
    assert held(twice) < 0.5 * held(plain)
