"""One training step against the authors', and a training that is broken off and resumed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from file_sizes import limited_to
from motionbooth.finetuning.dataset import TrainingData, encode_clips
from motionbooth.finetuning.losses import subject_attention
from motionbooth.finetuning.trainer import (
    StepLosses,
    Trainer,
    autocast,
    clip_loss,
    image_loss,
    learning_rate,
    train,
)
from motionbooth.models.base import Base, NoisyBatch
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source
from motionbooth.models.subject_weights import add_lora
from motionbooth.server.worker import error_for_owner
from motionbooth_protocol.errors import JobFailed, OutOfSpace
from refused import refused
from rounding import BY_TIME_EMBEDDING, assert_equal_but_for_the_time_embedding
from torch import nn

pytestmark = pytest.mark.numeric

Read = Callable[[str], tuple[dict[str, np.ndarray], Any]]
POSITIONS = (2, 3, 4)


def recorded(arrays: dict[str, np.ndarray], base: Base, kind: str) -> tuple[NoisyBatch, torch.Tensor]:
    tensors = {
        name: torch.from_numpy(arrays[f"{kind}/{name}"]) for name in ("model_input", "noise", "timesteps", "text")
    }
    noisy = base.add_noise(tensors["model_input"], tensors["noise"], tensors["timesteps"])
    expected = torch.from_numpy(arrays[f"{kind}/noisy"])
    # The schedule is a product of up to a thousand float32, each rounded by 2**-24: 2**-14 at the most.
    torch.testing.assert_close(noisy.sample, expected, rtol=0, atol=2.0**-14 * float(expected.abs().max()))
    return noisy, tensors["text"]


def masks_of(arrays: dict[str, np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(arrays["masks"]).double()[:, 0]


def test_losses_gradients_and_update_of_one_step_are_the_authors(tiny: Base, golden: Read) -> None:
    arrays, values = golden("train_step")
    settings = tiny.settings.full
    tiny.network.requires_grad_(True)
    noisy, text = recorded(arrays, tiny, "img")
    loss = image_loss(tiny, settings, noisy, text[:1], masks_of(arrays), POSITIONS).total
    assert loss.item() == pytest.approx(values["f64"]["img"]["loss_total"], rel=BY_TIME_EMBEDDING)
    (loss / 2).backward()
    parameters = dict(tiny.network.named_parameters())
    of_image = {
        name: parameter.grad.clone() * 2 for name, parameter in parameters.items() if parameter.grad is not None
    }

    noisy, text = recorded(arrays, tiny, "vid")
    loss = clip_loss(tiny, settings, noisy, text).total
    assert loss.item() == pytest.approx(values["f64"]["vid"]["loss"], rel=BY_TIME_EMBEDDING)
    (loss / 2).backward()

    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=5e-6, eps=1e-8, weight_decay=1e-2)
    norm = nn.utils.clip_grad_norm_(parameters.values(), settings.max_grad_norm)
    assert norm.item() == pytest.approx(values["f64"]["step"]["total_grad_norm_before_clip"], rel=BY_TIME_EMBEDDING)
    optimizer.step()
    for key in [key for key in arrays if key.startswith("grad_img/")]:
        name = key.removeprefix("grad_img/")
        expected = torch.from_numpy(arrays[key])
        assert_equal_but_for_the_time_embedding(of_image[name], expected)
        change = torch.from_numpy(arrays[f"delta/{name}"])
        # AdamW's first step is close to the gradient's sign: where that is near zero, rounding decides.
        assert (parameters[name] - before[name] - change).abs().mean() < 1e-3 * change.abs().mean()


def test_what_a_step_begins_with_and_sees_is_the_authors(tiny: Base, golden: Read) -> None:
    arrays, _ = golden("train_step")
    for kind, rgb in (("img", arrays["img_u8"]), ("vid", arrays["vid_u8"])):
        mean, std = encode_clips(tiny, np.moveaxis(rgb, 1, -1)[:, None])
        for name, found in (("mean", mean), ("std", std)):
            expected = torch.from_numpy(arrays[f"{kind}/posterior_{name}"]).reshape(found.shape)
            torch.testing.assert_close(found / tiny.vae.config.scaling_factor, expected, rtol=0, atol=1e-12)
    text = torch.from_numpy(arrays["img/text"])
    torch.testing.assert_close(tiny.embed(["a sks dog"]), text[:1], rtol=0, atol=1e-12)
    noisy, _ = recorded(arrays, tiny, "img")
    tiny.control.record(POSITIONS, (4, 6))
    with torch.no_grad():
        predicted = tiny.network(noisy.sample, noisy.times, text).sample
    assert_equal_but_for_the_time_embedding(predicted, torch.from_numpy(arrays["img/model_pred"]))
    seen = subject_attention(tiny.control.stop_recording())
    expected = torch.from_numpy(arrays["img/cross_attn"]).reshape(seen.shape)
    assert_equal_but_for_the_time_embedding(seen, expected)


def random_data(base: Base) -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    height, width = 8, 12  # smaller than the base's own: a test of bookkeeping, not of quality
    masks = torch.zeros(3, 1, 64, 96)
    masks[:, :, 20:45, 30:65] = 1
    return TrainingData(
        mean=torch.randn(3, 4, 1, height, width, generator=generator),
        std=torch.full((3, 4, 1, height, width), 0.1),
        masks=masks,
        text=base.embed(["a sks dog"]),
        positions=torch.tensor([POSITIONS]),
        clips=torch.randn(2, 4, 2, height, width, generator=generator),
        clip_text=base.embed(["the grass", "the park"]),
    )


def on_device(data: TrainingData, device: torch.device) -> TrainingData:
    return replace(data, **{k: v.to(device) for k, v in vars(data).items() if isinstance(v, torch.Tensor)})


def lora_weights(base: Base) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in base.network.named_parameters() if parameter.requires_grad}


def ignore(step: int, steps: int, losses: StepLosses) -> None:
    pass


class Power(Exception):
    """The machine was switched off."""


@pytest.mark.parametrize(("method", "ema_decay"), [("lora", 0.0), ("full", 0.0), ("lora", 0.5)])
def test_a_training_broken_off_and_resumed_ends_with_the_same_weights(
    tiny_source: Source, tmp_path: Path, method: str, ema_decay: float
) -> None:
    def begin() -> Trainer:
        base = load_base(tiny_source, device="cpu")
        settings = msgspec.structs.replace(base.settings.lora, steps=3, checkpoint_every=1, ema_decay=ema_decay)
        if method == "lora":
            add_lora(base.network, settings.rank, settings.target_modules, seed=7)
        else:
            base.network.requires_grad_(True)
        return Trainer(base, settings, random_data(base), seed=7)

    def switch_off(step: int, steps: int, losses: StepLosses) -> None:
        if step == 2:
            raise Power

    whole, broken, resumed = begin(), begin(), begin()
    train(whole, tmp_path / "unused.pt", ignore)
    with pytest.raises(Power):
        train(broken, tmp_path / "checkpoint.pt", switch_off)
    steps: list[int] = []
    train(resumed, tmp_path / "checkpoint.pt", lambda step, _, __: steps.append(step))
    assert steps == [3]
    assert whole.history == resumed.history
    expected, found = lora_weights(whole.base), lora_weights(resumed.base)
    assert expected
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    with whole.averaged(), resumed.averaged():
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_loss_that_is_no_number_ends_the_training(tiny_source: Source, tmp_path: Path) -> None:
    base = load_base(tiny_source, device="cpu")
    add_lora(base.network, base.settings.lora.rank, base.settings.lora.target_modules, seed=7)
    settings = msgspec.structs.replace(base.settings.lora, steps=9, learning_rate=1e30)
    with refused(JobFailed, step=...):
        train(Trainer(base, settings, random_data(base), seed=7), tmp_path / "checkpoint.pt", ignore)


@pytest.mark.parametrize("size", [100, 20_000])
def test_a_full_disk_is_called_that_and_leaves_the_last_checkpoint(
    tiny_source: Source, tmp_path: Path, size: int
) -> None:
    base = load_base(tiny_source, device="cpu")
    add_lora(base.network, base.settings.lora.rank, base.settings.lora.target_modules, seed=7)
    trainer = Trainer(base, base.settings.lora, random_data(base), seed=7)
    checkpoint = tmp_path / "checkpoint.pt"
    trainer.save(checkpoint)
    with limited_to(size), pytest.raises(OSError, match="File too large") as caught:
        trainer.save(checkpoint)
    assert isinstance(error_for_owner(caught.value), OutOfSpace), "the backend resumes the job when there is space"
    assert list(tmp_path.iterdir()) == [checkpoint]
    assert trainer.load(checkpoint)


def test_a_training_goes_on_with_another_optimizer_than_its_checkpoint_has(tiny_source: Source, tmp_path: Path) -> None:
    """A memory plan that was chosen again has another one, whose moments have other names."""
    base = load_base(tiny_source, device="cpu")
    add_lora(base.network, 4, base.settings.lora.target_modules, seed=0)
    trainer = Trainer(base, base.settings.lora, random_data(base), seed=0)
    trainer.take_step()
    trainer.save(tmp_path / "training.pt")
    state = torch.load(tmp_path / "training.pt", weights_only=True)
    moments = state["optimizer"]["state"]
    state["optimizer"]["state"] = {key: {"step": 1, "state1": value["exp_avg"]} for key, value in moments.items()}
    torch.save(state, tmp_path / "training.pt")
    trained = {name: weights.clone() for name, weights in lora_weights(base).items()}
    resumed = Trainer(base, base.settings.lora, random_data(base), seed=0)
    assert resumed.load(tmp_path / "training.pt")
    assert all(torch.equal(weights, trained[name]) for name, weights in lora_weights(base).items())
    resumed.take_step()
    assert resumed.step == 2


def test_a_checkpoint_is_on_the_disk_before_it_replaces_the_last_one(
    tiny_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = load_base(tiny_source, device="cpu")
    add_lora(base.network, base.settings.lora.rank, base.settings.lora.target_modules, seed=7)
    trainer = Trainer(base, base.settings.lora, random_data(base), seed=7)
    checkpoint = tmp_path / "checkpoint.pt"
    trainer.save(checkpoint)
    before = checkpoint.stat().st_ino

    def fail(descriptor: int) -> None:
        raise OSError("not on the disk")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="not on the disk"):
        trainer.save(checkpoint)
    assert checkpoint.stat().st_ino == before


def test_averaged_weights_are_the_moving_average_of_those_of_the_steps(tiny_source: Source) -> None:
    """The decay rises from 0 to the setting's: (1 + n) / (10 + n) in diffusers."""
    base = load_base(tiny_source, device="cpu")
    add_lora(base.network, rank=2, target_modules=r".*\.to_q", seed=7)
    settings = msgspec.structs.replace(base.settings.lora, steps=4, learning_rate=0.1, ema_decay=0.2)
    trainer = Trainer(base, settings, random_data(base), seed=7)
    expected = {}
    for decay in (0.0, 2 / 11, 0.2, 0.2):
        trainer.take_step()
        for name, weight in lora_weights(base).items():
            expected[name] = decay * expected.get(name, 0) + (1 - decay) * weight.clone()
    last = {name: weight.clone() for name, weight in lora_weights(base).items()}
    with trainer.averaged():
        averaged = {name: weight.clone() for name, weight in lora_weights(base).items()}
    assert all(torch.equal(weight, last[name]) for name, weight in lora_weights(base).items())
    for name, weight in averaged.items():
        torch.testing.assert_close(weight, expected[name])  # the same float32 sums in another order
    assert max((averaged[name] - last[name]).abs().max() for name in last) > 1e-3


