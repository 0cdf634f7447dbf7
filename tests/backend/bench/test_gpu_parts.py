"""The parts of bench gpu, on a CPU and with tiny networks: what runs on a card is the same functions."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from motionbooth.bench.diffusers_loops import wan_steps
from motionbooth.bench.gpu import checkout, networks, precision
from motionbooth.bench.gpu.checkout import bench_tests, control_measures, extent
from motionbooth.bench.gpu.kernels import attention_calls, network_kernels
from motionbooth.bench.gpu.networks import ZEROSCOPE_VAE, Network, bench_network, wan, zeroscope
from motionbooth.bench.gpu.part import Finding, Part, run_part
from motionbooth.bench.gpu.plans import plan_measures
from motionbooth.bench.gpu.precision import (
    PRECISIONS,
    ShortTraining,
    bench_precision,
    clip_measures,
    psnr,
    short_training,
    training_measures,
)
from motionbooth.bench.measures import Measure
from motionbooth.bench.real_size import Step
from motionbooth.models.memory.estimate import Estimate
from motionbooth.models.memory.moving import bytes_of
from motionbooth.models.memory.plans import PLANS
from motionbooth.models.sources import Source, source_named
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import UMT5Config, UMT5EncoderModel

CPU = torch.device("cpu")
UNET: Mapping[str, Any] = {
    "block_out_channels": (8, 8, 8),
    "down_block_types": ("DownBlock3D", "DownBlock3D", "CrossAttnDownBlock3D"),
    "up_block_types": ("CrossAttnUpBlock3D", "UpBlock3D", "UpBlock3D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 16,
    "attention_head_dim": 8,
}
VAE = {**ZEROSCOPE_VAE, "block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "layers_per_block": 1}
WAN = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "text_dim": 32,
    "freq_dim": 32,
    "ffn_dim": 32,
    "num_layers": 3,
    "rope_max_seq_len": 32,
}
WAN_VAE = {
    "base_dim": 3,
    "z_dim": 16,
    "dim_mult": [1, 1, 1, 1],
    "num_res_blocks": 1,
    "temperal_downsample": [False, True, True],
}


def small_zeroscope() -> Network:
    return zeroscope(CPU, (8, 12), 2, torch.bfloat16, VAE, **UNET)


def small_wan() -> Network:
    return wan(CPU, (8, 12), 9, WAN_VAE, WAN)


def figures(findings: Iterable[Finding]) -> dict[str, float]:
    """Every finding must be a figure."""
    found = list(findings)
    assert [each for each in found if isinstance(each, str)] == []
    return {each.name: each.value for each in found if isinstance(each, Measure)}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# Diffusers' loop


def test_diffusers_loop_of_wan_computes_on_the_networks_device() -> None:
    """On a pretended CUDA device: an operation on tensors of two devices raises an error."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        step = Step(torch.randn(1, 16, 3, 8, 12), torch.randn(1, 10, 32), torch.randn(1, 10, 32))
        made = wan_steps(WanTransformer3DModel(**WAN), step, 2)
    assert (made.device.type, made.shape) == ("cuda", step.latents.shape)


# Precision


def test_a_model_is_compared_in_each_precision(wan_source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "STEPS", 4)
    found = figures(bench_precision(CPU, [wan_source]))
    assert found["tinywan_float32_db"] == 100, "the CPU itself"
    for kind in PRECISIONS:
        assert 10 < found[f"tinywan_{kind}_db"] <= 100
        assert 0 < found[f"tinywan_{kind}_loss_ratio"] < 2
        assert found[f"tinywan_{kind}_resume_distance"] == found[f"tinywan_{kind}_repeat_distance"] == 0
    assert max(found["tinywan_float16_db"], found["tinywan_bfloat16_db"]) < 100
    assert found["tinywan_float16_loss_difference"] == 0, "a CPU trains in float32"


def test_a_unets_clips_are_compared(tiny_source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "PRECISIONS", ("float32", "bfloat16"))  # a CPU is slow in float16
    found = figures(clip_measures(tiny_source, CPU))
    assert found["tiny_float32_db"] == 100
    assert 20 < found["tiny_bfloat16_db"] < 100


