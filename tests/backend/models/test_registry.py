"""Base models are found by name, loaded part by part, and stay plain diffusers folders."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import huggingface_hub
import platformdirs
import pytest
import torch
from diffusers import UNet3DConditionModel
from motionbooth.control.boxes import AttentionControl, BoxAttnProcessor
from motionbooth.models.base import Base
from motionbooth.models.memory.plans import is_out_of_memory
from motionbooth.models.registry import load_base
from motionbooth.models.settings import BaseSettings
from motionbooth.models.sources import MODELS, Source, _file_digest, file_sha256, source_named, sources
from motionbooth_protocol.errors import InvalidInput, NotFound
from refused import refused
from safetensors.torch import load_file


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def models(tmp_path: Path, tiny_source: Source, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A models folder with the tiny base in it."""
    shutil.copytree(tiny_source.folder, tmp_path / "tiny")
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path))
    return tmp_path


def test_a_folder_in_the_models_folder_is_a_base_model(models: Path) -> None:
    assert sources()["tiny"].settings.title == "Tiny"
    base = load_base(source_named("tiny"), device="cpu")
    assert base.latent_size == (16, 24)


def test_memory_that_does_not_suffice_for_a_part_is_not_called_damage(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UNet3DConditionModel, "from_pretrained", lambda *_, **__: torch.empty(2**56))
    with pytest.raises(RuntimeError) as caught:
        load_base(source_named("tiny"), device="cpu")
    assert is_out_of_memory(caught.value)


def test_an_unknown_model_is_refused_with_the_known_ones_and_the_place_to_put_it(models: Path) -> None:
    with refused(NotFound, name="wan", models=..., place=str(models / "wan")):
        source_named("wan")


def test_zeroscope_is_known_by_its_folders_name(models: Path) -> None:
    shutil.copytree(models / "tiny", models / "zeroscope", ignore=shutil.ignore_patterns("motionbooth.json"))
    settings = sources()["zeroscope"].settings
    assert (settings.width, settings.height, settings.frames, settings.num_inference_steps) == (576, 320, 24, 50)
    assert settings.control.alpha == 7.5
    assert round(settings.control.amplify_until * 50) == 5
    assert (round(settings.control.shift_from * 50), round(settings.control.shift_until * 50) - 1) == (10, 19)
    assert settings.full.learning_rate == 5e-6


def test_an_unknown_sampler_is_refused(models: Path) -> None:
    path = models / "tiny" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": "PNDMScheduler"}))
    with refused(InvalidInput, sampler="PNDMScheduler"):
        load_base(source_named("tiny"), device="cpu")


def test_a_model_of_another_kind_is_refused(models: Path) -> None:
    path = models / "tiny" / "model_index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "unet": ["diffusers", "UNetMotionModel"]}))
    with refused(InvalidInput, found="UNetMotionModel", part="unet"):
        load_base(source_named("tiny"), device="cpu")


@pytest.mark.parametrize(
    "file",
    [
        *("model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json", "vae/config.json"),
        *("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"),
    ],
)
@pytest.mark.parametrize("fate", ["damaged", "gone"])
def test_a_file_that_is_missing_or_damaged_is_reported_with_what_to_do(models: Path, file: str, fate: str) -> None:
    source, path = source_named("tiny"), models / "tiny" / file
    if fate == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(InvalidInput) as caught:
        load_base(source, device="cpu")
    values = caught.value.text.values
    assert values.keys() in ({"path", "reason"}, {"part", "folder", "reason"})
    assert file.partition("/")[0] in str(values.get("path", values.get("part")))


def test_a_part_that_is_missing_is_not_looked_for_on_the_hub(models: Path) -> None:
    shutil.rmtree(models / "tiny" / "vae")
    with refused(InvalidInput, part="vae", reason=...):
        load_base(source_named("tiny"), device="cpu")


def test_weights_as_torch_saves_them_are_loaded_and_nothing_in_them_is_executed(models: Path) -> None:
    (weights,) = (models / "tiny" / "unet").glob("*.safetensors")
    state, touched = load_file(weights), models / "touched"
    weights.unlink()
    torch.save(state, weights.with_suffix(".bin"))
    base = load_base(source_named("tiny"), device="cpu")
    assert all(torch.equal(tensor, state[name]) for name, tensor in base.network.state_dict().items())

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (touched,))

    torch.save({"conv_in.weight": Evil()}, weights.with_suffix(".bin"))
    with refused(InvalidInput, part="unet", reason=...):
        load_base(source_named("tiny"), device="cpu")
    assert not touched.exists()


def test_settings_that_do_not_fit_are_refused_by_the_files_name(models: Path) -> None:
    path = models / "tiny" / "motionbooth.json"
    path.write_text(path.read_text().replace('"frames": 4', '"frames": "four"'))
    with refused(InvalidInput, path=str(path), problem=...):
        assert source_named("tiny").settings


