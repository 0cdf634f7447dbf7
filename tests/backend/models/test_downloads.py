"""Published models are fetched from a hub, a mirror or a folder: resumed, checked, and only what is needed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from errno import EACCES, EIO
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from filelock import FileLock
from local_hub import LocalHub
from motionbooth.cli.app import app
from motionbooth.models import downloads
from motionbooth.models.downloads import MANIFEST, damaged_files
from motionbooth.models.offers import needed_files
from motionbooth.models.sources import Source, source_named, sources
from motionbooth_protocol.errors import Conflict, InvalidInput, JobFailed, NotFound
from refused import refused_by_command
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
    again = ["models", "get", "zeroscope", "--from", hub.url, "--accept-license"]
    refused_by_command(again, InvalidInput, model="zeroscope", place=str(folder))
    status, said = run("list")
    assert "Zeroscope v2 576w" in said
    assert "motionbooth models get wan-1.3b" in said


def test_a_mirror_does_not_get_the_token_for_the_hub(
    models: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert run("get", "zeroscope", "--from", hub.url, "--accept-license")[0] == 0
    assert hub.tokens == {None}


def test_an_interrupted_download_resumes_and_is_no_model_meanwhile(
    models: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 50_000)  # what is written at once: 10 MB
    hub.breaks.add(WEIGHTS)
    status, _ = run("get", "zeroscope", "--from", hub.url, "--accept-license")
    if status:  # versions of huggingface_hub that do not try again by themselves
        assert not (models / "zeroscope").exists()
        assert run("get", "zeroscope", "--from", hub.url, "--accept-license")[0] == 0
    assert (models / "zeroscope" / WEIGHTS).read_bytes() == FILES[WEIGHTS]
    assert [first > 0 for path, first in hub.served if path == WEIGHTS] == [False, True], "from where it broke off"


def test_a_file_that_arrives_damaged_is_fetched_again_alone(models: Path, hub: LocalHub) -> None:
    hub.swapped[WEIGHTS] = bytes(len(FILES[WEIGHTS]))
    refused_by_command(["models", "get", "zeroscope", "--from", hub.url, "--accept-license"], JobFailed, path=WEIGHTS)
    assert not (models / "zeroscope").exists()
    (models / ".zeroscope.partial" / "unet" / "of an older revision.safetensors").write_bytes(b"")
    hub.swapped.clear()
    hub.served.clear()
    assert run("get", "zeroscope", "--from", hub.url, "--accept-license")[0] == 0
    assert {path for path, _ in hub.served} == {WEIGHTS}
    assert len(list((models / "zeroscope" / "unet").iterdir())) == 2, "the weights, and their configuration"


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


def test_damage_is_found_in_small_files_whose_sums_the_hub_does_not_have(models: Path, hub: LocalHub) -> None:
    assert run("get", "zeroscope", "--from", hub.url, "--accept-license")[0] == 0
    (models / "zeroscope" / "unet" / "config.json").write_bytes(b"[]")
    assert damaged_files(models / "zeroscope") == ["unet/config.json"]


def test_a_removal_that_breaks_off_can_be_repeated_and_is_no_model_meanwhile(
    models: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = ["get", "zeroscope", "--from", hub.url, "--accept-license"]

    def break_off(folder: Path, *_: Any, **__: Any) -> None:
        if folder.exists():
            (folder / MANIFEST).unlink()
            raise PermissionError(EACCES, "it is in use", str(folder / WEIGHTS))

    assert run(*get)[0] == 0
    with monkeypatch.context() as patched:
        patched.setattr(downloads.shutil, "rmtree", break_off)
        assert run("remove", "zeroscope", "--yes")[0] != 0
    assert not (models / "zeroscope").exists()
    assert run("remove", "zeroscope", "--yes")[0] == 0
    assert not [path for path in models.iterdir() if path.is_dir()]
    assert run(*get)[0] == 0


def test_a_model_is_not_removed_while_it_is_fetched(models: Path, hub: LocalHub) -> None:
    partial = models / ".zeroscope.partial"
    partial.mkdir(parents=True)
    with FileLock(models / ".zeroscope.lock"):
        refused_by_command(["models", "remove", "zeroscope", "--yes"], Conflict, model="zeroscope")
    assert partial.is_dir()
    assert run("remove", "zeroscope", "--yes")[0] == 0
    assert not partial.exists()


def test_a_copy_that_broke_off_is_no_model(
    models: Path, tmp_path: Path, tiny_source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_source.folder, tmp_path / "lavie")
    copyfile = shutil.copyfile

    def break_off(source: Path, target: Path) -> None:
        if source.parent.name == "vae":
            raise OSError(EIO, "Input/output error", str(source))
        copyfile(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(downloads.shutil, "copyfile", break_off)
        assert run("get", "lavie", "--from", str(tmp_path / "lavie"))[0] != 0
    assert list(models.glob(".lavie.partial/motionbooth.json"))
    assert list(models.glob(".lavie.partial/unet/*.safetensors"))
    assert ".lavie.partial" not in sources()


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
    get = ["models", "get", "zeroscope", "--from"]
    refused_by_command([*get, str(tmp_path / "kept")], JobFailed, path=WEIGHTS)  # its own list of files says so
    refused_by_command([*get, str(tmp_path)], InvalidInput, folder=str(tmp_path))


def test_what_cannot_be_fetched(models: Path, hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    refused_by_command(["models", "get", "sora", "--from", hub.url], NotFound, name="sora", known=...)
    refused_by_command(["models", "get", "wan-1.3b", "--from", hub.url], NotFound, hub=..., endpoint=hub.url)
    nowhere = "http://127.0.0.1:9"
    refused_by_command(["models", "get", "zeroscope", "--from", nowhere], JobFailed, endpoint=nowhere, reason=...)
    refused_by_command(["models", "remove", "toybox", "--yes"], InvalidInput, model="toybox")
    refused_by_command(["models", "check", "toybox"], InvalidInput, model="toybox")
    usage = shutil.disk_usage(models.parent)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    refused_by_command(["models", "get", "zeroscope", "--from", hub.url, "--accept-license"], InvalidInput, free=0.001)
    assert hub.served == []
