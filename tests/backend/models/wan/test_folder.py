"""Wan's folders: what is refused, and the published sizes."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import msgspec
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from motionbooth.models.registry import load_base
from motionbooth.models.settings import BaseSettings
from motionbooth.models.sources import MODELS, Source, source_named, sources
from motionbooth.models.subject_card import SubjectCard
from motionbooth.models.subject_weights import add_lora, load_subject, save_subject
from motionbooth.models.wan.attention import WanBoxProcessor, install_control
from motionbooth_protocol.errors import InvalidInput, NotFound
from refused import refused
from tiny_wan import change_json, transformer
from transformers import UMT5Config, UMT5EncoderModel


@pytest.fixture
def copied(wan_source: Source, tmp_path: Path) -> Source:
    folder = tmp_path / "a folder" / "wan"
    shutil.copytree(wan_source.folder, folder)
    return Source("wan", folder, folder / "motionbooth.json")


@pytest.mark.parametrize("kind", ["WanImageToVideoPipeline", "WanVACEPipeline", "LTXPipeline"])
def test_another_pipeline_is_refused(copied: Source, kind: str) -> None:
    change_json(copied.folder / "model_index.json", _class_name=kind)
    with refused(InvalidInput, found=kind):
        load_base(copied, device="cpu")


def test_the_text_and_image_model_of_wan_22_is_refused(copied: Source) -> None:
    change_json(copied.folder / "model_index.json", expand_timesteps=True)
    with refused(InvalidInput, found="TI2V model"):
        load_base(copied, device="cpu")


@pytest.mark.parametrize("part", ["transformer", "transformer_2"])
def test_a_missing_expert_is_named(wan22_source: Source, tmp_path: Path, part: str) -> None:
    folder = tmp_path / "wan"
    shutil.copytree(wan22_source.folder, folder)
    shutil.rmtree(folder / part)
    with refused(InvalidInput, part=part):
        load_base(Source("wan", folder, folder / "motionbooth.json"), device="cpu")


def test_a_transformer_that_takes_a_picture_is_refused(copied: Source) -> None:
    transformer(in_channels=36).save_pretrained(copied.folder / "transformer")
    with refused(InvalidInput, found=36, expected=16):
        load_base(copied, device="cpu")


@pytest.mark.parametrize(("frames", "lower", "higher"), [(8, 5, 9), (12, 9, 13), (80, 77, 81)])
def test_frames_that_are_not_4k_plus_1_are_refused_with_the_next_ones(
    copied: Source, frames: int, lower: int, higher: int
) -> None:
    change_json(copied.settings_file, frames=frames)
    with refused(InvalidInput, frames=frames, lower=lower, higher=higher):
        load_base(copied, device="cpu")


def test_a_size_that_is_no_multiple_of_16_is_refused(copied: Source) -> None:
    change_json(copied.settings_file, width=72)
    with refused(InvalidInput, width=72, side=16):
        load_base(copied, device="cpu")


def test_a_subject_of_the_other_size_is_refused(wan_source: Source, copied: Source, tmp_path: Path) -> None:
    base = load_base(wan_source, device="cpu")
    add_lora(base.network, 2, r".*attn2\.to_q", seed=0)
    card = SubjectCard("s", "sks", "dog", "a sks dog", "small", wan_source.network_sha256, "lora", 2, r".*attn2\.to_q")
    save_subject(tmp_path / "dog.safetensors", base, card)
    load_subject(load_base(wan_source, device="cpu"), tmp_path / "dog.safetensors")
    transformer(num_layers=3).save_pretrained(copied.folder / "transformer")
    with refused(InvalidInput, subject="s", base="small", model="wan"):
        load_subject(load_base(copied, device="cpu"), tmp_path / "dog.safetensors")


@pytest.mark.parametrize("name", ["wan-1.3b", "wan-14b", "wan2.2-a14b"])
def test_a_published_model_is_known_by_name(
    name: str, copied: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path))
    with refused(NotFound, model=name, place=str(tmp_path / name)):
        source_named(name)
    shutil.copytree(copied.folder, tmp_path / name, ignore=shutil.ignore_patterns("motionbooth.json"))
    info = sources()[name].info
    assert (info.width, info.height, info.frames, info.fps) == (832, 480, 81, 16)
    shutil.rmtree(tmp_path / name / "transformer")  # a download that was interrupted
    assert name not in sources()


def published_shapes(width: int, ffn: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Every parameter of a published transformer, by its configuration."""

    def linear(name: str, into: int, out: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}

    shapes = {
        "scale_shift_table": (1, 2, width),
        "patch_embedding.weight": (width, 16, 1, 2, 2),
        "patch_embedding.bias": (width,),
        **linear("condition_embedder.time_embedder.linear_1", 256, width),
        **linear("condition_embedder.time_embedder.linear_2", width, width),
        **linear("condition_embedder.time_proj", width, 6 * width),
        **linear("condition_embedder.text_embedder.linear_1", 4096, width),
        **linear("condition_embedder.text_embedder.linear_2", width, width),
        **linear("proj_out", width, 16 * 4),
    }
    for number in range(layers):
        block = f"blocks.{number}"
        shapes |= {f"{block}.scale_shift_table": (1, 6, width)}
        shapes |= {f"{block}.norm2.weight": (width,), f"{block}.norm2.bias": (width,)}
        shapes |= linear(f"{block}.ffn.net.0.proj", width, ffn) | linear(f"{block}.ffn.net.2", ffn, width)
        for attention in ("attn1", "attn2"):
            for part in ("to_q", "to_k", "to_v", "to_out.0"):
                shapes |= linear(f"{block}.{attention}.{part}", width, width)
            shapes |= {f"{block}.{attention}.norm_{part}.weight": (width,) for part in "qk"}
    return shapes