def test_only_the_spatial_text_attentions_are_edited(tiny_single: Base) -> None:
    edited = {name for name, kind in tiny_single.network.attn_processors.items() if isinstance(kind, BoxAttnProcessor)}
    assert len(edited) == 10
    assert all(".attentions." in name and name.endswith("attn2.processor") for name in edited)


def test_fingerprint_follows_the_weights(models: Path, tiny_source: Source) -> None:
    assert source_named("tiny").network_sha256 == tiny_source.network_sha256
    weights = next((models / "tiny" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert source_named("tiny").network_sha256 != tiny_source.network_sha256


def test_the_next_process_does_not_hash_large_weights_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr("motionbooth.models.sources._LARGE", 5)
    weights, hashed = tmp_path / "weights", list[str]()
    hash_file = hashlib.file_digest

    def counted(file: BinaryIO, name: str) -> Any:
        hashed.append(file.name)
        return hash_file(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    for content, most in ((b"first", 1), (b"second", 2), (b"tiny", 4)):
        weights.write_bytes(content)
        for _ in range(2):
            _file_digest.cache_clear()  # as in a new process
            assert file_sha256(weights) == hashlib.sha256(content).hexdigest()
        assert len(hashed) == most
    (note, *_) = (tmp_path / "cache" / "motionbooth" / "sha256").iterdir()
    note.write_text("torn")
    weights.write_bytes(b"first")
    assert file_sha256(weights) == hashlib.sha256(b"first").hexdigest()


def test_float16_weights_on_disk_are_computed_with_in_float32_on_a_cpu(tiny_single: Base, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(tiny_single.source.folder, folder)
    tiny_single.network.half().save_pretrained(folder / "unet")
    tiny_single.text_encoder.half().save_pretrained(folder / "text_encoder")
    base = load_base(Source("half", folder, folder / "motionbooth.json"), device="cpu")
    assert base.dtype == base.text_encoder.dtype == torch.float32


def test_the_folder_loads_in_the_stock_pipeline(tiny_source: Source) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the pipeline is deprecated in diffusers; the product does without it
        from diffusers import TextToVideoSDPipeline

        pipeline = TextToVideoSDPipeline.from_pretrained(tiny_source.folder)
    assert type(pipeline.unet).__name__ == "UNet3DConditionModel"


def test_all_settings_in_the_package_can_be_read() -> None:
    files = sorted(MODELS.glob("*.json"))
    assert {path.stem for path in files} >= {"zeroscope", "modelscope", "lavie"}
    for path in files:
        settings = BaseSettings.read(path)
        assert settings.prior_prompts


def test_lavies_settings_are_the_papers() -> None:
    settings = BaseSettings.read(MODELS / "lavie.json")
    assert (settings.width, settings.height, settings.frames, settings.control.alpha) == (512, 320, 16, 10.0)
    assert round(settings.control.amplify_until * settings.num_inference_steps) == 15


def downloaded(cache: Path, hub: str, folder: Path) -> Path:
    """The folder as huggingface_hub keeps what it fetched."""
    repository = cache / f"models--{hub.replace('/', '--')}"
    snapshot = repository / "snapshots" / "0123"
    shutil.copytree(folder, snapshot, ignore=shutil.ignore_patterns("motionbooth.json"))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    return snapshot


def test_a_model_in_the_hubs_cache_is_found_by_our_name_and_by_the_hubs(models: Path, hub: Path) -> None:
    snapshot = downloaded(hub, "ali-vilab/text-to-video-ms-1.7b", models / "tiny")
    assert source_named("modelscope").folder == snapshot
    assert source_named("ali-vilab/text-to-video-ms-1.7b").info.frames == 16
    shutil.rmtree(snapshot / "unet")  # a download that was broken off
    with refused(NotFound, model="modelscope"):
        source_named("modelscope")


@pytest.mark.parametrize("name", ["zeroscope", "cerspense/zeroscope_v2_576w"])
def test_a_known_model_that_is_not_here_is_reported_with_the_command_that_fetches_it(hub: Path, name: str) -> None:
    with refused(NotFound, model="zeroscope", place=...):
        source_named(name)


# Of {name: shape}, sorted, as JSON: Zeroscope and ModelScope have one network, of UNet3DConditionModel's own defaults.
FULL_SIZE = "5ff2e34bb620acd82dee755226a6114b4ecf5eb002ffe5068aa0dfcba3a4af64"


def test_full_size_has_every_parameter_of_the_published_network_and_is_controlled_and_trained() -> None:
    with torch.device("meta"):
        unet = UNet3DConditionModel(sample_size=32)
    shapes = {name: list(tensor.shape) for name, tensor in unet.state_dict().items()}
    assert hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest() == FULL_SIZE
    assert sum(math.prod(shape) for shape in shapes.values()) == 1_411_233_860
    AttentionControl.install(unet)
    assert sum(isinstance(kind, BoxAttnProcessor) for kind in unet.attn_processors.values()) == 16
    layers = re.compile(BaseSettings.read(MODELS / "zeroscope.json").lora.target_modules)
    assert sum(layers.fullmatch(name) is not None for name, _ in unet.named_modules()) == 396
