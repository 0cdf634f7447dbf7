"""Weights in 8 bits: about the same clip, with control, subjects and styles; as much memory as predicted."""

from __future__ import annotations

import gc
import io
import weakref
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from motionbooth.bench.gpu.precision import pan_spec
from motionbooth.generation.sampling import generate_clip
from motionbooth.jobs.model_cache import ModelCache
from motionbooth.models.base import Base
from motionbooth.models.memory import options
from motionbooth.models.memory.estimate import estimates
from motionbooth.models.memory.moving import bytes_of, layers_of
from motionbooth.models.memory.options import Computing
from motionbooth.models.memory.plans import CHUNKED, OFFLOADED, QUANTIZED, plan_named, smaller_plan
from motionbooth.models.memory.quantizing import quantize
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source
from motionbooth.models.subject_card import SubjectCard
from motionbooth.models.subject_weights import add_lora, save_subject
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec, Style
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from msgspec.structs import replace
from refused import refused
from torch import Tensor, nn

NEAR = 30
"""dB. 255 steps round a row's weights by 0.3 / 127 of its largest one, which is about 1 % of a usual one. The errors of
10 layers add up to 3 %, guidance doubles them, and 6 % of a deviation that is at most 128 of 255 are 30 dB. With 4
bits, the errors would be 16 times as large."""

needs_torchao = pytest.mark.skipif(not options.can_quantize(), reason="pip install 'motionbooth[quantize]'")


def quantized(source: Source) -> Base:
    base = load_base(source, "cpu", plan=QUANTIZED)
    quantize(base.network, base.device)
    return base


def clip(base: Base, box_control: bool = True) -> Tensor:
    spec = replace(pan_spec(base.settings), num_inference_steps=2, box_control=box_control)
    return generate_clip(base, spec).double()


def psnr(one: Tensor, other: Tensor) -> float:
    return float(20 * torch.log10(255 / (one - other).square().mean().sqrt()))


@needs_torchao
@pytest.mark.parametrize("name", ["tiny", "wan"])
def test_a_clip_is_near_the_exact_one_and_controlled(name: str, tiny_source: Source, wan22_source: Source) -> None:
    source = tiny_source if name == "tiny" else wan22_source
    base, exact = quantized(source), clip(load_base(source, "cpu", plan=CHUNKED))
    near = clip(base)
    assert not torch.equal(near, exact), "the weights are rounded"
    assert psnr(near, exact) > NEAR
    assert psnr(clip(base, box_control=False), exact) < psnr(near, exact) - 6, "the boxes act"


@needs_torchao
def test_half_precision_does_not_overflow() -> None:
    """The sum of the integers' products would: 512 * 127 * 8 is more than 65504."""
    network = WanTransformer3DModel(num_attention_heads=1, attention_head_dim=12, ffn_dim=512, num_layers=1)
    layer = network.blocks[0].ffn.net[2]
    with torch.no_grad():
        layer.weight.fill_(0.01)
        layer.bias.fill_(0)
        quantize(network.half(), torch.device("cpu"))
        result = layer(torch.full((1, 512), 8.0, dtype=torch.float16))
    torch.testing.assert_close(result, torch.full_like(result, 512 * 0.01 * 8), rtol=0.005, atol=0)  # 0.5 of 127 steps


@needs_torchao
def test_a_dropped_model_is_freed_at_once(tiny_source: Source) -> None:
    """The next one is loaded onto the card without waiting for the garbage collection."""
    base = quantized(tiny_source)
    inside = [module for layer in layers_of(base.network) for module in layer.modules()]
    weights = [weakref.ref(module) for module in inside if isinstance(module, nn.Linear)]
    gc.disable()
    try:
        del base, inside
        assert weights
        assert not [weight for weight in weights if weight() is not None]
    finally:
        gc.enable()


