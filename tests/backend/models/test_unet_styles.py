"""LoRAs of diffusers and kohya as styles of a UNet base and its text encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from motionbooth.models.base import Base
from motionbooth.models.memory.plans import CHUNKED
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source
from motionbooth.models.styles import add_style
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import Style
from peft import LoraConfig
from peft.tuners.lora import LoraModel
from refused import refused
from safetensors.torch import save_file
from torch import Tensor, nn

pytestmark = pytest.mark.numeric

RANK, ALPHA = 2, 1.0
LINEAR = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
CONV = "down_blocks.0.resnets.0.conv1"
TEMPORAL = "down_blocks.0.temp_convs.0.conv1.2"


def text_layer(base: Base) -> str:
    return next(name for name, _ in base.text_encoder.named_modules() if name.endswith("layers.0.mlp.fc1"))


def pairs(base: Base, *names: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Down and up weights, as peft shapes them for each kind of layer."""
    generator = torch.Generator().manual_seed(0)
    found = dict(base.network.named_modules()) | dict(base.text_encoder.named_modules())
    weights = {}
    for name in names:
        shape = found[name].weight.shape
        ones = (1,) * (len(shape) - 2)
        down = torch.randn(RANK, *shape[1:], generator=generator) * 0.3
        weights[name] = down, torch.randn(shape[0], RANK, *ones, generator=generator) * 0.3
    return weights


