"""Memory plans: the same clip with less on the device, predicted before loading, chosen by the free memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from motionbooth.bench.gpu.precision import pan_spec
from motionbooth.cli.app import app
from motionbooth.generation.sampling import generate_clip
from motionbooth.models.base import Base
from motionbooth.models.memory.configurations import PUBLISHED
from motionbooth.models.memory.dry_run import peak_of
from motionbooth.models.memory.estimate import card_bytes, chosen_plan, estimates, known_source, needed_bytes
from motionbooth.models.memory.moving import layers_of
from motionbooth.models.memory.options import Computing
from motionbooth.models.memory.plans import ALL, CHUNKED, OFFLOADED, PARKED, PLANS, Plan, smaller_plan
from motionbooth.models.registry import load_base
from motionbooth.models.sources import MODELS, Source
from motionbooth.models.subject_weights import add_lora
from motionbooth_protocol.errors import InvalidInput
from msgspec.structs import replace
from refused import refused, refused_by_command
from torch import Tensor
from typer.testing import CliRunner


def clip(base: Base) -> Tensor:
    return generate_clip(base, replace(pan_spec(base.settings), num_inference_steps=2)).int()


@pytest.mark.parametrize("name", ["tiny", "wan"])
def test_every_plan_makes_the_same_controlled_clip(name: str, tiny_source: Source, wan22_source: Source) -> None:
    """Weights that come and go change nothing; passes in turn and tiles round differently."""
    source = tiny_source if name == "tiny" else wan22_source
    clips = {plan: clip(load_base(source, "cpu", plan=plan)) for plan in PLANS}
    assert torch.equal(clips[PARKED], clips[ALL])
    assert torch.equal(clips[OFFLOADED], clips[CHUNKED])
    assert (clips[CHUNKED] - clips[ALL]).abs().max() <= 1  # of 255; a rounding
    uncontrolled = generate_clip(
        load_base(source, "cpu", plan=OFFLOADED),
        replace(pan_spec(source.settings), num_inference_steps=2, box_control=False),
    )
    assert not torch.equal(uncontrolled.int(), clips[OFFLOADED]), "the boxes act on layers that come and go"


def test_weights_are_in_main_memory_except_while_they_work(tiny_source: Source) -> None:
    base = load_base(tiny_source, "cpu", plan=OFFLOADED)
    seen: list[int] = []
    layer = next(layer for layer in layers_of(base.network) if isinstance(layer, ResnetBlock2D))
    before = layer.get_parameter("norm1.weight").data_ptr()
    layer.register_forward_pre_hook(lambda *_: seen.append(layer.get_parameter("norm1.weight").data_ptr()))
    inner = layer.get_submodule("norm1")
    inner.register_forward_pre_hook(lambda module, _: seen.append(module.weight.data_ptr()))
    clip(base)
    assert before in seen
    assert len(set(seen)) > 1, "a copy computed"
    assert layer.get_parameter("norm1.weight").data_ptr() == before


def test_a_lora_that_is_added_to_visiting_layers_acts(tiny_source: Source) -> None:
    def with_lora(plan: Plan) -> Tensor:
        base = load_base(tiny_source, "cpu", plan=plan)
        add_lora(base.network, 4, base.settings.lora.target_modules, seed=0)
        with torch.no_grad():
            for name, parameter in base.network.named_parameters():
                if "lora_B" in name:
                    parameter.fill_(0.05)
        return clip(base)

    changed = with_lora(OFFLOADED)
    assert torch.equal(changed, with_lora(CHUNKED))
    assert not torch.equal(changed, clip(load_base(tiny_source, "cpu", plan=OFFLOADED)))


def test_the_text_encoder_runs_once_for_each_prompt(tiny_source: Source) -> None:
    base = load_base(tiny_source, "cpu", plan=PARKED)
    calls: list[int] = []
    base.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    first = base.embed(["a dog", "a dog"])
    assert torch.equal(base.of_length(2).embed(["a dog"]), first[:1])
    assert len(calls) == 1
    base.embed(["a cat"])
    assert len(calls) == 2


@pytest.mark.parametrize("name", ["tiny", "wan"])
def test_smaller_plans_need_less_and_the_first_that_fits_is_chosen(
    name: str, tiny_source: Source, wan22_source: Source
) -> None:
    source = tiny_source if name == "tiny" else wan22_source
    found = list(estimates(source))
    assert [estimate.plan for estimate in found] == list(PLANS)
    assert sorted({estimate.resident for estimate in found}, reverse=True) == [
        found[0].resident,
        found[1].resident,  # without the text encoder, as chunked
        found[3].resident,
    ]
    assert chosen_plan(source, None).plan == ALL
    assert chosen_plan(source, found[0].peak * 2 + 10**9).plan == ALL
    with refused(InvalidInput, model=source.settings.title, needed=..., plan="offloaded", free=...):
        chosen_plan(source, found[-1].peak)


def test_the_published_sizes_are_known_before_the_download() -> None:
    assert set(PUBLISHED) == {path.stem for path in MODELS.glob("*.json")}
    everything = next(estimates(known_source("zeroscope")))
    assert everything.resident == pytest.approx(2 * (1_411_233_860 + 83_653_863 + 340_387_840), abs=1000)  # + positions


@pytest.mark.parametrize("name", ["zeroscope", pytest.param("wan-1.3b", marks=pytest.mark.slow)])
def test_a_plan_that_is_predicted_to_fit_fitted_an_h200(name: str) -> None:
    found = json.loads((Path(__file__).parents[4] / "docs" / "bench_gpu_h200.json").read_text())["parts"][name][
        "measures"
    ]
    measured = {each["name"]: each["value"] * 1e9 for each in found}
    for estimate in estimates(known_source(name), plans=[plan for plan in PLANS if not plan.quantized]):
        peak = measured[f"{name.replace('-', '_').replace('.', '_')}_{estimate.plan.name}_peak_gb"]
        assert 0.8 * estimate.peak < peak < needed_bytes(estimate.peak)


def test_check_says_in_one_line_how_a_model_fits_a_card() -> None:
    run = CliRunner().invoke(app, ["models", "check", "toybox", "--vram", "12"])
    assert run.output.count("\n") == 1
    assert "12 GB" in run.output
    assert "memory plan all" in run.output


def test_a_guide_is_encoded_in_the_memory_of_a_few_frames(tiny_source: Source) -> None:
    """Zeroscope's 24 frames would take 5.7 GB in half precision, twice as much as a step, and no plan counts them."""
    base = load_base(tiny_source, "meta")

    def encoding(frames: int) -> int:
        pixels = torch.zeros(frames, 3, 128, 192, dtype=base.dtype, device="meta")
        with torch.no_grad():
            return peak_of(lambda: base.long_encode(pixels))

    assert encoding(24) < 2 * encoding(1)


