"""LoRAs of other programs as a style, beside a subject."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline
from motionbooth.generation.sampling import generate_clip
from motionbooth.jobs.model_cache import ModelCache
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source
from motionbooth.models.styles import add_style
from motionbooth.models.subject_card import SubjectCard
from motionbooth.models.subject_weights import add_lora, save_subject
from motionbooth.server.specs import affinity_key, input_files
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec, Style
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from refused import refused
from safetensors.torch import save_file
from torch import Tensor, nn

pytestmark = pytest.mark.numeric

LAYERS = {  # ours, and the names in Wan's own code
    "blocks.0.attn1.to_q": "blocks.0.self_attn.q",
    "blocks.1.attn2.to_out.0": "blocks.1.cross_attn.o",
    "blocks.1.ffn.net.0.proj": "blocks.1.ffn.0",
}
ALPHA, RANK = 1.0, 2


def pairs(base: Base) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    modules = dict(base.network.named_modules())

    def pair(layer: nn.Linear) -> tuple[Tensor, Tensor]:
        down = torch.randn(RANK, layer.in_features, generator=generator)
        return down, torch.randn(layer.out_features, RANK, generator=generator)

    return {name: pair(modules[name]) for name in LAYERS}


def written(base: Base, path: Path, layout: str) -> Path:
    state: dict[str, Tensor] = {}
    for ours, (down, up) in pairs(base).items():
        wan = LAYERS[ours]
        if layout == "diffusers":
            state |= {f"transformer.{ours}.lora_A.weight": down, f"transformer.{ours}.lora_B.weight": up}
        elif layout == "wan":
            state |= {f"diffusion_model.{wan}.lora_A.weight": down, f"diffusion_model.{wan}.lora_B.weight": up}
            state[f"diffusion_model.{wan}.alpha"] = torch.tensor(ALPHA)
        else:
            stem = "lora_unet_" + wan.replace(".", "_")
            state |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
            state[f"{stem}.alpha"] = torch.tensor(ALPHA)
    adapter = {"transformer.r": RANK, "transformer.lora_alpha": ALPHA, "transformer.target_modules": list(LAYERS)}
    metadata = {"lora_adapter_metadata": json.dumps(adapter)} if layout == "diffusers" else None
    save_file(state, path, metadata)
    return path


def prediction(transformer: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    sample, text = torch.randn(1, 16, 3, 6, 8, generator=generator), torch.randn(1, 24, 32, generator=generator)
    with torch.no_grad():
        return transformer(sample, torch.tensor([700.0]), text, return_dict=False)[0]


@pytest.fixture(scope="module")
def expected(wan_source: Source, tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """As diffusers' own pipeline loads it, from its own layout."""
    folder = tmp_path_factory.mktemp("style")
    written(load_base(wan_source, device="cpu"), folder / "style.safetensors", "diffusers")
    pipeline = WanPipeline.from_pretrained(wan_source.folder)
    pipeline.load_lora_weights(str(folder), weight_name="style.safetensors")
    return prediction(pipeline.transformer)


@pytest.mark.parametrize("layout", ["diffusers", "wan", "kohya"])
def test_each_layout_acts_as_in_diffusers(wan: Base, tmp_path: Path, expected: Tensor, layout: str) -> None:
    before = prediction(wan.network)
    path = written(wan, tmp_path / "style", layout)
    add_style(wan, path, Style("0" * 64))
    # The same float32 products in another order: some units in the last place, through two layers.
    tolerance = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(prediction(wan.network), expected, rtol=0, atol=tolerance)
    assert (expected - before).abs().max() > 100 * tolerance
    add_style(wan, path, Style("0" * 64, strength=-1.0))
    torch.testing.assert_close(prediction(wan.network), before, rtol=0, atol=tolerance)


def test_both_experts_get_it(wan22_source: Source, wan: Base, tmp_path: Path) -> None:
    base = load_base(wan22_source, device="cpu")
    parts = (base.network.transformer, base.network.transformer_2)
    before = [prediction(part) for part in parts]
    add_style(base, written(wan, tmp_path / "style", "kohya"), Style("0" * 64))
    assert not any(torch.equal(prediction(part), one) for part, one in zip(parts, before, strict=True))


def test_another_models_lora_and_other_files_are_refused(wan: Base, tmp_path: Path) -> None:
    name = "diffusion_model.blocks.0.self_attn.q"
    larger = {f"{name}.lora_A.weight": torch.ones(2, 40), f"{name}.lora_B.weight": torch.ones(40, 2)}
    deeper = {f"{key.replace('blocks.0', 'blocks.7')}": value for key, value in larger.items()}
    for number, state in enumerate([larger, deeper, {"x": torch.ones(1)}]):
        save_file(state, tmp_path / f"{number}")
        with refused(InvalidInput, path=str(number), model="Tiny Wan"):
            add_style(wan, tmp_path / f"{number}", Style("0" * 64))
    (tmp_path / "text").write_text("no LoRA")
    save_file({f"{name}.lora_A.weight": torch.ones(2, 24)}, tmp_path / "half")
    for path in (tmp_path / "text", tmp_path / "half", tmp_path / "missing"):
        with refused(InvalidInput, code="not_a_lora", path=path.name):
            add_style(wan, path, Style("0" * 64))


def test_a_style_acts_beside_a_subject_and_is_gone_in_the_next_job(
    wan_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tinywan").symlink_to(wan_source.folder)
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path / "models"))
    base = load_base(wan_source, device="cpu")
    subject, style = Path("a" * 64), Path("b" * 64)
    written(base, tmp_path / style, "wan")
    add_lora(base.network, 2, r".*attn2\.to_q", seed=0)
    with torch.no_grad():
        for name, parameter in base.network.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.5)
    card = SubjectCard("s", "sks", "dog", "a sks dog", "x", wan_source.network_sha256, "lora", 2, r".*attn2\.to_q")
    save_subject(tmp_path / subject, base, card)

    def spec(weights: str | None, *styles: Style) -> GenerateSpec:
        track = SubjectTrack("dog", "dog", [Box(0.1, 0.2, 0.6, 0.8)] * 9, token="sks", weights=weights)
        shot = Shot("s", 1, 9, 16, 64, 48, CameraPath.still(9), [track])
        return GenerateSpec(shot, "a sks dog", model="tinywan", num_inference_steps=1, styles=list(styles))

    both = spec(str(subject), Style(str(style), 0.5))
    assert input_files(both) == {str(subject), str(style)}
    assert affinity_key(both) != affinity_key(spec(str(subject)))
    jobs = [spec(None), spec(str(subject)), both, spec(str(subject), Style(str(style))), spec(str(subject))]
    cache = ModelCache()
    warm = [generate_clip(cache.get(job, tmp_path.joinpath), job) for job in jobs]
    cold = [generate_clip(ModelCache().get(job, tmp_path.joinpath), job) for job in jobs]
    assert all(torch.equal(*clips) for clips in zip(warm, cold, strict=True))
    assert not any(torch.equal(warm[2], other) for other in (warm[0], warm[1], warm[3]))