def by_peft(part: nn.Module, weights: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Into the part itself, as diffusers loads them."""
    adapted = LoraModel(part, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(weights)), "default")
    modules = dict(part.named_modules())
    with torch.no_grad():
        for name, (down, up) in weights.items():
            modules[name].lora_A["default"].weight.copy_(down)
            modules[name].lora_B["default"].weight.copy_(up)
    adapted.merge_and_unload()


def state_of(weights: dict[str, tuple[Tensor, Tensor]], layout: str) -> dict[str, Tensor]:
    state = {}
    for name, (down, up) in weights.items():
        is_text = "mlp.fc1" in name
        full = f"text_model.{name.removeprefix('text_model.')}" if is_text else name
        if layout == "kohya":
            stem = ("lora_te_" if is_text else "lora_unet_") + full.replace(".", "_")
            ends = ".lora_down.weight", ".lora_up.weight"
        else:
            stem = ("text_encoder." if is_text else "unet.") + full
            ends = ".lora_A.weight", ".lora_B.weight"
        state |= {stem + ends[0]: down, stem + ends[1]: up, f"{stem}.alpha": torch.tensor(ALPHA)}
    return state


def answer(base: Base) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return base.network(torch.randn(1, 4, 2, 8, 8, generator=generator), 300, base.embed(["a sks dog"])).sample


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_a_style_acts_as_with_peft_in_every_kind_of_layer(tiny_single: Base, tmp_path: Path, layout: str) -> None:
    names = LINEAR, CONV, TEMPORAL, text_layer(tiny_single)
    weights = pairs(tiny_single, *names)
    save_file(state_of(weights, layout), tmp_path / "style")
    before = answer(tiny_single)
    add_style(tiny_single, tmp_path / "style", Style("0" * 64))
    styled = answer(tiny_single)
    add_style(tiny_single, tmp_path / "style", Style("0" * 64, strength=-1.0))
    by_peft(tiny_single.text_encoder, {names[3]: weights[names[3]]})
    text_only = answer(tiny_single)
    by_peft(tiny_single.network, {name: weights[name] for name in names[:3]})
    expected = answer(tiny_single)
    assert (text_only - before).abs().max() > 1e-3
    assert (expected - text_only).abs().max() > 1e-3
    # The same float32 products in another order.
    torch.testing.assert_close(styled, expected, rtol=1e-3, atol=1e-4)


def test_a_style_acts_on_a_prompt_that_was_embedded_before(tiny_source: Source, tmp_path: Path) -> None:
    """Embeddings are kept where the text encoder is not on the device, and a style changes the text encoder."""
    base = load_base(tiny_source, "cpu", plan=CHUNKED)
    save_file(state_of(pairs(base, text_layer(base)), "kohya"), tmp_path / "style")
    before = base.embed(["a dog"])
    add_style(base, tmp_path / "style", Style("0" * 64))
    fresh = load_base(tiny_source, "cpu", plan=CHUNKED)
    add_style(fresh, tmp_path / "style", Style("0" * 64))
    assert torch.equal(base.embed(["a dog"]), fresh.embed(["a dog"]))
    assert not torch.equal(base.embed(["a dog"]), before)


@pytest.mark.parametrize(
    "change",
    [
        lambda key, value: {key: torch.ones(3)},
        lambda key, value: {key: value, key.replace("lora_down.weight", "alpha"): torch.ones(3)},
        lambda key, value: {key: value[:0], key.replace("down", "up"): torch.ones(32, 0)},
    ],
)
def test_a_malformed_lora_is_refused(tiny_single: Base, tmp_path: Path, change: Any) -> None:
    state = state_of(pairs(tiny_single, LINEAR), "kohya")
    key = next(name for name in state if "lora_down" in name)
    save_file({**state, **change(key, state[key])}, tmp_path / "style")
    with refused(InvalidInput, path="style", model=...):
        add_style(tiny_single, tmp_path / "style", Style("0" * 64))


@pytest.mark.parametrize("adapter", ["[]", "{", '{"unet.lora_alpha": {}}', '{"unet.lora_alpha": "2"}'])
def test_a_malformed_header_of_a_lora_is_refused(tiny_single: Base, tmp_path: Path, adapter: str) -> None:
    state = state_of(pairs(tiny_single, LINEAR), "diffusers")
    state = {name: value for name, value in state.items() if not name.endswith("alpha")}
    save_file(state, tmp_path / "style", {"lora_adapter_metadata": adapter})
    with refused(InvalidInput, code="not_a_lora", path="style"):
        add_style(tiny_single, tmp_path / "style", Style("0" * 64))


def test_the_header_has_an_alpha_for_each_part(tiny_single: Base, tmp_path: Path) -> None:
    """As diffusers writes it for a LoRA of two parts; their ranks are those of the weights."""
    names = LINEAR, text_layer(tiny_single)
    plain = state_of(pairs(tiny_single, *names), "diffusers")
    scaled = {name: value for name, value in plain.items() if not name.endswith("alpha")}
    adapter = '{"unet.r": 99, "unet.lora_alpha": 1, "text_encoder.r": 99, "text_encoder.lora_alpha": 4.0}'
    save_file(scaled, tmp_path / "scaled", {"lora_adapter_metadata": adapter})
    by_layer = {name: torch.tensor(4.0) if name.startswith("text") and name.endswith("alpha") else value
                for name, value in plain.items()}  # fmt: skip
    save_file(by_layer, tmp_path / "by_layer")
    fresh = load_base(tiny_single.source, "cpu")
    add_style(tiny_single, tmp_path / "scaled", Style("0" * 64))
    add_style(fresh, tmp_path / "by_layer", Style("0" * 64))
    assert torch.equal(answer(tiny_single), answer(fresh))


def test_a_layer_of_another_size_is_refused(tiny_single: Base, tmp_path: Path) -> None:
    for number, (down, up) in enumerate([((2, 3, 3, 3), (2, 2, 1, 1)), ((3, 2, 3, 3), (2, 2, 1, 1))]):
        state = {"lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight": torch.ones(down)}
        state["lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight"] = torch.ones(up)
        save_file(state, tmp_path / f"{number}")
        with refused(InvalidInput, path=str(number)):
            add_style(tiny_single, tmp_path / f"{number}", Style("0" * 64))


@pytest.mark.parametrize("other", ["dora_scale", "lora_mid.weight", "hada_w1_a", "lokr_w1"])
def test_another_kind_of_adapter_is_refused_and_not_added_in_part(
    tiny_single: Base, tmp_path: Path, other: str
) -> None:
    state = state_of(pairs(tiny_single, LINEAR), "kohya")
    stem = next(iter(state)).partition(".")[0]
    save_file({**state, f"{stem}.{other}": torch.ones(1)}, tmp_path / "style")
    before = answer(tiny_single)
    with refused(InvalidInput, path="style"):
        add_style(tiny_single, tmp_path / "style", Style("0" * 64))
    assert torch.equal(answer(tiny_single), before)