@pytest.mark.parametrize("size", ["0", "nan", "inf", "1e300"])
def test_no_card_has_such_a_size(size: str) -> None:
    run = CliRunner().invoke(app, ["models", "check", "toybox", "--vram", size])
    assert run.exit_code == 2
    assert "--vram" in run.output


@pytest.mark.parametrize(("old", "new", "value"), [
    ("UNet3DConditionModel", "UNet2DConditionModel", {"found": "UNet2DConditionModel", "part": "unet"}),
    ('"unet"', '"transformer"', {"found": ...}),
])  # fmt: skip
def test_a_model_of_another_kind_is_refused_before_its_size_is_asked(
    tiny_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, value: dict[str, Any]
) -> None:
    shutil.copytree(tiny_source.folder, tmp_path / "tiny")
    index = tmp_path / "tiny" / "model_index.json"
    index.write_text(index.read_text().replace(old, new))
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path))
    refused_by_command(["models", "check", "tiny", "--vram", "12"], InvalidInput, folder=..., **value)


def test_a_card_is_smaller_than_its_label() -> None:
    assert 12e9 < card_bytes(12) < 12 * 2**30


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_plans_end(device: str) -> None:
    plan: Plan | None = ALL
    seen = []
    while plan is not None:
        seen.append(plan)
        plan = smaller_plan(plan, device)
    assert seen == ([ALL, CHUNKED] if device == "cpu" else list(PLANS))


def test_options_travel_in_the_environment() -> None:
    chosen = Computing("cpu", "chunked", "bfloat16", compile=True)
    assert Computing.of_this_machine(chosen.environment) == chosen
    assert Computing().environment == {}
    with refused(InvalidInput, problem=...):
        Computing.of_this_machine({"MOTIONBOOTH_MEMORY": "little"})


def test_what_is_not_installed_is_refused_in_a_sentence() -> None:
    with refused(InvalidInput, kind="sage", package="sageattention"):
        Computing(attention="sage").check()
    with refused(InvalidInput, code="exclusive", plan="offloaded"):
        Computing(memory="offloaded", compile=True).check()
