"""LaVie's checkpoint becomes a folder that is loaded like any other, and nothing else passes for it."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import msgspec
import pytest
import torch
from file_sizes import limited_to
from motionbooth.generation.sampling import generate_clip
from motionbooth.models.lavie.convert import convert_lavie, lavie_unet, read_ema
from motionbooth.models.lavie.unet import LaVieUNet
from motionbooth.models.registry import load_base
from motionbooth.models.settings import BaseSettings
from motionbooth.models.sources import MODELS, Source
from motionbooth.models.subject_weights import add_lora
from motionbooth_protocol.errors import InvalidInput, JobFailed
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from motionbooth_protocol.text import Text
from refused import refused, refused_by_command
from torch import Tensor


def small_lavie() -> LaVieUNet:
    return LaVieUNet(
        block_out_channels=(32, 64, 64),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=1,
        norm_num_groups=8,
    )


@pytest.fixture
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return small_lavie().state_dict()


@pytest.fixture
def stable_diffusion(tmp_path: Path, tiny_source: Source) -> Path:
    """A folder with the parts that are taken from Stable Diffusion, and a UNet that must not be."""
    folder = tmp_path / "sd14"
    shutil.copytree(tiny_source.folder, folder)
    return folder


def saved(folder: Path, content: object) -> Path:
    path = folder / "lavie_base.pt"
    torch.save(content, path)
    return path


def test_a_converted_checkpoint_is_loaded_and_computes_what_the_weights_say(
    tmp_path: Path, weights: dict[str, Tensor], stable_diffusion: Path
) -> None:
    out = tmp_path / "models" / "small"
    convert_lavie(saved(tmp_path, {"ema": weights}), stable_diffusion, out, small_lavie)
    assert [path.name for path in out.parent.iterdir()] == ["small"]
    base = load_base(Source("small", out, out / "motionbooth.json"), device="cpu")
    assert base.settings == BaseSettings.read(MODELS / "lavie.json")
    assert (base.scheduler.config.beta_schedule, base.scheduler.config.beta_end) == ("linear", 0.02)
    sample, text = torch.randn(1, 4, 3, 8, 8), base.embed(["a dog"])
    plain = small_lavie().eval()
    plain.load_state_dict(weights)
    with torch.no_grad():
        torch.testing.assert_close(base.network(sample, 500, text).sample, plain(sample, 500, text).sample)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, weights: dict[str, Tensor], stable_diffusion: Path
) -> None:
    checkpoint, out = saved(tmp_path, {"ema": weights}), tmp_path / "models" / "small"
    with limited_to(50_000), refused(JobFailed, folder=str(out), reason=...):
        convert_lavie(checkpoint, stable_diffusion, out, small_lavie)
    assert list(out.parent.iterdir()) == []


def test_a_checkpoint_of_the_older_kind_is_read_too(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save({"ema": weights}, tmp_path / "lavie_base.pt", _use_new_zipfile_serialization=False)
    found = read_ema(tmp_path / "lavie_base.pt")
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 broken off", [1], {"ema": [1]}, {"ema": {"conv_in.bias": "text"}}, {"state_dict": {}}]
)
def test_other_files_are_refused_by_name(tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with refused(InvalidInput, checkpoint=str(path)):
        read_ema(path)


def test_a_damaged_part_of_stable_diffusion_is_reported(
    tmp_path: Path, weights: dict[str, Tensor], stable_diffusion: Path
) -> None:
    part = stable_diffusion / "text_encoder" / "model.safetensors"
    part.write_bytes(part.read_bytes()[:1000])
    with refused(InvalidInput, folder=str(stable_diffusion), reason=...):
        convert_lavie(saved(tmp_path, {"ema": weights}), stable_diffusion, tmp_path / "out", small_lavie)


def test_a_subject_is_put_into_it_and_generated_with_boxes_and_camera(
    tmp_path: Path, weights: dict[str, Tensor], stable_diffusion: Path
) -> None:
    out = tmp_path / "small"
    convert_lavie(saved(tmp_path, {"ema": weights}), stable_diffusion, out, small_lavie)
    base = load_base(Source("small", out, out / "motionbooth.json"), device="cpu")
    base.settings = msgspec.structs.replace(base.settings, width=64, height=48, frames=3, num_inference_steps=2)
    track = SubjectTrack("Rex", "dog", [Box(0.1, 0.1, 0.6, 0.8)] * 3, token="sks")
    shot = Shot("shot", 1, 3, 8, 64, 48, CameraPath.straight(0.5, 0, 3), [track])
    spec = GenerateSpec(shot, "a sks dog in the park", model="small")
    plain = generate_clip(base, spec)
    assert plain.shape == (3, 48, 64, 3)
    add_lora(base.network, 4, base.settings.lora.target_modules, seed=0)
    learned = [parameter for name, parameter in base.network.named_parameters() if "lora_B" in name]
    assert len(learned) > 50
    assert torch.equal(generate_clip(base, spec), plain)
    for parameter in learned:
        torch.nn.init.normal_(parameter)
    assert not torch.equal(generate_clip(base, spec), plain)


def test_stable_diffusions_own_weights_are_refused(weights: dict[str, Tensor]) -> None:
    spatial = {name: tensor for name, tensor in weights.items() if "temp" not in name}
    with refused(InvalidInput, layers=...):
        lavie_unet(spatial, small_lavie)


def test_a_temporal_attention_that_was_never_trained_is_refused(weights: dict[str, Tensor]) -> None:
    untrained = {name: tensor * 0 if ".attn_temp.to_out" in name else tensor for name, tensor in weights.items()}
    with refused(InvalidInput, code="untrained"):
        lavie_unet(untrained, small_lavie)


def test_spatial_layers_of_the_folders_stable_diffusion_are_refused(
    tmp_path: Path, weights: dict[str, Tensor], stable_diffusion: Path
) -> None:
    unet = small_lavie()
    unet.load_state_dict(weights)
    shutil.rmtree(stable_diffusion / "unet")
    unet.save_pretrained(stable_diffusion / "unet")
    with refused(InvalidInput, folder=str(stable_diffusion / "unet")):
        convert_lavie(saved(tmp_path, {"ema": weights}), stable_diffusion, tmp_path / "out", small_lavie)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "problem", "layers"),
    [
        (lambda weights: weights.pop("conv_in.bias"), "missing", "conv_in.bias"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "unknown", "extra"),
        (lambda weights: weights.update({"conv_in.bias": torch.zeros(1)}), "of another shape", "conv_in.bias"),
    ],
)
def test_weights_that_differ_in_a_name_or_a_shape_are_refused(
    weights: dict[str, Tensor], change: object, problem: str, layers: str
) -> None:
    change(weights)  # type: ignore[operator]
    with refused(InvalidInput, problem=Text(problem), layers=layers):
        lavie_unet(weights, small_lavie)


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path, stable_diffusion: Path) -> None:
    touched = tmp_path / "touched"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return (Path.touch, (touched,))

    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"ema": Evil()}, protocol=2))
    torch.save({"ema": Evil()}, tmp_path / "evil_zip.pt")
    for name in ("evil.pt", "evil_zip.pt"):
        with refused(InvalidInput, checkpoint=str(tmp_path / name), reason=...):
            convert_lavie(tmp_path / name, stable_diffusion, tmp_path / "out")
    assert not touched.exists()


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    command = ["convert-lavie", str(tmp_path / "no.pt"), str(tmp_path / "out"), "--sd14", str(tmp_path / "empty")]
    refused_by_command(command, InvalidInput, folder=str(tmp_path / "empty"), parts=...)