SIZES = {  # heads of 128, width of the feed-forward layers, layers, parameters in units of 10^9
    "wan-1.3b": (12, 8960, 30, 1.419),
    "wan-14b": (40, 13824, 40, 14.288),
    "wan2.2-a14b": (40, 13824, 40, 14.288),  # each of its two
}


@pytest.mark.parametrize("name", SIZES)
def test_full_size_has_every_parameter_of_the_published_network_and_is_controlled_and_trained(name: str) -> None:
    heads, ffn, layers, billions = SIZES[name]
    with torch.device("meta"):
        network = WanTransformer3DModel(num_attention_heads=heads, text_dim=4096, ffn_dim=ffn, num_layers=layers)
    shapes = {key: tuple(value.shape) for key, value in network.named_parameters()}
    assert shapes == published_shapes(heads * 128, ffn, layers)
    assert sum(map(math.prod, shapes.values())) / 1e9 == pytest.approx(billions, abs=5e-4)
    install_control(network)
    controlled = [key for key, kind in network.attn_processors.items() if isinstance(kind, WanBoxProcessor)]
    assert controlled == [f"blocks.{number}.attn2.processor" for number in range(layers)]
    targets = re.compile(BaseSettings.read(MODELS / f"{name}.json").lora.target_modules)
    assert sum(targets.fullmatch(key) is not None for key, _ in network.named_modules()) == 8 * layers


def count(build: Any) -> float:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters()) / 1e9


def test_the_other_parts_have_the_published_sizes() -> None:
    umt5 = UMT5Config(
        vocab_size=256384,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        feed_forward_proj="gated-gelu",
    )
    assert count(lambda: UMT5EncoderModel(umt5)) == pytest.approx(5.68, abs=5e-3)
    assert count(AutoencoderKLWan) == pytest.approx(0.127, abs=5e-4)


@pytest.mark.parametrize("name", SIZES)
def test_settings_are_those_of_a_dit(name: str) -> None:
    settings = BaseSettings.read(MODELS / f"{name}.json")
    assert settings.control.suppress == "subject"
    assert settings.control.windows == "noise"
    assert settings.control.shared_noise >= 0.9
    assert (settings.frames - 1) % 4 == 0
    assert settings.width % 16 == settings.height % 16 == 0
    assert msgspec.json.decode(msgspec.json.encode(settings), type=BaseSettings) == settings
