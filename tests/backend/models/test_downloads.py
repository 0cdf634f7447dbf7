"""Published models are fetched from a hub, a mirror or a folder: resumed, checked, and only what is needed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from local_hub import LocalHub
from motionbooth.cli.app import app
from motionbooth.models import downloads
from motionbooth.models.downloads import MANIFEST, damaged_files, needed_files
from motionbooth.models.sources import source_named
from typer.testing import CliRunner

HUB = "cerspense/zeroscope_v2_576w"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
FILES = {
    "model_index.json": b"{}",
    "README.md": b"a model",
    "unet/config.json": b"{}",
    WEIGHTS: os.urandom(300_000),
    "unet/diffusion_pytorch_model.bin": os.urandom(1000),
    "vae/diffusion_pytorch_model.bin": os.urandom(5000),
    "vae/diffusion_pytorch_model.fp16.bin": os.urandom(2500),
    "zs2_576w/open_clip_pytorch_model.bin.tmp": b"for other programs",
    "zeroscope.safetensors": os.urandom(2000),
    ".gitattributes": b"",
}
NEEDED = {"model_index.json", "README.md", "unet/config.json", WEIGHTS, "vae/diffusion_pytorch_model.bin"}


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "my models"
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(folder))
    return folder


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub({HUB: dict(FILES)}).running() as hub:
        yield hub


def run(*arguments: str, answer: str | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", *arguments], input=answer, env={"COLUMNS": "250"})
    return result.exit_code, " ".join(result.output.split())


def test_only_what_is_loaded_is_needed() -> None:
    assert set(needed_files(list(FILES))) == NEEDED
    sharded = [
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
        "transformer/model.safetensors.index.json",
    ]
    assert needed_files([*sharded, "vae/model.fp16.safetensors"]) == [*sharded, "vae/model.fp16.safetensors"]


def test_a_model_is_fetched_after_its_license_is_accepted(models: Path, hub: LocalHub) -> None:
    status, said = run("get", "zeroscope", "--from", hub.url, answer="n\n")
    assert status == 1
    assert "305.0 kB in 5 files" in said
    assert "License of cerspense/zeroscope_v2_576w: cc-by-nc-4.0; its text is at https://huggingface.co/" in said
    assert not list(models.glob("*"))
    status, said = run("get", "zeroscope", "--from", hub.url, answer="y\n")
    assert status == 0, said
    folder = models / "zeroscope"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == NEEDED | {MANIFEST}
    assert (folder / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    assert source_named("zeroscope").folder == folder
    assert run("check", "zeroscope") == (0, "All files of zeroscope are as they were published.")
    status, said = run("get", "zeroscope", "--from", hub.url, "--accept-license")
    assert status == 2
    assert "already at" in said
    status, said = run("list")
    assert "Zeroscope v2 576w" in said
    assert "motionbooth models get wan-1.3b" in said


def test_an_interrupted_download_resumes_and_is_no_model_meanwhile(
    models: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 50_000)  # what is written at once: 10 MB
    hub.breaks.add(WEIGHTS)
    status, said = run("get", "zeroscope", "--from", hub.url, "--accept-license")
    if status:  # versions of huggingface_hub that do not try again by themselves
        assert "Fetch the model again to resume it" in said
        assert not (models / "zeroscope").exists()
        assert run("get", "zeroscope", "--from", hub.url, "--accept-license")[0] == 0
    assert (models / "zeroscope" / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    assert [first > 0 for path, first in hub.served if path == WEIGHTS] == [False, True], "from where it broke off"


def test_a_file_that_arrives_damaged_is_fetched_again_alone(models: Path, hub: LocalHub) -> None:
    hub.swapped[WEIGHTS] = bytes(len(FILES[WEIGHTS]))
    status, said = run("get", "zeroscope", "--from", hub.url, "--accept-license")
    assert status == 1
    assert "arrived damaged (unet/diffusion_pytorch_model.safetensors)" in said
    assert not (models / "zeroscope").exists()
    hub.swapped.clear()
    hub.served.clear()
    assert run("get", "zeroscope", "--from", hub.url, "--accept-license")[0] == 0
    assert {path for path, _ in hub.served} == {WEIGHTS}


def test_damage_on_the_disk_is_found_and_the_model_removed(models: Path, hub: LocalHub) -> None:
    assert run("get", "zeroscope", "--from", hub.url, "--accept-license")[0] == 0
    weights = models / "zeroscope" / WEIGHTS
    flipped = bytearray(weights.read_bytes())
    flipped[1000] ^= 1
    weights.write_bytes(flipped)
    assert damaged_files(models / "zeroscope") == [WEIGHTS]
    status, said = run("check", "zeroscope")
    assert status == 1
    assert WEIGHTS in said
    assert run("remove", "zeroscope", answer="n\n")[0] == 1
    assert weights.exists()
    assert run("remove", "zeroscope", "--yes")[0] == 0
    assert not (models / "zeroscope").exists()


def test_a_folder_from_another_machine(models: Path, hub: LocalHub, tmp_path: Path) -> None:
    fetched = tmp_path / "usb stick" / "zeroscope"
    for path, content in FILES.items():
        (fetched / path).parent.mkdir(parents=True, exist_ok=True)
        (fetched / path).write_bytes(content)
    assert run("get", "zeroscope", "--from", str(fetched))[0] == 0
    assert {path.name for path in (models / "zeroscope" / "vae").iterdir()} == {"diffusion_pytorch_model.bin"}
    assert run("check", "zeroscope")[0] == 0
    shutil.move(models / "zeroscope", tmp_path / "kept")
    (tmp_path / "kept" / WEIGHTS).write_bytes(bytes(len(FILES[WEIGHTS]) - 1))
    status, said = run("get", "zeroscope", "--from", str(tmp_path / "kept"))
    assert status == 1, "its own list of files says so"
    assert "arrived damaged" in said
    status, said = run("get", "zeroscope", "--from", str(tmp_path))
    assert status == 2
    assert "no model_index.json" in said


def test_what_cannot_be_fetched(models: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = run("get", "sora", "--from", hub.url)
    assert status == 2
    assert "There is no published model sora" in said
    assert "zeroscope" in said
    status, said = run("get", "wan-1.3b", "--from", hub.url)
    assert status == 2
    assert "is not at http://127.0.0.1" in said
    status, said = run("get", "zeroscope", "--from", "http://127.0.0.1:9")
    assert status == 1
    assert "Fetch the model again to resume it" in said
    for command in ("remove", "check"):
        status, said = run(command, "toybox", *(["--yes"] if command == "remove" else []))
        assert status == 2
        assert "not fetched with `motionbooth models get`" in said
    usage = shutil.disk_usage(models.parent)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    status, said = run("get", "zeroscope", "--from", hub.url, "--accept-license")
    assert status == 2
    assert "0.0 GB free" in said
    assert hub.served == []
