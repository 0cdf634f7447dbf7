"""Base models are found by name, loaded part by part, and stay plain diffusers folders."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from motionbooth.control.boxes import BoxAttnProcessor
from motionbooth.models.registry import Base, load_base, load_sampler
from motionbooth.models.settings import BaseSettings
from motionbooth.models.sources import MODELS, Source, source_named, sources
from motionbooth_protocol.errors import InvalidInput, NotFound


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


def test_an_unknown_model_is_refused_with_the_known_ones_and_the_place_to_put_it(models: Path) -> None:
    with pytest.raises(NotFound, match=r'no base model "wan" here, only: .*tiny\. Put its folder.*wan'):
        source_named("wan")


def test_zeroscope_is_known_by_its_folders_name(models: Path) -> None:
    shutil.copytree(models / "tiny", models / "zeroscope", ignore=shutil.ignore_patterns("motionbooth.json"))
    settings = sources()["zeroscope"].settings
    assert (settings.width, settings.height, settings.frames, settings.steps) == (576, 320, 24, 50)
    assert settings.alpha == 7.5
    assert round(settings.amplify_until * 50) == 5
    assert (round(settings.shift_from * 50), round(settings.shift_until * 50) - 1) == (10, 19)
    assert settings.full.learning_rate == 5e-6


def test_a_sampler_that_remembers_past_steps_is_refused(models: Path) -> None:
    path = models / "tiny" / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "_class_name": "UniPCMultistepScheduler"}))
    with pytest.raises(InvalidInput, match="UniPCMultistepScheduler, which remembers past steps"):
        load_sampler(models / "tiny")


def test_a_model_of_another_kind_is_refused(models: Path) -> None:
    path = models / "tiny" / "model_index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "unet": ["diffusers", "UNetMotionModel"]}))
    with pytest.raises(InvalidInput, match="has UNetMotionModel as its unet, expected UNet3DConditionModel"):
        load_base(source_named("tiny"), device="cpu")


def test_settings_that_do_not_fit_are_refused_by_the_files_name(models: Path) -> None:
    path = models / "tiny" / "motionbooth.json"
    path.write_text(path.read_text().replace('"frames": 4', '"frames": "four"'))
    with pytest.raises(InvalidInput, match=r"motionbooth\.json cannot be read: .*frames"):
        assert source_named("tiny").settings


def test_only_the_spatial_text_attentions_are_edited(tiny_single: Base) -> None:
    edited = {name for name, kind in tiny_single.unet.attn_processors.items() if isinstance(kind, BoxAttnProcessor)}
    assert len(edited) == 10
    assert all(".attentions." in name and name.endswith("attn2.processor") for name in edited)


def test_fingerprint_follows_the_weights(models: Path, tiny_source: Source) -> None:
    assert source_named("tiny").fingerprint == tiny_source.fingerprint
    weights = next((models / "tiny" / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert source_named("tiny").fingerprint != tiny_source.fingerprint


def test_float16_weights_on_disk_are_computed_with_in_float32_on_a_cpu(tiny_single: Base, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    shutil.copytree(tiny_single.source.folder, folder)
    tiny_single.unet.half().save_pretrained(folder / "unet")
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
    assert files
    for path in files:
        BaseSettings.read(path)