def test_values_that_are_no_numbers_are_found_and_named(
    wan_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "STEPS", 2)
    shutil.copytree(wan_source.folder, tmp_path / "broken")
    file = tmp_path / "broken" / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["proj_out.bias"][0] = torch.nan
    save_file(weights, file, {"format": "pt"})
    broken = Source("broken", tmp_path / "broken", tmp_path / "broken" / "motionbooth.json")
    result = run_part("precision", Part(lambda device: bench_precision(device, [broken]), ""), CPU)
    assert result.state == "failed"
    assert result.measures == []
    clips, *trainings = result.reasons
    assert clips == "broken's clips: WanTransformer3DModel returned values that are no finite numbers"
    sentence = "The loss is not a number in step 1 of the training. Train again with a lower learning rate."
    assert trainings == [f"a training of broken in {kind}: {sentence}" for kind in PRECISIONS]


@pytest.mark.parametrize(("resumed", "repeated", "failures"), [(0, 0, 0), (1e-3, 0, 3), (1e-3, 1e-3, 0)])
def test_a_training_that_is_not_resumed_exactly_is_a_failure_unless_the_card_never_repeats_one(
    wan_source: Source, monkeypatch: pytest.MonkeyPatch, resumed: float, repeated: float, failures: int
) -> None:
    found = ShortTraining([1.0] * 20, resumed, repeated)
    monkeypatch.setattr(precision, "short_training", lambda *_: found)
    reasons = [each for each in training_measures(wan_source, CPU) if isinstance(each, str)]
    assert len(reasons) == failures
    assert all("ends with other weights if it is resumed" in reason for reason in reasons)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["toybox", "wantoy"])
def test_a_short_training_learns_and_a_resumed_one_ends_the_same(name: str) -> None:
    found = short_training(source_named(name), CPU, "float32")
    assert np.mean(found.losses[-5:]) < np.mean(found.losses[:5])
    assert found.resumed == found.repeated == 0.0


def test_a_clip_differs_from_a_noisy_one_by_the_noise() -> None:
    clip = np.random.default_rng(1).integers(20, 236, (8, 64, 96, 3)).astype(np.uint8)
    assert psnr(clip, clip) == 100.0
    noisy = clip.astype(float) + np.random.default_rng(0).normal(0, 2.55, clip.shape)
    assert psnr(noisy, clip) == pytest.approx(40.0, abs=0.1)  # 147,456 numbers: off by 0.02 dB


# Networks


@pytest.mark.parametrize("create", [small_zeroscope, small_wan])
def test_a_network_generates_and_trains(create: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "SECONDS", 0.0)
    monkeypatch.setattr(networks, "SLOW_STEP", 0.0)
    network = create()
    found = figures(bench_network(network))
    name = network.name
    step, decoding = found[f"{name}_step_seconds"], found[f"{name}_decode_seconds"]
    assert step > 0
    assert found[f"{name}_clips_an_hour"] == pytest.approx(3600 / (50 * step + decoding))
    assert found[f"{name}_training_step_seconds"] > 0
    assert all(np.isfinite(value) for value in found.values())


def test_the_weights_have_the_types_that_diffusers_loads(wan_source: Source) -> None:
    from diffusers import WanTransformer3DModel

    loaded = WanTransformer3DModel.from_pretrained(wan_source.folder / "transformer", torch_dtype=torch.bfloat16)
    ours = small_wan().base.network
    expected = {name: parameter.dtype for name, parameter in loaded.named_parameters() if ".1." not in name}
    found = {name: parameter.dtype for name, parameter in ours.named_parameters()}
    assert {name: found[name] for name in expected} == expected
    assert set(expected.values()) == {torch.bfloat16, torch.float32}


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.8, [4] * 5), (4, [2] * 5), (10, [1] * 4), (30, [1] * 2), (500, [1] * 2)]
)
def test_steps_are_repeated_as_often_as_there_is_time(seconds: float, expected: list[int]) -> None:
    taken: list[int] = []
    assert networks.compared(CPU, {"ours": taken.append}, one_each=seconds).keys() == {"ours"}
    assert taken == expected


