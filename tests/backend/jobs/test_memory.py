"""A job that runs out of memory is tried once more with the next smaller memory plan, and says so."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet3DConditionModel
from motionbooth.bench.gpu.precision import pan_spec
from motionbooth.generation.batches import in_batches
from motionbooth.generation.video import read_clip
from motionbooth.jobs import model_cache
from motionbooth.jobs.model_cache import ModelCache
from motionbooth.jobs.runner import run_job
from motionbooth.jobs.takes import generate_best_of
from motionbooth.models.base import Base
from motionbooth.models.memory.device import default_device
from motionbooth.models.memory.loading import load_planned
from motionbooth.models.memory.moving import layers_of
from motionbooth.models.memory.options import Computing
from motionbooth.models.memory.plans import CHUNKED, OFFLOADED, PLANS
from motionbooth.models.sources import Source
from motionbooth.progress.time_left import Stage
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec, Style
from motionbooth_protocol.text import Text
from msgspec.structs import replace
from refused import refused

TOO_MUCH = 2**56


class Notes:
    """A reporter that remembers the notes."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def plan(self, stages: Sequence[Stage]) -> None:
        pass

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        if note is not None and str(note) not in self.said:
            self.said.append(str(note))


@pytest.fixture
def spec(tiny_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GenerateSpec:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny").symlink_to(tiny_source.folder)
    monkeypatch.setenv("MOTIONBOOTH_MODELS", str(tmp_path / "models"))
    return replace(pan_spec(tiny_source.settings), model="tiny", num_inference_steps=2)


def limit_batch(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """Let torch fail to allocate for more samples in a batch. Returns the batches that were tried."""
    forward, tried = UNet3DConditionModel.forward, []

    def limited(self: UNet3DConditionModel, sample: torch.Tensor, *rest: Any, **named: Any) -> Any:
        tried.append(len(sample))
        if len(sample) > most:
            torch.empty(TOO_MUCH)
        return forward(self, sample, *rest, **named)

    monkeypatch.setattr(UNet3DConditionModel, "forward", limited)
    return tried


def test_guidance_in_turn_is_tried_when_both_passes_do_not_fit(
    spec: GenerateSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, notes, cache = limit_batch(monkeypatch, 1), Notes(), ModelCache()
    results = run_job(spec, Path, tmp_path, notes, cache)
    assert len(read_clip(results["clip"])[0]) == spec.shot.scene_frames
    assert tried == [2, 1, 1, 1, 1]
    assert cache.base.plan.name == "chunked"
    assert notes.said == ["the memory did not suffice with the plan all; trying once more with the plan chunked"]
    run_job(spec, Path, tmp_path, notes, cache)
    assert tried[5:] == [1, 1, 1, 1], "the next job begins with the plan that fits"


def test_it_is_tried_once_only(spec: GenerateSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = limit_batch(monkeypatch, 0)
    with pytest.raises(RuntimeError, match="allocate"):
        run_job(spec, Path, tmp_path, Notes())
    assert tried == [2, 1]


def test_a_subject_or_style_that_does_not_fit_is_retried_likewise(
    spec: GenerateSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A LoRA's product takes as much as the layer that it is added to."""
    plans: list[str] = []

    def limited(base: Base, path: Path, style: Style) -> None:
        plans.append(base.plan.name)
        if plans == ["all"]:
            torch.empty(TOO_MUCH)

    monkeypatch.setattr(model_cache, "add_style", limited)
    notes = Notes()
    run_job(replace(spec, styles=[Style("0" * 64)]), Path, tmp_path, notes)
    assert plans == ["all", "chunked"]
    assert len(notes.said) == 1


def test_takes_are_retried_likewise(spec: GenerateSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried, notes = limit_batch(monkeypatch, 1), Notes()
    takes = generate_best_of(spec, 2, 1, tmp_path / "out.mp4", Path, notes, Computing())
    assert len(takes) == 2
    assert tried == [2] + 8 * [1]
    assert len(notes.said) == 1


@pytest.mark.parametrize(
    "words",
    [
        "MPS backend out of memory (MPS allocated: 17.9 GB)",
        "can't allocate memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_batches_are_halved_wherever_memory_runs_out(words: str) -> None:
    """Only CUDA and XPU have a class for it."""
    tried: list[int] = []

    def sample(batch: Sequence[int], first: int) -> torch.Tensor:
        tried.append(len(batch))
        if len(batch) > 2:
            raise RuntimeError(words)
        return torch.zeros(len(batch))

    assert [seed for seed, _ in in_batches(range(5), 4, sample)] == [0, 1, 2, 3, 4]
    assert tried == [4, 2, 2, 1]


def test_layers_that_come_and_go_are_not_compiled(tiny_source: Source) -> None:
    for plan, compiled in ((CHUNKED, True), (OFFLOADED, False)):
        base = load_planned(tiny_source, Computing("cpu", compile=True), plan)
        assert {layer._compiled_call_impl is not None for layer in layers_of(base.network)} == {compiled}


def test_the_users_plan_and_device_are_taken(spec: GenerateSpec) -> None:
    base = ModelCache(Computing("cpu", "offloaded", "bfloat16")).get(spec, Path)
    assert (base.plan.name, base.device.type, base.dtype) == ("offloaded", "cpu", torch.bfloat16)
    if default_device() == "cpu":
        with refused(InvalidInput, device="cuda", here="cpu"):
            ModelCache(Computing("cuda")).get(spec, Path)
    with refused(InvalidInput, model="Tiny", kind="flash"):
        base.use_attention("flash")


@pytest.mark.gpu
@pytest.mark.parametrize("plan", PLANS)
def test_each_plan_makes_a_clip_on_a_gpu(spec: GenerateSpec, tmp_path: Path, plan: Any) -> None:
    cache = ModelCache(Computing(memory=plan.name))
    clip = read_clip(run_job(spec, Path, tmp_path, Notes(), cache)["clip"])[0]
    assert cache.base.plan == plan
    assert clip.std() > 0
