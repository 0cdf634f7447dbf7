"""A subject's file: what is in it, and that it brings back what was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet3DConditionModel
from diffusers.loaders import PeftAdapterMixin
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source
from motionbooth.models.subject_card import SubjectCard, read_card
from motionbooth.models.subject_weights import add_lora, load_subject, save_subject
from motionbooth_protocol.errors import InvalidInput
from msgspec.structs import replace
from refused import refused
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

pytestmark = pytest.mark.numeric


def card_for(base: Base, method: str) -> SubjectCard:
    settings = base.settings.lora
    return SubjectCard(
        "Rex",
        "sks",
        "dog",
        "a sks dog",
        "tiny",
        base.source.network_sha256,
        method,
        settings.rank,
        settings.target_modules,
    )


def learned(base: Base, method: str) -> nn.Module:
    """The UNet as if something had been trained, in steps that float16 holds."""
    if method == "lora":
        add_lora(base.network, base.settings.lora.rank, base.settings.lora.target_modules, seed=0)
    with torch.no_grad():
        for name, parameter in base.network.named_parameters():
            if method == "full" or "lora_B" in name:
                parameter.add_(0.25).copy_(parameter.half())
            elif "lora_A" in name:
                parameter.copy_(parameter.half())
    return base.network


def answer(unet: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    sample, text = torch.randn(1, 4, 2, 8, 8, generator=generator), torch.randn(1, 77, 32, generator=generator)
    with torch.no_grad():
        return unet(sample, 300, text).sample


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_loaded_subject_answers_as_the_trained_one(tiny_single: Base, tmp_path: Path, method: str) -> None:
    before = answer(tiny_single.network)
    unet = learned(tiny_single, method)
    save_subject(tmp_path / "s.safetensors", tiny_single, card_for(tiny_single, method))
    fresh = load_base(tiny_single.source, device="cpu")
    card = load_subject(fresh, tmp_path / "s.safetensors")
    assert card == card_for(tiny_single, method) == read_card(tmp_path / "s.safetensors")
    torch.testing.assert_close(answer(fresh.network), answer(unet), rtol=1e-3, atol=1e-3)
    assert (answer(fresh.network) - before).abs().max() > 0.05
    assert not any("lora" in name for name, _ in fresh.network.named_modules())


def test_a_lora_file_has_the_layout_of_diffusers(tiny_single: Base, tmp_path: Path) -> None:
    learned(tiny_single, "lora")
    save_subject(tmp_path / "s.safetensors", tiny_single, card_for(tiny_single, "lora"))
    with safe_open(tmp_path / "s.safetensors", framework="pt") as file:
        names = list(file.keys())
        adapter = json.loads(file.metadata()["lora_adapter_metadata"])
        assert all(file.get_tensor(name).dtype == torch.float16 for name in names)
    assert "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight" in names
    assert all(name.startswith("unet.") and name.endswith((".lora_A.weight", ".lora_B.weight")) for name in names)
    assert adapter["unet.r"] == adapter["unet.lora_alpha"] == 4


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_header_says_what_kohyas_tools_and_modelspec_expect(tiny_single: Base, tmp_path: Path, method: str) -> None:
    learned(tiny_single, method)
    save_subject(tmp_path / "s.safetensors", tiny_single, card_for(tiny_single, method))
    with safe_open(tmp_path / "s.safetensors", framework="np") as file:
        metadata = file.metadata()
    assert metadata["ss_base_model_version"] == "tiny"
    assert (metadata.get("ss_network_dim"), metadata.get("ss_network_alpha")) == (
        ("4", "4") if method == "lora" else (None, None)
    )
    spec = {name.removeprefix("modelspec."): value for name, value in metadata.items() if name.startswith("modelspec.")}
    assert spec == {
        "sai_model_spec": "1.0.1",
        "architecture": "tiny/lora" if method == "lora" else "tiny",
        "implementation": "diffusers",
        "title": "Rex",
        "resolution": "192x128",
        "trigger_phrase": "sks dog",
    }


def plain_pipeline(folder: Path) -> Any:
    """diffusers' own, with the part that it lacks: its 3-D UNet alone among UNets was never given the LoRA loader."""
    import diffusers

    parts = {"unet": UNet3DConditionModel.from_pretrained(folder / "unet")}
    parts["unet"].__class__ = type("UNetWithLora", (UNet3DConditionModel, PeftAdapterMixin), {})
    base = load_base(Source("tiny", folder, folder / "motionbooth.json"), device="cpu")
    return diffusers.TextToVideoSDPipeline(
        base.vae, base.text_encoder, base.tokenizer, **parts, scheduler=base.scheduler
    )


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_lora_file_is_loaded_by_a_plain_diffusers_pipeline(tiny_single: Base, tmp_path: Path) -> None:
    unet = learned(tiny_single, "lora")
    save_subject(tmp_path / "s.safetensors", tiny_single, card_for(tiny_single, "lora"))
    pipeline = plain_pipeline(tiny_single.source.folder)
    assert (answer(pipeline.unet) - answer(unet)).abs().max() > 0.05
    pipeline.load_lora_weights(str(tmp_path), weight_name="s.safetensors")
    torch.testing.assert_close(answer(pipeline.unet), answer(unet), rtol=1e-3, atol=1e-3)


