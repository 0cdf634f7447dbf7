"""Memory plans of a training: predicted before loading, chosen by the free memory, and the same subject."""

from __future__ import annotations

from pathlib import Path

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
from motionbooth.models.memory import options
from motionbooth.models.memory.estimate import card_bytes, configs_of, decoding_bytes, known_source
from motionbooth.models.memory.moving import bytes_of
from motionbooth.models.memory.options import can_quantize
from motionbooth.models.memory.quantizing import quantize
from motionbooth.models.registry import load_base
from motionbooth.models.settings import TrainSettings
from motionbooth.models.sources import Source
from motionbooth.models.subject_card import SubjectCard
from motionbooth.models.subject_weights import load_subject, save_subject
from motionbooth.models.wan.base import WanBase
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
    *larger, smallest = peaks
    if can_quantize():
        assert smallest == "quantized", "the last resort, because the weights change"
        assert peaks["quantized"] < peaks["half"]
        larger, smallest = larger[:-1], larger[-1]
    assert [*larger, smallest] == ["all", "parked", "checkpointed", "half"]
    assert peaks["half"] < peaks["checkpointed"] < peaks["all"]
    assert chosen_training_plan(wan_source, settings, "lora", 2 * peaks["all"] + 10**9)[0].name == "all"
    with refused(InvalidInput, model=..., needed=..., plan=list(peaks)[-1], free=...):
        chosen_training_plan(wan_source, settings, "lora", min(peaks.values()))


def test_decoding_a_sample_is_part_of_the_prediction(wan_source: Source) -> None:
    """For Wan 1.3B it is 7.9 GB beside the weights, more than a step with gradient checkpointing."""
    settings = replace(wan_source.settings.lora, image_batch=1, prior_preservation="nothing", stca_weight=0)
    settings = replace(settings, gradient_checkpointing=True, clip_frames=33)
    base = WanBase.without_weights(wan_source, configs_of(wan_source), torch.float32)
    weights = bytes_of(base.network) + bytes_of(base.vae)
    decoding = decoding_bytes(base.of_length(settings.clip_frames), tiled=False)
    peaks = {plan.name: peak for plan, peak in training_peaks(wan_source, settings, "lora")}
    assert peaks["parked"] > weights + decoding
    base.tile_vae()
    in_tiles = decoding_bytes(base.of_length(settings.clip_frames), tiled=True)
    assert peaks["checkpointed"] > weights + in_tiles


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


@pytest.mark.skipif(not can_quantize(), reason="pip install 'motionbooth[quantize]'")
@pytest.mark.parametrize("name", ["tiny", "wan"])
def test_a_lora_is_trained_over_weights_in_8_bits(
    name: str, tiny_source: Source, wan_source: Source, tmp_path: Path
) -> None:
    """Its loss falls, nothing else changes, and its file goes onto the exact weights like any other."""
    source = tiny_source if name == "tiny" else wan_source
    plan = training_plan(source, source.settings.lora, "lora", "cpu", "quantized")
    settings = replace(plan.applied_to(source.settings.lora), paste=None, learning_rate=0.02, warmup=0, image_batch=2)
    assert settings.gradient_checkpointing
    base = load_base(source, "cpu", training=True, plan=plan.parts)
    quantize(base.network, base.device)
    base.settings = replace(base.settings, lora=settings)
    embedded = base.embed(["a sks dog"]).float()
    trainer = lora_trainer(base, embedded, (2,))

    def loss() -> float:
        """Of the same pictures, clip, times and noise each time."""
        kept = trainer._generator.get_state()
        trainer._generator.manual_seed(7)
        with torch.no_grad():
            found = sum(each.total.item() for _ in range(2) for each in trainer._losses())
        trainer._generator.set_state(kept)
        return found

    def frozen() -> dict[str, torch.Tensor]:
        fixed = {name: weight for name, weight in base.network.named_parameters() if not weight.requires_grad}
        return {name: getattr(weight, "qdata", weight).clone() for name, weight in fixed.items()}

    first, weights = loss(), frozen()
    assert torch.int8 in {weight.dtype for weight in weights.values()}
    assert all("lora_" in name for name, weight in base.network.named_parameters() if weight.requires_grad)
    for _ in range(5):
        trainer.take_step()
    assert loss() < first
    assert all(torch.equal(weight, weights[name]) for name, weight in frozen().items())
    rank, modules = settings.rank, settings.target_modules
    card = SubjectCard("s", "sks", "dog", "a sks dog", source.name, source.network_sha256, "lora", rank, modules)
    save_subject(tmp_path / "s.safetensors", base, card)
    exact = load_base(source, "cpu")
    before = {name: weight.clone() for name, weight in exact.network.named_parameters()}
    assert load_subject(exact, tmp_path / "s.safetensors") == card
    changed = [name for name, weight in exact.network.named_parameters() if not torch.equal(weight, before[name])]
    assert len(changed) == sum("lora_A" in name for name, _ in base.network.named_parameters())


def test_weights_in_8_bits_are_refused_without_torchao(tiny_source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"pip install 'motionbooth\[quantize\]'"):
        training_plan(tiny_source, tiny_source.settings.lora, "lora", "cpu", "quantized")
    assert "quantized" not in [plan.name for plan in plans_for("lora", tiny_source.settings.lora)]


@pytest.mark.skipif(not can_quantize(), reason="pip install 'motionbooth[quantize]'")
def test_weights_in_8_bits_are_for_a_lora(tiny_source: Source) -> None:
    with refused(InvalidInput, plan="quantized", plans=...):
        training_plan(tiny_source, tiny_source.settings.full, "full", "cpu", "quantized")


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
def test_zeroscopes_training_is_predicted_as_measured_on_an_h200() -> None:
    """docs/bench_gpu_h200.json: 11.31 GB with five pictures, without the text encoder."""
    source = known_source("zeroscope")
    settings = replace(source.settings.lora, image_batch=5)
    _, peak = next(training_peaks(source, settings, "lora"))
    beside = 2 * 340_387_840 + 2 * 83_653_863  # a training has the VAE in float32, the bench in half precision
    assert peak - beside == pytest.approx(11.308e9, rel=0.05)


@pytest.mark.slow
@pytest.mark.skipif(not can_quantize(), reason="pip install 'motionbooth[quantize]'")
def test_wan_14b_is_trained_on_24_gb_in_8_bits_only() -> None:
    source = known_source("wan-14b")
    peaks = {plan.name: peak for plan, peak in training_peaks(source, source.settings.lora, "lora")}
    assert peaks["half"] > card_bytes(24) > peaks["quantized"] == pytest.approx(22.88e9, rel=0.01)
    assert peaks["half"] - peaks["quantized"] > 0.9 * 14e9, "a byte of each weight, less what computing adds"


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
