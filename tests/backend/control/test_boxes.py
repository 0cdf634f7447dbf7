"""The attention edit against the authors' values, and where ours differs on purpose."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet3DConditionModel
from hypothesis import given, settings
from hypothesis import strategies as st
from motionbooth.control.boxes import (
    AttentionControl,
    BoxControl,
    Grid,
    batch_bias,
    box_cells,
    level_grids,
)
from motionbooth.control.prompt import PromptTokens
from motionbooth.models.base import Base
from motionbooth_protocol.motion import Box

pytestmark = pytest.mark.numeric

Read = Callable[[str], tuple[dict[str, np.ndarray], Any]]
TOKENS = PromptTokens(length=16, content=range(1, 8), subjects=((2, 3),))
MIDDLE = Box(0.25, 0.25, 0.75, 0.75)


def attention_bias(control: BoxControl, grid: Grid) -> torch.Tensor:
    """The bias of one sample: (F, h*w, tokens)."""
    bias = batch_bias([control], grid, len(control.boxes[0]), torch.zeros(0))
    assert bias is not None
    return bias[:, 0]


SAME_AS_THE_AUTHORS = [
    "one_amp_nobg",
    "one_amp_bg",
    "two_amp_nobg",
    "one_noamp_nobg",
    "two_noamp_nobg",
    "two_noamp_bg",
    "wholly_outside",
    "half_rounding",
    "inverted_box",
    "second_phrase_missing",
    "bg_overlaps_subject",
    "fewer_phrases_than_boxes",
]


@pytest.mark.parametrize("name", SAME_AS_THE_AUTHORS)
def test_probabilities_equal_the_authors(golden: Read, name: str) -> None:
    arrays, values = golden("attn_edit")
    case, width, height = values["cases"][name], values["image_width"], values["image_height"]

    def box(x1: float, y1: float, x2: float, y2: float) -> Box | None:
        return Box(x1 / width, y1 / height, x2 / width, y2 / height) if x1 < x2 and y1 < y2 else None

    named = [k for k, phrase in enumerate(case["phrase_indices"]) if phrase is not None]
    tracks = [[box(*frame[k]) for frame in case["bbox"]] for k in named]
    tokens = PromptTokens(
        length=16,
        content=range(1, case["prompt_length"] - 1),
        subjects=tuple(tuple(case["phrase_indices"][k]) for k in named),
        background=tuple(case["bg_phrase_indices"] or ()),
    )
    bias = attention_bias(BoxControl(tracks, tokens, case["edit_scale"], case["is_amp"]), (6, 9))
    logits = torch.from_numpy(arrays["raw"]) + bias.double().repeat_interleave(2, dim=0)  # two heads
    # The bias is float32: one rounding of eight or so is 1e-6, and a probability moves by a quarter of that at most.
    torch.testing.assert_close(logits.softmax(-1).float(), torch.from_numpy(arrays[f"{name}/probs"]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("box", "cells"),
    [
        (MIDDLE, (2, 2, 7, 4)),  # 2.25, 1.5, 6.75, 4.5: halves go to the even neighbour, as the authors' do
        (Box(0, 0, 1, 1), (0, 0, 9, 6)),
        (Box(-3, -3, 4, 4), (0, 0, 9, 6)),
        (Box(-1, 0, -0.2, 1), (0, 0, 0, 0)),
        (Box(0.5, 0.5, 0.501, 0.501), (4, 3, 5, 4)),  # rounds to nothing: the authors lose the subject here
        (Box(0.999, 0.999, 0.9999, 0.9999), (8, 5, 9, 6)),
        (Box(-0.03, 0.5, 0.02, 1.0), (0, 0, 0, 0)),  # a sliver whose centre is out of frame
        (None, (0, 0, 0, 0)),
    ],
)
def test_boxes_in_cells_of_a_grid_six_high_and_nine_wide(box: Box | None, cells: tuple[int, ...]) -> None:
    assert box_cells(box, (6, 9)) == cells


@given(
    st.tuples(*[st.floats(-2, 3) for _ in range(4)]),
    st.sampled_from([(1, 1), (2, 3), (5, 9), (10, 18), (40, 72)]),
)
@settings(deadline=None)
def test_a_box_never_leaves_the_grid_and_never_vanishes_while_its_centre_is_seen(
    edges: tuple[float, ...], grid: tuple[int, int]
) -> None:
    x1, x2 = sorted(edges[:2])
    y1, y2 = sorted(edges[2:])
    if x1 == x2 or y1 == y2:
        return
    box = Box(x1, y1, x2, y2)
    left, top, right, bottom = box_cells(box, grid)
    assert 0 <= left <= right <= grid[1]
    assert 0 <= top <= bottom <= grid[0]
    if all(0 <= c < 1 for c in box.center):
        assert left < right
        assert top < bottom


def test_grids_halve_rounding_up() -> None:
    assert level_grids((40, 72), 4) == [(40, 72), (20, 36), (10, 18), (5, 9)]
    assert level_grids((5, 9), 3) == [(5, 9), (3, 5), (2, 3)]


def test_bos_eos_and_padding_are_never_suppressed() -> None:
    bias = attention_bias(BoxControl([[None, MIDDLE]], TOKENS, 7.5, amplify=True), (6, 9))
    assert (bias[..., [0, *range(8, 16)]] == 0).all()
    assert torch.isfinite(bias).any(dim=-1).all()


def test_a_subject_out_of_frame_is_suppressed_in_that_frame_only() -> None:
    bias = attention_bias(BoxControl([[None, MIDDLE]], TOKENS, 7.5, amplify=True), (6, 9))
    assert (bias[0][:, [2, 3]] == -torch.inf).all()
    assert (bias[1][:, [2, 3]] > 0).any()


def test_amplification_is_alpha_times_one_minus_the_area_share() -> None:
    left_half = Box(0, 0, 0.5, 1)
    bias = attention_bias(BoxControl([[left_half]], TOKENS, 8.0, amplify=True), (4, 4)).reshape(4, 4, 16)
    assert (bias[:, :2, 2] == 8.0 * (1 - 0.5)).all()
    assert (bias[:, 2:, 2] == -torch.inf).all()
    bias = attention_bias(BoxControl([[left_half]], TOKENS, 8.0, amplify=False), (4, 4)).reshape(4, 4, 16)
    assert (bias[:, :2, 2] == 0).all()
    assert (bias[:, 2:, 2] == -torch.inf).all()


@pytest.mark.parametrize(("suppress", "expected"), [("content", -torch.inf), ("subject", 0.0)])
def test_other_words_are_suppressed_or_left_alone(suppress: Any, expected: float) -> None:
    bias = attention_bias(BoxControl([[MIDDLE]], TOKENS, 7.5, True, suppress), (6, 9))
    assert (bias[..., [1, 4, 5, 6, 7]] == expected).all()


def test_the_background_phrase_acts_outside_all_boxes_only() -> None:
    tokens = PromptTokens(16, range(1, 8), ((2, 3),), background=(6, 7))
    bias = attention_bias(BoxControl([[Box(0, 0, 0.5, 1)]], tokens, 8.0, True, "subject"), (4, 4)).reshape(4, 4, 16)
    assert (bias[:, :2, 6] == -torch.inf).all()
    assert (bias[:, 2:, 6] == 4.0).all()


def test_two_subjects_share_a_cell_that_lies_in_both_boxes() -> None:
    tokens = PromptTokens(16, range(1, 8), ((2,), (5,)))
    boxes = [[Box(0, 0, 0.75, 1)], [Box(0.25, 0, 1, 1)]]
    bias = attention_bias(BoxControl(boxes, tokens, 8.0, True), (4, 4)).reshape(4, 4, 16)
    assert (bias[:, 1:3, [2, 5]] == 2.0).all()
    assert (bias[:, 0, 5] == -torch.inf).all()
    assert (bias[:, 3, 2] == -torch.inf).all()


def test_a_batch_mixes_samples_with_and_without_an_edit() -> None:
    first = BoxControl([[MIDDLE, None]], TOKENS, 3.0, True)
    second = BoxControl([[None, MIDDLE]], PromptTokens(16, range(1, 5), ((1,),)), 9.0, False)
    bias = batch_bias([first, None, second, second], (6, 9), frames=2, like=torch.zeros(0))
    assert bias is not None
    assert bias.shape == (8, 1, 54, 16)
    assert torch.equal(bias[0:2, 0], attention_bias(first, (6, 9)))
    assert (bias[2:4] == 0).all()
    assert torch.equal(bias[4:6, 0], attention_bias(second, (6, 9)))
    assert torch.equal(bias[6:8], bias[4:6])
    assert batch_bias([None, None], (6, 9), frames=2, like=torch.zeros(0)) is None


def unet_call(base: Base) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(2, 4, 3, 10, 12, generator=generator)
    text = torch.randn(2, 77, 32, generator=generator)
    with torch.no_grad():
        return base.network(sample, 500, text).sample


def test_the_unet_changes_only_where_and_while_boxes_are_set(tiny_single: Base) -> None:
    tokens = PromptTokens(77, range(1, 10), ((2, 3),))
    control = BoxControl([[MIDDLE] * 3], tokens, 7.5, True)
    plain = unet_call(tiny_single)
    tiny_single.control.set_boxes([None, control], (10, 12), frames=3)
    edited = unet_call(tiny_single)
    torch.testing.assert_close(edited[0], plain[0])
    assert (edited[1] - plain[1]).abs().max() > 0.01
    tiny_single.control.clear()
    assert torch.equal(unet_call(tiny_single), plain)


def test_an_untouched_unet_computes_what_it_did_before_the_processors_came(tiny_single: Base) -> None:
    ours = unet_call(tiny_single)
    tiny_single.network = UNet3DConditionModel.from_pretrained(tiny_single.source.folder / "unet")
    torch.testing.assert_close(ours, unet_call(tiny_single), rtol=1e-4, atol=1e-4)


def test_boxes_for_another_batch_are_refused(tiny_single: Base) -> None:
    tokens = PromptTokens(77, range(1, 10), ((2, 3),))
    tiny_single.control.set_boxes([BoxControl([[MIDDLE] * 3], tokens, 7.5, True)], (10, 12), frames=3)
    with pytest.raises(ValueError, match="1 samples of 3 frames, got 6 rows"):
        unet_call(tiny_single)


def test_watched_columns_are_those_of_the_whole_softmax(tiny_single: Base) -> None:
    control: AttentionControl = tiny_single.control
    control.record(range(77), (3, 3))
    unet_call(tiny_single)
    layers = control.stop_recording()
    assert len(layers) == 4
    assert all(layer.shape == (6, 9, 77) for layer in layers)
    assert all(torch.allclose(layer.sum(-1), torch.ones(6, 9), atol=1e-5) for layer in layers)
    unet_call(tiny_single)
    assert control.stop_recording() == []


def test_soft_edges_weigh_a_cell_by_the_share_that_the_box_covers() -> None:
    box = Box(0.125, 0.25, 0.75, 1.5)  # of 4 x 4 cells: columns 0.5 to 3, rows 1 to 4 and beyond
    hard = BoxControl([[box, None]], TOKENS, 2.0, amplify=True, suppress="subject")
    soft = replace(hard, soft_edges=True)
    bias = attention_bias(soft, (4, 4))[..., 2].unflatten(1, (4, 4))
    bonus = 2.0 * (1 - 7.5 / 16)
    assert bias[0, 1].tolist() == pytest.approx([bonus + math.log(0.5), bonus, bonus, -math.inf])
    assert bool((bias[0, 0] == -math.inf).all())
    assert bool((bias[1] == -math.inf).all()), "out of frame"
    aligned = replace(hard, boxes=[[MIDDLE]])
    whole = attention_bias(replace(aligned, soft_edges=True), (4, 4))
    assert torch.equal(whole, attention_bias(aligned, (4, 4))), "a box of whole cells has no soft edges"


def test_amplification_outweighs_identical_padding_as_one_key() -> None:
    control = BoxControl([[MIDDLE]], TOKENS, 2.0, amplify=True, suppress="subject")
    padded = replace(control, tokens=replace(TOKENS, padding=7))
    plain, against = (attention_bias(each, (4, 4))[0, :, 2] for each in (control, padded))
    inside = plain > 0
    torch.testing.assert_close(against[inside], plain[inside] + math.log(8))
    assert bool((against[~inside] == -math.inf).all())
    unamplified = replace(padded, amplify=False)
    assert bool((attention_bias(unamplified, (4, 4))[0, :, 2][inside] == 0).all())