def test_a_full_file_is_the_state_of_a_plain_unet(tiny_single: Base, tmp_path: Path) -> None:
    unet = learned(tiny_single, "full")
    save_subject(tmp_path / "s.safetensors", tiny_single, card_for(tiny_single, "full"))
    plain = UNet3DConditionModel.from_pretrained(tiny_single.source.folder / "unet").eval()
    plain.load_state_dict(load_file(tmp_path / "s.safetensors"), strict=True)
    torch.testing.assert_close(answer(plain), answer(unet), rtol=1e-3, atol=1e-3)


def test_untrained_lora_layers_change_nothing(tiny_single: Base) -> None:
    before = answer(tiny_single.network)
    add_lora(tiny_single.network, 4, tiny_single.settings.lora.target_modules, seed=0)
    assert torch.equal(answer(tiny_single.network), before)


def test_the_same_subject_is_written_as_the_same_bytes(tiny_single: Base, tmp_path: Path) -> None:
    learned(tiny_single, "lora")
    for name in "ab":
        save_subject(tmp_path / name, tiny_single, card_for(tiny_single, "lora"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("content", [b"", b"{}", b"\x08" + b"\0" * 7 + b'{"a": 1}'])
def test_any_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    with refused(InvalidInput, path="s"):
        read_card(tmp_path / "s")


def test_a_regular_expression_in_the_header_of_a_file_is_not_used(tiny_single: Base, tmp_path: Path) -> None:
    """Another user may have written one that never ends."""
    card = replace(card_for(tiny_single, "lora"), target_modules="(([a-z._0-9])+)+!")
    unet = learned(tiny_single, "lora")
    save_subject(tmp_path / "s.safetensors", tiny_single, card)
    fresh = load_base(tiny_single.source, device="cpu")
    assert load_subject(fresh, tmp_path / "s.safetensors") == card
    torch.testing.assert_close(answer(fresh.network), answer(unet), rtol=1e-3, atol=1e-3)


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("mid_block", "no_block"): value for name, value in state.items()}


def of_another_rank(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([value, value]) if "lora_A" in name else value for name, value in state.items()}


def of_another_width(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([value, value], dim=1) if "lora_A" in name else value for name, value in state.items()}


def halved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if "lora_A" in name}


@pytest.mark.parametrize("change", [renamed, of_another_rank, of_another_width, halved])
def test_a_lora_that_does_not_fit_the_model_is_refused(
    tiny_single: Base, tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    path = tmp_path / "s.safetensors"
    learned(tiny_single, "lora")
    save_subject(path, tiny_single, card_for(tiny_single, "lora"))
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(change(load_file(path)), path, metadata)
    with refused(InvalidInput, subject=..., tensor=...):
        load_subject(load_base(tiny_single.source, device="cpu"), path)


@pytest.mark.parametrize("change", [renamed, lambda state: {name: value[:1] for name, value in state.items()}])
def test_full_weights_that_do_not_fit_the_model_are_refused(
    tiny_single: Base, tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    path = tmp_path / "s.safetensors"
    save_subject(path, tiny_single, card_for(tiny_single, "full"))
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(change(load_file(path)), path, metadata)
    with refused(InvalidInput, subject=..., tensor=...):
        load_subject(tiny_single, path)
