"""A base that stays in memory generates the same as a base loaded for the job, to the last bit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from motionbooth.generation.sampling import generate_clip
from motionbooth.jobs.model_cache import ModelCache, in_loading_order
from motionbooth.models.registry import load_base
from motionbooth.models.sources import Source
from motionbooth.models.subject_card import SubjectCard, read_card
from motionbooth.models.subject_weights import add_lora, save_subject
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from refused import refused
from torch import Tensor

pytestmark = pytest.mark.numeric

A, B, FULL = "a" * 64, "b" * 64, "f" * 64


@pytest.fixture(scope="module")
def folder(tiny_source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two LoRA subjects and a full one, by their names, and a folder of models with one that is called "tiny"."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "models").mkdir()
    (folder / "models" / "tiny").symlink_to(tiny_source.folder)
    for seed, (sha256, method) in enumerate([(A, "lora"), (B, "lora"), (FULL, "full")]):
        learn_nonsense(tiny_source, folder / sha256, method, seed)
    return folder


@pytest.fixture
def blob_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(folder / "models"))
    return folder.joinpath


def learn_nonsense(source: Source, path: Path, method: str, seed: int) -> None:
    base = load_base(source, device="cpu")
    settings = base.settings.lora
    if method == "lora":
        add_lora(base.network, settings.rank, settings.target_modules, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in base.network.named_parameters():
            if method == "full" or "lora" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    card = SubjectCard(
        "x", "sks", "dog", "", "tiny", source.network_sha256, method, settings.rank, settings.target_modules
    )
    save_subject(path, base, card)


def spec(*weights: str) -> GenerateSpec:
    words = "abcd"
    tracks = [
        SubjectTrack(name, "dog", [Box(0.1, 0.2, 0.6, 0.8)] * 4, token=name, weights=sha256)
        for name, sha256 in zip(words, weights, strict=False)
    ]
    shot = Shot("shot", 1, 9, 24, 192, 128, CameraPath.still(4), tracks)
    prompt = " and ".join(track.phrase for track in tracks) or "a dog"
    return GenerateSpec(shot, prompt, model="tiny", num_inference_steps=1)


def clip(cache: ModelCache, spec: GenerateSpec, blob_path: Callable[[str], Path]) -> Tensor:
    return generate_clip(cache.get(spec, blob_path), spec)


def test_no_subject_leaks_into_the_next_job_bit_for_bit(blob_path: Callable[[str], Path]) -> None:
    wanted = [(), (A,), (A, B), (B,), (FULL,), ()]
    cold = {weights: clip(ModelCache(), spec(*weights), blob_path) for weights in set(wanted)}
    cache = ModelCache()
    for weights in wanted:
        assert torch.equal(clip(cache, spec(*weights), blob_path), cold[weights]), weights
    assert not torch.equal(cold[()], cold[(A,)])
    assert not torch.equal(cold[(A,)], cold[(B,)])


def test_the_base_is_loaded_once_for_jobs_that_agree(blob_path: Callable[[str], Path]) -> None:
    cache = ModelCache()
    base = cache.get(spec(), blob_path)
    assert cache.get(spec(), blob_path) is base
    assert cache.get(spec(A), blob_path) is base
    assert cache.get(spec(A), blob_path) is base
    assert cache.get(spec(B), blob_path) is not base


def test_a_subject_that_cannot_be_loaded_leaves_nothing_behind(blob_path: Callable[[str], Path]) -> None:
    cold = clip(ModelCache(), spec(A), blob_path)
    card = read_card(blob_path(B))
    of_another_base = blob_path(B).read_bytes().replace(card.base_sha256.encode(), b"0" * 64)
    blob_path("broken").write_bytes(of_another_base)
    cache = ModelCache()
    base = cache.get(spec(), blob_path)
    with refused(InvalidInput, base="tiny", model="tiny"):
        cache.get(spec(A, "broken"), blob_path)
    assert cache.get(spec(A), blob_path) is not base
    assert torch.equal(clip(cache, spec(A), blob_path), cold)


def test_full_weights_are_loaded_first_whatever_the_order_of_the_shot(blob_path: Callable[[str], Path]) -> None:
    first, last = (clip(ModelCache(), spec(*weights), blob_path) for weights in ((FULL, A), (FULL,)))
    assert not torch.equal(first, last)  # the LoRA is not lost under the full weights
    assert in_loading_order((A, FULL, B), blob_path) == (FULL, A, B)


def test_two_subjects_of_full_weights_are_refused(blob_path: Callable[[str], Path]) -> None:
    other = blob_path("other")
    other.write_bytes(blob_path(FULL).read_bytes())
    with refused(InvalidInput, one="x", other="x"):
        ModelCache().get(spec(FULL, "other"), blob_path)


def test_a_model_whose_files_changed_is_loaded_again(
    tiny_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_source.folder, tmp_path / "tiny")
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path))
    cache = ModelCache()
    first = cache.get(spec(), tmp_path.joinpath)
    assert cache.get(spec(), tmp_path.joinpath) is first
    os.utime(tmp_path / "tiny" / "model_index.json", (1, 1))
    assert cache.get(spec(), tmp_path.joinpath) is not first
