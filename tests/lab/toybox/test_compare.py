"""Comparing recipes of toybox's training: Muon, the codecs, the judge, and a run that goes on where it ended."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from motionbooth_lab.toybox.bank import Bank, build_bank
from motionbooth_lab.toybox.batches import Words
from motionbooth_lab.toybox.compare import FOUR_CHANNELS, RECIPES, Comparison, Plan, Recipe, chosen_recipes
from motionbooth_lab.toybox.judging import Codec, Judge
from motionbooth_lab.toybox.masters import Masters
from motionbooth_lab.toybox.muon import orthogonalized, takes
from motionbooth_lab.toybox.tokenizer import build_tokenizer
from torch import nn

ALL = Codec(tuple(range(12)), (1.0,) * 12)
FOUR = Codec(FOUR_CHANNELS, (1.0,) * 4)


@pytest.fixture(scope="module")
def bank() -> Bank:
    return build_bank(8, 2, 1, 1)


@pytest.fixture(scope="module")
def words(bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> Words:
    return Words(build_tokenizer(tmp_path_factory.mktemp("tokenizer")), len(bank.entries))


# Muon


@pytest.mark.parametrize("shape", [(2, 20, 60), (2, 60, 20)])
def test_muon_moves_singular_values_near_1(shape: tuple[int, ...]) -> None:
    dice = torch.Generator().manual_seed(1)
    values = torch.linalg.svdvals(orthogonalized(torch.randn(shape, generator=dice) * 1e-3))
    assert 0.5 < values.min() <= values.max() < 1.3


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"conv_in": nn.Conv2d(1, 4, 3), "conv": nn.Conv2d(4, 4, 3), "unused": nn.Conv2d(4, 4, 3)})


def one_step(model: nn.Module, masters: Masters, seed: int) -> None:
    masters.set_rate(1e-2)
    masters.clear_gradients()
    pictures = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    model["conv"](model["conv_in"](pictures)).square().mean().backward()
    masters.step()
    masters.count_step()


def test_muon_takes_hidden_layers_that_have_a_gradient_and_goes_on_after_a_restart() -> None:
    chosen = [name for name, parameter in network().named_parameters() if takes(name, parameter)]
    assert chosen == ["conv.weight", "unused.weight"]
    model = network()
    masters = Masters(model, (0.9, 0.99), 0.1, with_muon=True)
    one_step(model, masters, 1)
    moved = model["conv"].weight - network()["conv"].weight * (1 - 1e-2 * 0.1)
    size = float(moved.detach().square().mean().sqrt())
    assert size == pytest.approx(1e-2 * 0.2, rel=0.3), "as an update of AdamW"
    assert torch.equal(model["unused"].weight, network()["unused"].weight)
    resumed = network()
    masters_again = Masters(resumed, (0.9, 0.99), 0.1, with_muon=True)
    masters_again.restore(masters.state())
    for each, its_masters in ((model, masters), (resumed, masters_again)):
        one_step(each, its_masters, 2)
    assert torch.equal(model["conv"].weight, resumed["conv"].weight)


# Judging


def test_a_codec_keeps_its_channels() -> None:
    latents = torch.randn(2, 12, 1, 4, 6, generator=torch.Generator().manual_seed(1))
    codec = Codec((0, 6), (2.0, 3.0))
    narrow = codec.latents_of(latents)
    torch.testing.assert_close(narrow[:, 1], latents[:, 6] * 3)
    full = codec.full(narrow)
    torch.testing.assert_close(full[:, [0, 6]], latents[:, [0, 6]])
    assert full.count_nonzero() == narrow.count_nonzero()


def test_the_judge_knows_drawn_characters_and_their_faces_and_no_others(bank: Bank, words: Words) -> None:
    judge = Judge(bank, words, 1, 24)
    drawn, through = judge.pictures, {codec: judge.through(codec, None) for codec in (ALL, FOUR)}
    exact, twelve, four = map(judge.judged, (drawn, through[ALL], through[FOUR]))
    assert exact["who"] > 0.9
    assert exact["face"] > twelve["face"] > four["face"] > judge.chance(through[FOUR]) + 0.2
    flat = np.broadcast_to(drawn.mean((1, 2), keepdims=True).round().astype(np.uint8), drawn.shape)
    nobody = judge.judged(flat)
    assert nobody["who"] < 0.2
    assert nobody["face"] < 0.1


# Running


def test_a_comparison_trains_and_judges_only_what_is_missing(tmp_path: Path) -> None:
    plan = Plan(tmp_path, 0.1, 2, 1, 4, 2, 1, 1, 1, "cpu", judged=2, decoder_seconds=0.1)
    recipes = chosen_recipes(["clips"])
    assert [recipe.name for recipe in recipes] == ["shipped", "clips"], "and what it begins with"
    first, second = Comparison(plan), chosen_recipes(["four-channels", "clips"])
    assert first.run(recipes, judging=False)
    assert all("judged" not in result for result in first.results.values())
    trained = {name: (tmp_path / "weights" / f"{name}.pt").stat().st_mtime_ns for name in ("shipped", "clips")}
    again = Comparison(plan)
    assert again.run(second)
    again.write_bundles(second)
    assert {name: (tmp_path / "weights" / f"{name}.pt").stat().st_mtime_ns for name in trained} == trained
    results = json.loads((tmp_path / "compare.json").read_text())
    assert set(results) == {"shipped", "clips", "four-channels"}
    for result in results.values():
        assert 0 <= result["judged"]["who"] <= 1
        assert result["ceiling_linear"]["face"] > 0.3
    assert results["clips"]["clips"]["frames"] > 0
    assert (tmp_path / "compare.png").is_file()
    assert (tmp_path / "bundles" / "clips" / "bundle" / "model_index.json").is_file()


def test_a_recipe_that_fails_is_reported_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = Comparison(Plan(tmp_path, 0.01, 2, 1, 4, 2, 1, 1, 1, "cpu", judged=2, decoder_seconds=0.1))
    broken = Recipe("broken", channels=(99,))
    assert not comparison.run([broken, *chosen_recipes(["shipped"])], judging=False)
    assert "broken failed" in capsys.readouterr().out
    assert set(comparison.results) == {"shipped"}


def test_masters_resume_from_a_state_without_muon() -> None:
    model = network()
    masters = Masters(model, (0.9, 0.99), 0.1)
    one_step(model, masters, 1)
    older = {name: value for name, value in masters.state().items() if name != "muon"}
    resumed = Masters(network(), (0.9, 0.99), 0.1)
    resumed.restore(older)
    assert resumed.steps == 1


def test_an_unknown_recipe_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(typer.BadParameter, match=r"no recipe muom. The recipes are shipped, .*muon"):
        chosen_recipes(["muom"])
    assert {recipe.begins_with for recipe in RECIPES} - {""} <= {recipe.name for recipe in RECIPES}
