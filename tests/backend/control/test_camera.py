"""The latent shift against the authors' values, and where ours differs on purpose."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from motionbooth.control.camera import (
    boxes_under_way,
    fraction_of_cell,
    random_pick,
    shift_by_phase,
    shift_frame,
    shift_latents,
    travel_in_cells,
)
from motionbooth_protocol.motion import Box, CameraPath, Offset
from torch import Tensor

pytestmark = pytest.mark.numeric

Read = Callable[[str], tuple[dict[str, np.ndarray], Any]]
EVERYWHERE = torch.ones(8, 12, dtype=torch.bool)

CASES = [f"{boxes}_{way}" for boxes in ("nobox", "box") for way in ("px", "nx", "py", "ny", "pp", "nn", "pn")]
CASES += ["nobox_np", "nobox_zero", "box_frac", "twobox_px", "steps10_float_loss", "offframe_box", "offframe_box_x"]


@pytest.mark.parametrize("name", CASES)
def test_latents_equal_the_authors_when_fed_with_their_moves_and_fills(golden: Read, name: str) -> None:
    arrays, values = golden("shift_latent")
    latents = torch.from_numpy(arrays["latents0"])
    for number, call in enumerate(values["cases"][name]["calls"]):
        moves = list(zip(call["int_shift_x"], call["int_shift_y"], strict=True))
        fills = iter([f[axis] for f in call["fills"] for axis in ("fill_x", "fill_y") if f[axis] is not None])
        free = EVERYWHERE.expand(len(moves), -1, -1)
        latents = shift_latents(latents, moves, free, lambda free, holes, fills=fills: torch.tensor(next(fills)))
        assert torch.equal(latents, torch.from_numpy(arrays[f"{name}/latents"][number]))


def test_travel_is_exact_where_summed_rounded_steps_lose_cells() -> None:
    camera = CameraPath.straight(0.5, 0, 24)  # summed increments are one cell short on five of these frames
    assert [x for x, _ in travel_in_cells(camera, 1.0, (40, 72))] == [round(0.5 * f / 24 * 72) for f in range(24)]
    # The authors' own example of float loss: 115.2 px over 6 frames reaches 12 cells in the last one, not 11.
    whole = travel_in_cells(CameraPath.straight(115.2 / 96, 0, 6), 1.0, (8, 12))
    assert [x for x, _ in whole] == [0, 2, 5, 7, 10, 12]


def test_steps_of_a_shift_add_up_to_its_whole() -> None:
    camera = CameraPath([Offset(0, 0), Offset(0.13, -0.4), Offset(-0.77, 0.9)])
    targets = [travel_in_cells(camera, s / 10, (40, 72)) for s in range(11)]
    assert targets[0] == [(0, 0)] * 3
    assert targets[10] == [(0, 0), (9, -16), (-55, 36)]
    for before, after in pairwise(targets):
        assert all(abs(a[0] - b[0]) <= 6 and abs(a[1] - b[1]) <= 4 for b, a in zip(before, after, strict=True))


def test_camera_to_the_right_moves_content_left_and_down_moves_it_up() -> None:
    frame = torch.arange(96.0).reshape(1, 1, 8, 12)
    pick = random_pick(torch.Generator().manual_seed(0))
    assert torch.equal(shift_frame(frame, 3, 0, EVERYWHERE, pick)[..., :9], frame[..., 3:])
    assert torch.equal(shift_frame(frame, 0, 2, EVERYWHERE, pick)[..., :6, :], frame[..., 2:, :])
    both = shift_frame(frame, -3, -2, EVERYWHERE, pick)
    assert torch.equal(both[..., 2:, 3:], frame[..., :6, :9])


def test_holes_take_from_their_own_row_or_column_without_repeats() -> None:
    frame = torch.arange(96.0).reshape(1, 1, 8, 12)
    pick = random_pick(torch.Generator().manual_seed(0))
    side = shift_frame(frame, 5, 0, EVERYWHERE, pick)[0, 0, :, 7:]
    for row, values in enumerate(side.tolist()):
        assert len(set(values)) == 5
        assert all(value // 12 == row for value in values)
    below = shift_frame(frame, 0, 4, EVERYWHERE, pick)[0, 0, 4:]
    for column, values in enumerate(below.T.tolist()):
        assert len(set(values)) == 4
        assert all(value % 12 == column for value in values)


def test_an_l_shaped_hole_is_filled_everywhere_from_the_frame_before_the_move() -> None:
    frame = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(0))
    after = shift_frame(frame, 4, -3, EVERYWHERE, random_pick(torch.Generator().manual_seed(0)))
    assert after.shape == frame.shape
    assert torch.isin(after, frame).all()


def drawn_from(free: Tensor, holes: int) -> list[list[int]]:
    return random_pick(torch.Generator().manual_seed(3))(free, holes).tolist()


def test_cells_inside_boxes_are_not_copied_while_others_last() -> None:
    free = torch.ones(6, 12, dtype=torch.bool)
    free[:, 2:9] = False
    for row in drawn_from(free, 5):
        assert set(row) == {0, 1, 9, 10, 11}


def test_too_few_free_cells_are_repeated_evenly() -> None:
    free = torch.zeros(6, 12, dtype=torch.bool)
    free[:, [4, 7]] = True
    for row in drawn_from(free, 6):
        assert sorted(row) == [4, 4, 4, 7, 7, 7]


def test_a_row_wholly_in_boxes_takes_from_the_whole_row() -> None:
    for row in drawn_from(torch.zeros(6, 12, dtype=torch.bool), 12):
        assert sorted(row) == list(range(12))


@pytest.mark.parametrize("move", [(12, 0), (40, 0), (-40, 5), (0, 100), (-100, -100)])
def test_a_camera_faster_than_the_frame_is_wide_is_filled_whole(move: tuple[int, int]) -> None:
    frame = torch.randn(1, 4, 8, 12)
    after = shift_frame(frame, *move, EVERYWHERE, random_pick(torch.Generator()))
    assert after.shape == frame.shape
    assert torch.isin(after, frame).all()


def test_the_same_seed_fills_the_same_way() -> None:
    assert drawn_from(EVERYWHERE, 5) == drawn_from(EVERYWHERE, 5)


def test_a_box_goes_ahead_of_the_pan_still_to_come_and_ends_where_it_was_drawn() -> None:
    camera = CameraPath([Offset(0, 0), Offset(0.5, -0.25)])
    box = Box(0.25, 0.25, 0.5, 0.5)
    before = boxes_under_way([box, box], camera, [(0, 0), (0, 0)], (8, 12))
    assert before == [box, Box(0.75, 0.0, 1.0, 0.25)]
    arrived = boxes_under_way([box, None], camera, [(0, 0), (6, -2)], (8, 12))
    assert arrived == [box, None]
    assert boxes_under_way([box, box], camera, [(0, 0), (6, -2)], (8, 12)) == [box, box]


def test_a_part_of_a_cell_moves_content_against_the_camera_and_leaves_noise_white() -> None:
    columns = torch.arange(24) / 24 * 2 * torch.pi
    wave = torch.sin(columns).expand(1, 4, 2, 16, 24)
    moved = shift_by_phase(wave, [(0.0, 0.0), (0.4, 0.0)])
    torch.testing.assert_close(moved[:, :, 0], wave[:, :, 0])
    expected = torch.sin(columns + 0.4 / 24 * 2 * torch.pi)  # the camera went right: what was right of a cell is in it
    torch.testing.assert_close(moved[:, :, 1], expected.expand(1, 4, 16, 24), atol=1e-5, rtol=0)

    noise = torch.randn(8, 4, 2, 16, 24, generator=torch.Generator().manual_seed(0))
    shifted = shift_by_phase(noise, [(0.5, -0.3), (0.2, 0.5)])
    neighbours = (shifted[..., 1:] * shifted[..., :-1]).mean()
    assert abs(shifted.var() - 1) < 0.05
    assert abs(neighbours) < 0.05


def test_whole_cells_and_their_rest_add_up_to_the_way_that_was_asked() -> None:
    camera = CameraPath.straight(0.37, -0.21, 8)
    whole, rest = travel_in_cells(camera, 1.0, (16, 24)), fraction_of_cell(camera, (16, 24))
    for offset, (x, y), (rx, ry) in zip(camera.offsets, whole, rest, strict=True):
        assert (x + rx, y + ry) == pytest.approx((offset.dx * 24, offset.dy * 16))
        assert max(abs(rx), abs(ry)) <= 0.5