@needs_torchao
def test_as_many_bytes_as_predicted(wan_source: Source) -> None:
    """Measured in a file of the weights, whose names and alignment take up to 3 KB for each."""
    config = {"num_attention_heads": 8, "attention_head_dim": 64, "ffn_dim": 2048, "num_layers": 3, "text_dim": 64}
    with torch.device("meta"):
        predicted = WanTransformer3DModel.from_config(config)
    loaded = WanTransformer3DModel.from_config(config).eval()
    exact = bytes_of(loaded)
    quantize(predicted, torch.device("meta"))
    quantize(loaded, torch.device("cpu"))
    file = io.BytesIO()
    torch.save(loaded.state_dict(), file)
    size = bytes_of(predicted)
    assert size == bytes_of(loaded) < 0.45 * exact  # float32's embeddings and biases stay
    held = file.tell() + sum(buffer.nbytes for buffer in loaded.buffers())  # tables of positions, which no file has
    assert size <= held < size + 3000 * len(loaded.state_dict())
    base = quantized(wan_source)
    (estimate,) = estimates(wan_source, torch.float32, (QUANTIZED,))
    assert estimate.resident == bytes_of(base.network) + bytes_of(base.vae)
    (chunked,) = estimates(wan_source, torch.float32, (CHUNKED,))
    assert estimate.peak < chunked.peak


@needs_torchao
def test_subjects_and_styles_act_and_a_warm_model_is_as_a_new_one(
    wan_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tinywan").symlink_to(wan_source.folder)
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path / "models"))
    base, modules, weights = load_base(wan_source, "cpu"), r".*attn2\.to_q", "a" * 64
    add_lora(base.network, 2, modules, seed=0)
    with torch.no_grad():
        for name, parameter in base.network.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.5)
    card = SubjectCard("s", "sks", "dog", "a sks dog", "x", wan_source.network_sha256, "lora", 2, modules)
    save_subject(tmp_path / weights, base, card)

    def spec(subject: str | None, *styles: Style) -> GenerateSpec:
        track = SubjectTrack("dog", "dog", [Box(0.1, 0.2, 0.6, 0.8)] * 9, token="sks", weights=subject)
        shot = Shot("s", 1, 9, 16, 64, 48, CameraPath.still(9), [track])
        return GenerateSpec(shot, "a sks dog", model="tinywan", num_inference_steps=1, styles=list(styles))

    computing = Computing("cpu", "quantized")
    jobs = [spec(None), spec(weights), spec(weights, Style(weights)), spec(weights, Style(weights))]
    cache = ModelCache(computing)
    warm = [generate_clip(cache.get(job, tmp_path.joinpath), job).double() for job in jobs]
    kept = cache.base
    assert cache.get(jobs[-1], tmp_path.joinpath) is kept
    for job, each in zip(jobs, warm, strict=True):
        assert torch.equal(generate_clip(ModelCache(computing).get(job, tmp_path.joinpath), job).double(), each)
        exact = generate_clip(ModelCache(Computing("cpu", "chunked")).get(job, tmp_path.joinpath), job).double()
        assert psnr(each, exact) > NEAR
    assert len({bytes(each.byte().numpy()) for each in warm[:3]}) == 3
    linear = [layer for block in layers_of(kept.network) for layer in block.modules() if isinstance(layer, nn.Linear)]
    assert {weight.dtype for layer in linear for weight in [layer.weight.qdata]} == {torch.int8}


def test_it_is_refused_without_torchao_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without torchao, also where it is installed."""
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    with pytest.raises(InvalidInput, match=r"pip install 'motionbooth\[quantize\]'"):
        Computing(memory="quantized").check()


def test_it_is_taken_by_name_only_and_excludes_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_named("quantized") == QUANTIZED
    assert smaller_plan(QUANTIZED, "cuda") == OFFLOADED
    assert smaller_plan(QUANTIZED, "cpu") is None
    with refused(InvalidInput, code="exclusive", plan="quantized"):
        Computing(memory="quantized", compile=True).check()
