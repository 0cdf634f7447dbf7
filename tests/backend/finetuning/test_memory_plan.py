"""Memory plans of a training: predicted before loading, chosen by the free memory, and the same subject."""

from __future__ import annotations

import pytest
import torch
from motionbooth.bench.real_size import lora_trainer, random_text
from motionbooth.finetuning.memory_plan import (
    TRAINING_PLANS,
    chosen_training_plan,
    plans_for,
    training_peaks,
    training_plan,
)
from motionbooth.finetuning.trainer import adamw
from motionbooth.models.memory.estimate import known_source
from motionbooth.models.registry import load_base
from motionbooth.models.settings import TrainSettings
from motionbooth.models.sources import Source
from motionbooth_protocol.errors import InvalidInput
from msgspec.structs import replace
from refused import refused


def named(name: str) -> TrainSettings:
    """Settings under the plan of this name."""
    return next(plan for plan in TRAINING_PLANS if plan.name == name).applied_to(TrainSettings(1, 1e-4, 1, 1))


def test_a_cpu_has_one_plan_which_changes_nothing(tiny_source: Source) -> None:
    settings = tiny_source.settings.lora
    plan = training_plan(tiny_source, settings, "lora", "cpu")
    assert plan.name == "all"
    assert plan.applied_to(settings) == settings


def test_the_first_plan_that_fits_is_chosen_and_none_is_refused(wan_source: Source) -> None:
    settings = replace(wan_source.settings.lora, gradient_checkpointing=False)
    peaks = {plan.name: peak for plan, peak in training_peaks(wan_source, settings, "lora")}
    assert list(peaks) == ["all", "parked", "checkpointed", "half"]
    assert peaks["half"] < peaks["checkpointed"] < peaks["all"]
    assert chosen_training_plan(wan_source, settings, "lora", 2 * peaks["all"] + 10**9)[0].name == "all"
    with refused(InvalidInput, model=..., needed=..., plan="half", free=...):
        chosen_training_plan(wan_source, settings, "lora", peaks["half"])


def test_half_the_weights_learn_about_as_the_whole(tiny_source: Source) -> None:
    """The LoRA and its gradients stay in float32. Losses differ by bfloat16's rounding, 0.4 %, of each layer."""
    losses = {}
    for dtype in (torch.float32, torch.bfloat16):
        base = load_base(tiny_source, "cpu", training=True, network_dtype=dtype)
        base.settings = replace(base.settings, lora=replace(base.settings.lora, paste=None))
        trainer = lora_trainer(base, random_text(base.tokenizer.model_max_length, 32).to(torch.float32), (2,))
        trained = [weight for weight in base.network.parameters() if weight.requires_grad]
        frozen = [weight for weight in base.network.parameters() if not weight.requires_grad]
        assert {weight.dtype for weight in trained} == {torch.float32}
        assert {weight.dtype for weight in frozen} == {dtype}
        assert {weight.dtype for weight in base.vae.parameters()} == {torch.float32}
        with torch.autocast("cpu", torch.bfloat16):  # the trainer itself uses it on a GPU only
            losses[dtype] = trainer.take_step().total
    assert losses[torch.bfloat16] == pytest.approx(losses[torch.float32], rel=0.05)


def test_8_bit_moments_are_for_full_fine_tuning_with_bitsandbytes(tiny_source: Source) -> None:
    settings = tiny_source.settings.full
    assert "8bit" not in [plan.name for plan in plans_for("lora", settings)]
    assert "half" not in [plan.name for plan in plans_for("full", settings)]
    assert named("8bit").optimizer == "adamw8bit"
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        with pytest.raises(InvalidInput, match="bitsandbytes"):
            adamw([torch.nn.Parameter(torch.zeros(2))], named("8bit"))
        with pytest.raises(InvalidInput, match="not possible"):
            training_plan(tiny_source, settings, "full", "cpu", "8bit")


@pytest.mark.slow
def test_zeroscopes_training_is_predicted_as_measured_on_an_h100() -> None:
    """docs/bench_gpu_h100.json: 11.35 GB with five pictures, without text encoder and VAE."""
    source = known_source("zeroscope")
    settings = replace(source.settings.lora, image_batch=5)
    _, peak = next(training_peaks(source, settings, "lora"))
    beside = 2 * 340_387_840 + 4 * 83_653_863
    assert peak - beside == pytest.approx(11.354e9, rel=0.05)


@pytest.mark.gpu
@pytest.mark.parametrize("memory", ["all", "parked", "checkpointed", "half"])
def test_a_training_step_under_each_plan_on_a_gpu(tiny_source: Source, memory: str) -> None:
    settings = replace(tiny_source.settings.lora, paste=None)
    plan = training_plan(tiny_source, settings, "lora", "cuda", memory)
    half = torch.bfloat16 if plan.half else torch.float32
    base = load_base(tiny_source, training=True, plan=plan.parts, network_dtype=half)
    base.settings = replace(base.settings, lora=plan.applied_to(settings))
    base.embed(["a dog"])
    assert lora_trainer(base, random_text(base.tokenizer.model_max_length, 32), (2,)).take_step().total > 0