def test_a_step_is_clipped_and_decays_as_the_settings_say(tiny_source: Source) -> None:
    def change(**settings: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
        base = load_base(tiny_source, device="cpu")
        chosen = msgspec.structs.replace(base.settings.lora, learning_rate=0.1, **{"weight_decay": 0.0, **settings})
        add_lora(base.network, chosen.rank, chosen.target_modules, seed=0)
        trainer = Trainer(base, chosen, random_data(base), seed=0)
        before = [weight.clone() for weight in lora_weights(base).values()]
        trainer.take_step()
        return list(zip(before, lora_weights(base).values(), strict=True))

    # AdamW divides by the gradient's own size: only one that is clipped far below its eps stands almost still.
    free, clipped, decayed = change(), change(max_grad_norm=1e-14), change(max_grad_norm=1e-14, weight_decay=0.5)
    assert max(float((after - before).abs().max()) for before, after in free) > 0.05
    assert max(float((after - before).abs().max()) for before, after in clipped) < 1e-5
    for before, after in decayed:
        torch.testing.assert_close(after, before * (1 - 0.1 * 0.5), rtol=0, atol=1e-5)


def test_the_learning_rate_rises_stays_and_falls_as_the_settings_say(tiny_single: Base) -> None:
    constant = msgspec.structs.replace(tiny_single.settings.lora, steps=8, learning_rate=0.4)
    assert {learning_rate(constant, step) for step in range(8)} == {0.4}
    settings = msgspec.structs.replace(constant, warmup=2, lr_schedule="cosine")
    rates = [learning_rate(settings, step) for step in range(8)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[4] == pytest.approx(0.2)  # half of the way down
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert 0 < rates[-1] < 0.02


def test_a_step_goes_as_far_as_its_own_learning_rate(tiny_source: Source) -> None:
    def change(**settings: Any) -> float:
        base = load_base(tiny_source, device="cpu")
        chosen = msgspec.structs.replace(base.settings.lora, learning_rate=0.1, weight_decay=0.0, **settings)
        add_lora(base.network, chosen.rank, chosen.target_modules, seed=0)
        trainer = Trainer(base, chosen, random_data(base), seed=0)
        before = [weight.clone() for weight in lora_weights(base).values()]
        trainer.take_step()
        return max(float((b - a).abs().max()) for a, b in zip(before, lora_weights(base).values(), strict=True))

    assert change(warmup=10) == pytest.approx(change() / 10, rel=1e-3)  # AdamW's first step is the rate itself


def test_training_lowers_the_loss_on_the_subject(tiny_single: Base) -> None:
    tiny = tiny_single
    settings = msgspec.structs.replace(tiny.settings.lora, learning_rate=1e-2, rank=8)
    add_lora(tiny.network, settings.rank, settings.target_modules, seed=0)
    trainer = Trainer(tiny, settings, random_data(tiny), seed=0)
    losses = [trainer.take_step().total for _ in range(12)]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_two_accumulated_steps_are_one_of_their_mean_gradient(tiny_source: Source) -> None:
    def trained(accumulate: int) -> Trainer:
        base = load_base(tiny_source, device="cpu")
        base.network.requires_grad_(True)
        settings = msgspec.structs.replace(base.settings.full, gradient_accumulation=accumulate, max_grad_norm=1e9)
        return Trainer(base, settings, random_data(base), seed=3)

    twice, once = trained(2), trained(1)
    gradients: list[list[torch.Tensor]] = []
    once._optimizer.step = lambda: gradients.append(  # type: ignore[assignment]
        [parameter.grad.clone() for parameter in once._trainable.values() if parameter.grad is not None]
    )
    once.take_step(), once.take_step()
    together: list[torch.Tensor] = []
    twice._optimizer.step = lambda: together.extend(  # type: ignore[assignment]
        parameter.grad.clone() for parameter in twice._trainable.values() if parameter.grad is not None
    )
    losses = twice.take_step()
    for summed, first, second in zip(together, *gradients, strict=True):
        torch.testing.assert_close(summed, (first + second) / 2, rtol=1e-4, atol=1e-6)
    assert losses.region == pytest.approx(sum(step.region for step in once.history) / 2, rel=1e-5)


def test_parts_that_are_not_asked_for_have_no_loss(tiny_single: Base) -> None:
    settings = msgspec.structs.replace(tiny_single.settings.lora, stca_weight=0.0, loss_region="picture")
    add_lora(tiny_single.network, settings.rank, settings.target_modules, seed=0)
    data = replace(random_data(tiny_single), clips=torch.zeros(0), clip_text=torch.zeros(0))
    losses = Trainer(tiny_single, settings, data, seed=0).take_step()
    assert losses.attention is None
    assert losses.preservation is None
    assert losses.total == pytest.approx(settings.subject_weight * losses.region / 2)


def test_a_cpu_computes_in_the_weights_own_precision(tiny_single: Base) -> None:
    with autocast(tiny_single, tiny_single.settings.full):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_gpu_trains_float32_weights_in_half_precision(tiny_source: Source, gpu: str, precision: str) -> None:
    base = load_base(tiny_source, device=gpu, dtype=torch.float32)
    settings = msgspec.structs.replace(base.settings.lora, precision=precision, learning_rate=1e-2)
    add_lora(base.network, settings.rank, settings.target_modules, seed=0)
    trainer = Trainer(base, settings, on_device(random_data(base), base.device), seed=0)
    losses = [trainer.take_step().total for _ in range(12)]
    assert all(weight.dtype == torch.float32 for weight in lora_weights(base).values())
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
