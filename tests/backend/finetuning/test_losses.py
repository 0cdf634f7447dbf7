"""The three losses against the authors' values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from motionbooth.finetuning.losses import mask_cells, stca_loss, subject_attention, subject_region_loss

pytestmark = pytest.mark.numeric

Read = Callable[[str], tuple[dict[str, np.ndarray], Any]]


@pytest.mark.parametrize("case", ["box_div8", "nondiv", "same_res", "one_pixel_hit", "all_one", "upsampled"])
def test_region_loss_times_channels_is_the_authors(golden: Read, case: str) -> None:
    arrays, values = golden("masked_mse")
    predicted = torch.from_numpy(arrays[f"{case}/pred"]).requires_grad_()
    cells = mask_cells(torch.from_numpy(arrays[f"{case}/mask"])[:, :, 0], (8, 12))
    assert cells.sum() == values[case]["mask_true"]
    loss = 4.0 * subject_region_loss(predicted, torch.from_numpy(arrays[f"{case}/target"]), cells)
    loss.backward()
    assert loss.item() == pytest.approx(values[case]["loss"], rel=1e-12)
    torch.testing.assert_close(predicted.grad, torch.from_numpy(arrays[f"{case}/grad_pred_f64"]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", ["img_b2", "img_b5_nondiv", "with_exact_0_and_1"])
def test_stca_loss_is_the_authors(golden: Read, case: str) -> None:
    arrays, values = golden("stca")
    attention = torch.from_numpy(arrays[f"bce/{case}/cross_attn"]).requires_grad_()
    loss = stca_loss(attention.flatten(1), torch.from_numpy(arrays[f"bce/{case}/mask"])[:, :, 0], (4, 6))
    loss.backward()
    # The masks were resized in float32.
    assert loss.item() == pytest.approx(values["bce"][case], rel=1e-6)
    # Where A is exactly one the authors' gradient explodes (4e10); ours is zero there.
    below_one = attention.detach() < 1
    expected = torch.from_numpy(arrays[f"bce/{case}/grad_f64"])
    torch.testing.assert_close(attention.grad[below_one], expected[below_one], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("case", ["img_b5", "img_b3_mixed_heads", "video_b2_f4"])
def test_mean_attention_is_the_authors(golden: Read, case: str) -> None:
    arrays, values = golden("stca")
    layers = [
        rearrange(torch.from_numpy(arrays[f"aggregate/{case}/map{k}"]), "(b n) q t -> b n q t", n=layer["heads"]).mean(
            1
        )
        for k, layer in enumerate(values["aggregate"][case]["maps"])
    ]
    found = subject_attention(layers, "mean")
    expected = torch.from_numpy(arrays[f"aggregate/{case}/out"])
    torch.testing.assert_close(found.reshape(expected.shape), expected, rtol=0, atol=1e-12)


def test_summed_attention_of_a_phrase_is_not_capped_at_one_over_its_tokens() -> None:
    wholly_on_the_phrase = torch.tensor([[[0.5, 0.5]]])
    assert subject_attention([wholly_on_the_phrase], "mean").item() == 0.5
    assert subject_attention([wholly_on_the_phrase], "sum").item() == 1.0


def test_a_mask_that_rounding_lifts_above_one_is_no_error() -> None:
    mask = torch.full((1, 1, 8, 8), 1 + 2.0**-23)
    assert stca_loss(torch.full((1, 4), 0.5), mask, (2, 2)).item() == pytest.approx(0.6931472)
