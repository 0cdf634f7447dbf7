"""What is fetched besides base models in diffusers' layout: LaVie, Segment Anything and the measuring networks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import huggingface_hub
import motionbooth
import pytest
import torch
from local_hub import LocalHub
from motionbooth.cli.app import app
from motionbooth.evaluation.networks import CLIP_ID, DINO_ID, load_networks
from motionbooth.finetuning.finetune import TrainingOptions
from motionbooth.models.lavie import convert
from motionbooth.models.lavie.unet import LaVieUNet
from motionbooth.models.offers import needed_files
from motionbooth.models.published import MODELS, published, published_named, title_of
from motionbooth.models.registry import load_base
from motionbooth.models.settings import BaseSettings
from motionbooth.models.sources import TOYBOX, fetched_folder, model_folders, source_named
from motionbooth.pictures.birefnet import WEIGHTS
from motionbooth.pictures.sam import load_sam
from motionbooth_protocol.errors import JobFailed, NotFound
from refused import refused
from tiny_networks import save_networks
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig
from typer.testing import CliRunner

LAVIE, STABLE_DIFFUSION = (one.hub for one in published()["lavie"].repositories)


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path / "my models"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.delenv("MOTIONBOOTH_SAM", raising=False)
    return tmp_path / "my models"


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub({}).running() as hub:
        yield hub


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", *arguments], env={"COLUMNS": "250"})
    return result.exit_code, " ".join(result.output.split())


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def small_lavie() -> LaVieUNet:
    return LaVieUNet(
        block_out_channels=(32, 64, 64), layers_per_block=1, cross_attention_dim=32, attention_head_dim=1,
        norm_num_groups=8,
    )  # fmt: skip


def test_lavie_is_fetched_from_two_repositories_and_converted_in_one(
    models: Path, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    weights = small_lavie().state_dict()
    torch.save({"ema": weights}, tmp_path / "lavie_base.pt")
    others = {"lavie_vsr.pt": b"another stage", "README.md": b""}
    hub.files[LAVIE] = {"lavie_base.pt": (tmp_path / "lavie_base.pt").read_bytes(), **others}
    hub.add_folder(STABLE_DIFFUSION, TOYBOX)  # of the same classes
    monkeypatch.setattr(convert, "convert_lavie", partial(convert.convert_lavie, make_unet=small_lavie))

    hub.swapped["lavie_base.pt"] = bytes(len(hub.files[LAVIE]["lavie_base.pt"]))
    status, said = run("get", "lavie", "--from", hub.url, "--accept-license")
    assert status == 1
    assert "lavie arrived damaged (lavie_base.pt)" in said
    hub.swapped.clear()
    hub.served.clear()
    status, said = run("get", "lavie", "--from", hub.url, "--accept-license")
    assert status == 0, said
    assert f"License of {LAVIE}: cc-by-nc-4.0; its text is at https://github.com/Vchitect/LaVie" in said
    assert f"License of {STABLE_DIFFUSION}: " in said
    assert [path for path, _ in hub.served] == ["lavie_base.pt"], "the rest was there already"

    base = load_base(source_named("lavie"), device="cpu")
    assert base.settings == BaseSettings.read(MODELS / "lavie.json")
    assert all(torch.equal(base.network.state_dict()[name], tensor) for name, tensor in weights.items())
    assert not [name for name in files_in(models) if "lavie_base.pt" in name or ".partial" in name], "no leftovers"
    assert run("check", "lavie") == (0, "All files of lavie are as they were published.")
    converted = models / "lavie" / "unet" / "diffusion_pytorch_model.safetensors"
    converted.write_bytes(converted.read_bytes()[:-1] + b"?")
    assert run("check", "lavie")[0] == 1
    assert run("remove", "lavie", "--yes")[0] == 0
    assert not (models / "lavie").exists()


def test_a_checkpoint_that_is_not_lavies_is_no_model(
    models: Path, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"ema": torch.nn.Linear(2, 2).state_dict()}, tmp_path / "other.pt")
    hub.files[LAVIE] = {"lavie_base.pt": (tmp_path / "other.pt").read_bytes()}
    hub.add_folder(STABLE_DIFFUSION, TOYBOX)
    monkeypatch.setattr(convert, "convert_lavie", partial(convert.convert_lavie, make_unet=small_lavie))
    status, said = run("get", "lavie", "--from", hub.url, "--accept-license")
    assert status == 2
    assert "They look like Stable Diffusion's own UNet" in said
    assert not (models / "lavie").exists()


def test_birefnet_is_used_once_it_is_fetched(models: Path, hub: LocalHub) -> None:
    files = {"config.json": b"{}", "onnx/model.onnx": b"a network", "onnx/model_fp16.onnx": b"not loaded"}
    hub.files["onnx-community/BiRefNet_lite-ONNX"] = files
    assert TrainingOptions.of_this_machine().finders.birefnet is None
    status, said = run("get", "birefnet", "--from", hub.url, "--accept-license")
    assert status == 0, said
    assert TrainingOptions.of_this_machine().finders.birefnet == models / "birefnet"
    assert (models / "birefnet" / WEIGHTS).read_bytes() == b"a network"
    assert "model_fp16.onnx" not in files_in(models / "birefnet")


def test_segment_anything_is_used_once_it_is_fetched(models: Path, hub: LocalHub, tmp_path: Path) -> None:
    sam = SamModel(
        SamConfig(
            vision_config=SamVisionConfig(
                hidden_size=16, output_channels=16, num_hidden_layers=1, num_attention_heads=2, image_size=64,
                mlp_dim=16, num_pos_feats=8, window_size=2, global_attn_indexes=[0],
            ).to_dict(),
            prompt_encoder_config=SamPromptEncoderConfig(hidden_size=16, image_size=64).to_dict(),
            mask_decoder_config=SamMaskDecoderConfig(
                hidden_size=16, mlp_dim=16, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16
            ).to_dict(),
        )
    )  # fmt: skip
    sam.save_pretrained(tmp_path / "sam")
    (tmp_path / "sam" / "preprocessor_config.json").write_text("{}")
    (tmp_path / "sam" / "tf_model.h5").write_bytes(b"of another library")
    hub.add_folder("facebook/sam-vit-base", tmp_path / "sam")
    assert TrainingOptions.of_this_machine().finders.sam is None
    status, said = run("get", "sam", "--from", hub.url, "--accept-license")
    assert status == 0, said
    checkpoint = TrainingOptions.of_this_machine().finders.sam
    assert checkpoint is not None
    assert checkpoint.path == models / "sam"
    assert any(models.is_relative_to(folder) for folder in model_folders()), "a worker in the sandbox can read it"
    loaded = load_sam(checkpoint)
    assert all(torch.equal(loaded.state_dict()[name].cpu(), value) for name, value in sam.state_dict().items())
    assert "tf_model.h5" not in files_in(models / "sam")
    assert "Segment Anything, ViT-B" in run("list")[1]
    assert run("check", "sam")[0] == 0
    assert run("remove", "sam", "--yes")[0] == 0
    assert TrainingOptions.of_this_machine().finders.sam is None


def test_the_measuring_networks_are_used_once_they_are_fetched(models: Path, hub: LocalHub, tmp_path: Path) -> None:
    made = save_networks(tmp_path / "made", raft=False)
    hub.add_folder(CLIP_ID, made / "clip")
    hub.add_folder(DINO_ID, made / "dino")
    for name in ("clip", "dino"):
        status, said = run("get", name, "--from", hub.url, "--accept-license")
        assert status == 0, said
    networks = load_networks(tmp_path / "nothing here")
    assert [card.id for card in networks.cards] == [CLIP_ID, DINO_ID]
    assert networks.clip is not None
    assert networks.clip.text("a dog").ndim == 1
    (models / "dino" / "model.safetensors").unlink()
    status, said = run("check", "dino")
    assert status == 1
    assert "model.safetensors" in said


def test_a_name_leads_to_a_repository_by_the_registry_alone() -> None:
    assert {model.kind for model in published().values()} == {"base model", "mask finder", "measuring network"}
    assert all(title_of(name) for name in published())
    for name in (CLIP_ID, "../zeroscope", "zeroscope/", "", "toybox"):
        with refused(NotFound, name=name, known=...):
            published_named(name)
    settings = {path.stem for path in MODELS.glob("*.json")}
    assert settings == {name for name, model in published().items() if model.kind == "base model"}


def test_code_of_a_repository_is_never_run_nor_fetched() -> None:
    sources = [path.read_text(encoding="utf-8") for path in Path(motionbooth.__file__).parent.rglob("*.py")]
    said = [value for text in sources for value in re.findall(r"trust_remote_code\s*=\s*(\w+)", text)]
    assert set(said) == {"False"}
    code = ["modeling_other.py", "unet/code.py", "custom.so"]
    for model in published().values():
        for repository in model.repositories:
            assert needed_files([*code, "config.json"], repository.files) in (["config.json"], [])


@pytest.mark.parametrize("path", ["../outside.json", "/etc/x.json", "vae/../../x.json", "C:x.json", "..\\x.json"])
def test_a_mirror_cannot_write_outside_of_the_models_folder(path: str) -> None:
    with refused(JobFailed, path=path):
        needed_files(["model_index.json", path])


def test_a_folder_of_another_model_is_refused(models: Path, hub: LocalHub, tmp_path: Path) -> None:
    made = save_networks(tmp_path / "made", raft=False)
    hub.add_folder(DINO_ID, made / "dino")
    assert run("get", "dino", "--from", hub.url, "--accept-license")[0] == 0
    status, said = run("get", "clip", "--from", str(models / "dino"))
    assert status == 2
    assert f"has {DINO_ID}, and clip is {CLIP_ID}" in said
    (models / "dino").rename(tmp_path / "stick")
    assert run("get", "dino", "--from", str(tmp_path / "stick"))[0] == 0
    assert fetched_folder("dino") == models / "dino"
