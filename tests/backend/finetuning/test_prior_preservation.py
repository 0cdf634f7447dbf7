"""Prior-preservation clips: each is cached when it is done, whatever ends the run, and only the rest is generated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import platformdirs
import pytest
import torch
from motionbooth.finetuning.finetune import TrainingOptions, finetune
from motionbooth.finetuning.prior_preservation import (
    BATCH_SIZE,
    missing_backgrounds,
    missing_prior_clips,
    prior_clips,
)
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.settings import TrainSettings
from motionbooth.models.sources import Source, source_named
from motionbooth.progress.time_left import Stage
from motionbooth_protocol.errors import Canceled
from motionbooth_protocol.jobs import Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.text import Text
from PIL import Image
from torch import Tensor

CLIPS = 2 * BATCH_SIZE + 1


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache" / "motionbooth" / "prior_clips"


@pytest.fixture
def settings(tiny_single: Base) -> TrainSettings:
    return msgspec.structs.replace(tiny_single.settings.full, prior_clips=CLIPS)


class Steps:
    """What the sampling reported, and how many clips the UNet was given in each of its calls (guidance: twice)."""

    def __init__(self, base: Base, cancel_at: int | None = None) -> None:
        self.told: list[tuple[int, int]] = []
        self.batches: list[int] = []
        self._cancel_at = cancel_at
        forward = base.network.forward

        def counted(sample: Tensor, *args: object, **kwargs: object) -> object:
            self.batches.append(len(sample) // 2)
            return forward(sample, *args, **kwargs)

        base.network.forward = counted  # type: ignore[method-assign]

    def __call__(self, done: int, steps: int) -> None:
        self.told.append((done, steps))
        if done == self._cancel_at:
            raise Canceled("enough")


def test_a_run_that_is_broken_off_keeps_its_clips_and_continues_to_the_same(
    tiny_source: Source, settings: TrainSettings, cache: Path
) -> None:
    steps = tiny_source.settings.num_inference_steps
    base = load_base(tiny_source, device="cpu")
    cut = Steps(base, cancel_at=BATCH_SIZE * steps + BATCH_SIZE)  # in the second batch
    with pytest.raises(Canceled):
        prior_clips(base, settings, cut)
    assert len(list(cache.glob("*.safetensors"))) == BATCH_SIZE
    assert missing_prior_clips(tiny_source, settings) == CLIPS - BATCH_SIZE

    base = load_base(tiny_source, device="cpu")
    rest = Steps(base)
    resumed, captions = prior_clips(base, settings, rest)
    assert rest.told[0] == (BATCH_SIZE * steps, CLIPS * steps)  # the clock starts before the first new step
    assert rest.told[-1] == (CLIPS * steps, CLIPS * steps)
    assert sum(rest.batches) == (CLIPS - BATCH_SIZE) * steps
    for file in cache.iterdir():
        file.unlink()
    whole, captions_again = prior_clips(load_base(tiny_source, device="cpu"), settings)
    assert torch.equal(resumed, whole)
    assert captions == captions_again == tiny_source.settings.prior_prompts * CLIPS


def test_more_clips_cost_only_the_new_ones(tiny_single: Base, settings: TrainSettings) -> None:
    few, _ = prior_clips(tiny_single, msgspec.structs.replace(settings, prior_clips=3))
    steps = Steps(tiny_single)
    many, _ = prior_clips(tiny_single, settings, steps)
    assert sum(steps.batches) == (CLIPS - 3) * tiny_single.settings.num_inference_steps
    assert torch.equal(many[:3], few)
    assert len({clip.numpy().tobytes() for clip in many}) == CLIPS  # each from a seed of its own
    again = Steps(tiny_single)
    prior_clips(tiny_single, settings, again)
    assert again.told == []


def test_where_memory_is_short_fewer_are_generated_at_once(tiny_single: Base, settings: TrainSettings) -> None:
    expected, _ = prior_clips(tiny_single, msgspec.structs.replace(settings, prior_clips=1))
    forward = tiny_single.network.forward

    def small(sample: Tensor, *args: object, **kwargs: object) -> object:
        if len(sample) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(sample, *args, **kwargs)

    tiny_single.network.forward = small  # type: ignore[method-assign]
    told: list[int] = []
    clips, _ = prior_clips(tiny_single, settings, lambda done, count: told.append(done))
    assert len(clips) == CLIPS
    assert torch.equal(clips[:1], expected)
    assert told == sorted(told)


class Plan:
    """A reporter that ends the job when its pictures are next."""

    def plan(self, stages: Sequence[Stage]) -> None:
        self.stages = {stage.name: stage for stage in stages}

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        if stage == "finding masks":
            raise Canceled("enough")


@pytest.mark.usefixtures("tiny_model")
def test_the_job_plans_for_the_clips_that_are_missing(tmp_path: Path, tiny_single: Base) -> None:
    Image.effect_noise((60, 60), 90).convert("RGB").save(tmp_path / "p.png")
    Image.linear_gradient("L").resize((60, 60)).save(tmp_path / "m.png")
    files = {"0" * 64: tmp_path / "p.png", "1" * 64: tmp_path / "m.png"}
    subject = SubjectSpec("Rex", "sks", "dog", [Picture("0" * 64, "1" * 64)])
    settings, steps = tiny_single.settings.lora, tiny_single.settings.num_inference_steps

    def planned(recipe: str) -> int:
        told = Plan()
        with pytest.raises(Canceled):
            finetune(
                TrainSpec(subject, model="tiny", recipe=recipe), files.__getitem__, tmp_path, told, TrainingOptions()
            )
        return told.stages["generating prior-preservation clips"].steps

    assert planned("motionbooth") == settings.prior_clips * steps
    assert planned("no-preservation") == 0
    prior_clips(tiny_single, msgspec.structs.replace(settings, prior_clips=1))
    assert planned("motionbooth") == (settings.prior_clips - 1) * steps


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_gpu_generates_them_in_the_precision_of_the_training(
    tiny_source: Source, settings: TrainSettings, gpu: str, precision: str
) -> None:
    base = load_base(tiny_source, device=gpu, dtype=torch.float32)
    seen: set[torch.dtype] = set()
    base.network.conv_in.register_forward_hook(lambda module, given, result: seen.add(result.dtype))
    clips, _ = prior_clips(base, msgspec.structs.replace(settings, precision=precision))
    assert seen == {getattr(torch, precision)}
    assert clips.isfinite().all()


@pytest.mark.parametrize("name", ["toybox", "wantoy"])
def test_a_bundled_model_has_the_clips_of_its_default_training(name: str, cache: Path) -> None:
    """So that a first training starts at once. They are of the network in the bundle: its weights are in their keys."""
    source = source_named(name)
    settings = getattr(source.settings, source.settings.method)
    assert missing_prior_clips(source, settings) == missing_backgrounds(source, settings) == 0
    more = msgspec.structs.replace(settings, prior_clips=settings.prior_clips + 2)
    assert missing_prior_clips(source, more) == 2
    base = load_base(source)
    clips, captions = prior_clips(base, settings)
    assert len(clips) == len(captions) == settings.prior_clips
    assert clips.shape[1:] == base.latent_shape
    assert len({clip.numpy().tobytes() for clip in clips}) == len(clips)
    assert not cache.exists(), "nothing was generated"