@pytest.mark.parametrize("small", [small_zeroscope, small_wan])
def test_every_plan_that_fits_is_predicted_and_carried_out(small: Any) -> None:
    """A CPU counts no peak; that each plan generates is what is seen here."""
    network = small()
    with torch.device("meta"):
        text_encoder = UMT5EncoderModel(UMT5Config(vocab_size=100, d_model=16, d_kv=8, d_ff=16, num_layers=1))
    size = bytes_of(text_encoder)
    predicted = [Estimate(plan, 10**9 * place, 0) for place, plan in zip((5, 4, 2, 1), PLANS, strict=True)]

    def plans(free: int | None) -> dict[str, float]:
        return figures(plan_measures(network.name, network.base, text_encoder, predicted, free))

    names = [f"{network.name}_{plan.name}_predicted_gb" for plan in PLANS]
    assert plans(None) == dict(zip(names, (5, 4, 2, 1), strict=True))
    assert list(plans(3 * 10**9)) == names[2:]
    assert bytes_of(text_encoder) == size


# Kernels


@pytest.mark.parametrize(
    ("create", "layers"),
    [
        (small_zeroscope, {"self": 4, "text": 4, "text_with_bias": 4, "temporal": 10}),
        (small_wan, {"self": 6, "text": 3, "text_with_bias": 3}),  # Wan's unconditional pass has no bias
    ],
)
def test_each_attention_layer_of_a_step_is_found_with_what_computed_it(create: Any, layers: dict[str, int]) -> None:
    network = create()
    before = hooks_of(network)
    found = figures(network_kernels(network))
    assert found.pop(f"{network.name}_bias_ratio") > 0
    assert found == {f"{network.name}_{layer}_flash_for_cpu": count for layer, count in layers.items()}
    assert hooks_of(network) == before


def hooks_of(network: Network) -> list[int]:
    modules = network.base.network.modules()
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules]


def test_another_implementation_is_told_apart() -> None:
    network = small_wan()
    with sdpa_kernel(SDPBackend.MATH):
        calls = attention_calls(network, network.plan)
    assert Counter(call.layer for call in calls) == {"self": 6, "text": 3, "text_with_bias": 3}
    assert {call.implementation for call in calls} == {"math"}


# Tests and control


def test_the_marked_tests_of_a_checkout_are_counted(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(
        "import pytest\n"
        "def test_unmarked(): assert False\n"
        "@pytest.mark.gpu\n@pytest.mark.slow\ndef test_slow(): assert False\n"
        "@pytest.mark.gpu\ndef test_good(): pass\n"
        "@pytest.mark.gpu\ndef test_bad(): assert False\n"
        "@pytest.mark.gpu\ndef test_absent(): pytest.skip('absent')\n"
    )
    *measures, reason = bench_tests(CPU, [tmp_path / "test_some.py"])
    assert figures(measures) == {"tests_passed": 1, "tests_failed": 1, "tests_skipped": 1}
    assert reason == "test_bad failed"


def test_tests_that_cannot_be_run_at_all_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part(lambda device: bench_tests(device, [tmp_path / "none.py"]), "")
    result = run_part("tests", part, CPU)
    assert result.state == "failed"
    assert "none.py" in result.reasons[0]
    monkeypatch.setattr(checkout, "TEST_SECONDS", 0.1)
    assert run_part("tests", part, CPU).reasons == ["The tests were ended after 0.1 s."]


def test_a_wheel_has_neither_tests_nor_control(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "find_spec", lambda name: None)
    for measure in (bench_tests, checkout.bench_control_on):
        result = run_part("part", Part(measure, ""), CPU)
        assert result.state == "skipped"
        assert result.reasons[0].startswith("This part needs a checkout of the repository")


@pytest.mark.parametrize(
    ("setup", "kind", "subject", "expected"),
    [
        (10, 0.1, 1, (32, 10)),
        (20, 1, 20, (32, 2)),
        (20, 4, 20, (20, 0)),
        (500, 60, 900, (2, 0)),
    ],
)
def test_control_is_shortened_to_its_time(setup: float, kind: float, subject: float, expected: tuple[int, int]) -> None:
    *chosen, whole = extent(setup, kind, subject, 100)
    assert tuple(chosen) == expected
    assert whole == setup + 32 * kind + 10 * subject


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_control_is_measured_with_the_kinds_that_there_is_time_for() -> None:
    found = figures(control_measures("toybox", CPU, 1))
    assert found["control_toybox_kinds"] == 2
    assert found["control_toybox_subjects"] == 0
    assert found["control_toybox_whole_seconds"] > 100
    assert 0 < found["control_toybox_iou"] <= 1
