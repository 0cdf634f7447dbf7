"""What each recipe changes, and what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import platformdirs
import pytest
import torch
from motionbooth.finetuning.dataset import TrainingData
from motionbooth.finetuning.finetune import (
    NO_PRIOR_CLIPS,
    preserved_clips,
    set_trainable,
    train_settings,
    training_warnings,
)
from motionbooth.finetuning.recipes import RECIPES, recipe_named, with_recipe
from motionbooth.finetuning.trainer import image_loss
from motionbooth.models.base import Base
from motionbooth.progress.time_left import Stage
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import Picture, SubjectSpec, TrainSpec
from motionbooth_protocol.text import Text
from refused import refused

SUBJECT = SubjectSpec("Rex", "sks", "dog", [Picture("0" * 64)])


class Silent:
    def plan(self, stages: Sequence[Stage]) -> None:
        pass

    def progress(self, stage: str, step: int, steps: int, note: Text | None = None) -> None:
        pass


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)


def test_the_method_itself_changes_nothing_and_an_ablation_one_thing(tiny_single: Base) -> None:
    full = tiny_single.settings.full
    assert with_recipe(full, "motionbooth") == full
    for name in ("no-preservation", "no-attention", "attention-sum", "class-clips"):
        fields = msgspec.structs.asdict(with_recipe(full, name))
        assert len([k for k, v in msgspec.structs.asdict(full).items() if fields[k] != v]) == 1


@pytest.mark.parametrize("recipe", ["no-region", "dreambooth", "customvideo"])
def test_without_the_region_loss_a_step_minimizes_the_plain_mean_squared_error(tiny_single: Base, recipe: str) -> None:
    settings = with_recipe(msgspec.structs.replace(tiny_single.settings.full, subject_weight=4.0), recipe)
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 2, 4, 1, 16, 24, generator=generator)
    noisy = tiny_single.add_noise(latents, noise, torch.tensor([300, 700]))
    masks = torch.zeros(2, 1, 128, 192)
    masks[..., 40:90, 40:90] = 1
    loss = image_loss(tiny_single, settings, noisy, tiny_single.embed(["a sks dog"]), masks, (2, 3))
    expected = loss.parts["region"] + settings.stca_weight * loss.parts.get("attention", torch.zeros(()))
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-6)  # one multiplication and one sum in float32


def test_an_unknown_recipe_is_answered_with_the_known_ones() -> None:
    with refused(InvalidInput, name="lora", recipes=", ".join(RECIPES)):
        recipe_named("lora")
    assert all(recipe.description for recipe in RECIPES.values())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_customvideo_trains_the_texts_keys_and_values_alone(tiny_single: Base, method: str) -> None:
    spec = TrainSpec(SUBJECT, method=method, recipe="customvideo")
    set_trainable(tiny_single, train_settings(tiny_single.settings, spec), method, seed=0)
    trainable = [name for name, parameter in tiny_single.network.named_parameters() if parameter.requires_grad]
    assert trainable
    assert all(".attn2.to_k." in name or ".attn2.to_v." in name for name in trainable)
    assert not any("temp_attentions" in name or "transformer_in" in name for name in trainable)


def test_what_a_job_says_goes_before_its_recipe(tiny_single: Base) -> None:
    spec = TrainSpec(SUBJECT, recipe="dreambooth", steps=7, learning_rate=0.5, method="full")
    settings = train_settings(tiny_single.settings, spec)
    assert (settings.steps, settings.learning_rate, settings.loss_region) == (7, 0.5, "picture")


def test_each_way_of_preserving_gives_its_clips(tiny_single: Base) -> None:
    def clips(recipe: str) -> tuple[torch.Tensor, list[str]]:
        settings = with_recipe(tiny_single.settings.full, recipe)
        return preserved_clips(tiny_single, settings, SUBJECT, None, Silent())

    prior, captions = clips("motionbooth")
    assert captions == tiny_single.settings.prior_prompts * 2
    of_class, class_captions = clips("class-clips")
    assert class_captions == ["a dog"] * 2
    assert of_class.shape == prior.shape
    assert not torch.equal(of_class, prior)
    pictures, _ = clips("dreambooth")
    assert torch.equal(pictures, of_class[:, :, 2:3])
    assert len(clips("no-preservation")[0]) == 0


def test_what_is_lost_is_said(tiny_single: Base) -> None:
    settings = msgspec.structs.replace(tiny_single.settings.full, learning_rate=5e-2)
    nothing = torch.zeros(0)
    data = TrainingData(nothing, nothing, nothing, nothing, (1,), nothing, nothing)
    told = training_warnings(settings, data)
    assert told[0] == NO_PRIOR_CLIPS
    assert told[1].values == {"rate": 0.05}
