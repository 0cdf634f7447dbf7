"""Cells that follow a homography: exact, without adding up roundings, and the paper's own where it is a pan."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
import torch
from motionbooth.control.camera import random_pick, shifted_cells, travel_in_cells
from motionbooth.control.homography import (
    Background,
    background_of,
    boxes_under_way,
    cell_centers,
    cells_ahead,
    filled,
    homographies,
    inverse,
    mapped,
    source_cells,
)
from motionbooth.control.latent_frames import latent_camera
from motionbooth.control.plan import free_cells, plan_steps
from motionbooth.control.settings import ControlSettings
from motionbooth_protocol.motion import Box, CameraPath, Homography, Offset
from torch import Tensor

SIZE = (16, 24)
SETTINGS = ControlSettings(3.0, 0.5, 0.2, 0.4, merge_until=0.9)
BOX = Box(0.25, 0.25, 0.5, 0.5)


def move(
    zoom: float = 1.0, degrees: float = 0.0, dx: float = 0.0, dy: float = 0.0, keystone: float = 0.0
) -> Homography:
    """Growth and turn of the picture about its center, then a travel of the camera; the frame is 3 : 2."""
    cos, sin = zoom * math.cos(math.radians(degrees)), zoom * math.sin(math.radians(degrees))
    a, b, c, d = cos, -sin / 1.5, sin * 1.5, cos
    return (
        (a, b, 0.5 - (a + b) / 2 - dx),
        (c, d, 0.5 - (c + d) / 2 - dy),
        (keystone, 0.0, 1.0 - keystone / 2),
    )


def path(last: Homography, frames: int = 4) -> CameraPath:
    maps = [np.eye(3) + (np.array(last) - np.eye(3)) * f / (frames - 1) for f in range(frames)]
    rows: list[Homography] = [tuple(map(tuple, each.tolist())) for each in maps]  # type: ignore[misc]
    return CameraPath([Offset(0, 0)] * frames, rows)


MOVES = {
    "zoom in": move(zoom=1.4),
    "zoom out": move(zoom=0.7),
    "roll": move(degrees=20),
    "turn": move(keystone=0.3, dx=0.3),
    "mixed": move(1.3, -12, 0.2, -0.1, 0.1),
}


def followed(background: Background, shares: list[float], size: tuple[int, int], patch: int = 1) -> Tensor:
    """The first cell's center of what each cell holds after all steps: (F, h * w, 2); nan for what filled a hole."""
    held = cell_centers(size).expand(len(background.plane), -1, -1)
    for source in source_cells(background, shares, size, patch):
        taken = held.gather(1, source.clamp_min(0)[..., None].expand(-1, -1, 2))
        held = taken.where((source >= 0)[..., None], torch.nan)
    return held


@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.parametrize("name", MOVES)
def test_the_rounding_of_ten_steps_does_not_add_up(name: str, steps: int) -> None:
    maps = homographies(path(MOVES[name]))
    wanted = mapped(cell_centers(SIZE), inverse(maps))
    held = followed(background_of(path(MOVES[name])), [(s + 1) / steps for s in range(steps)], SIZE)
    error = ((held - wanted) * torch.tensor([SIZE[1], SIZE[0]])).norm(dim=-1)
    seen = ~error.isnan()
    # Half the diagonal of a cell in one step; in ten, a cell, of the first frame's or of one that shrank to 0.7.
    assert float(error[seen].max()) <= (math.sqrt(0.5) if steps == 1 else 1 / 0.7) + 1e-9
    assert float(error[seen].mean()) < 0.45
    inside = ((wanted > 0) & (wanted < 1)).all(dim=-1)
    assert float((inside & ~seen).sum() / inside.sum()) < 0.03  # at the edge of what the first frame showed


def test_a_pan_moves_as_the_papers_shift_does() -> None:
    pan = [CameraPath([Offset(0, 0), Offset(dx, dy)]) for dx, dy in ((5 / 24, -3 / 16), (-7 / 24, 2 / 16))]
    for camera in pan:
        dx, dy = camera.offsets[1].dx, camera.offsets[1].dy
        moving = msgspec.structs.replace(camera, homographies=[move(), move(dx=dx, dy=dy)])
        (source,) = source_cells(background_of(moving), [1.0], SIZE)
        free = torch.ones(2, *SIZE, dtype=torch.bool)
        moves = travel_in_cells(camera, 1.0, SIZE)
        paper = shifted_cells(1, moves, free, random_pick(torch.Generator().manual_seed(0)))[0, 0]
        kept = source >= 0
        assert torch.equal(source[kept], paper[kept])
        assert int((~kept[1]).sum()) == SIZE[0] * SIZE[1] - (24 - abs(moves[1][0])) * (16 - abs(moves[1][1]))


def test_patches_move_as_a_whole() -> None:
    (source,) = source_cells(background_of(path(MOVES["mixed"])), [1.0], SIZE, 2)
    blocks = source.view(4, 8, 2, 12, 2).permute(0, 1, 3, 2, 4).flatten(3)  # (F, h / 2, w / 2, 4)
    kept = blocks[blocks[..., 0] >= 0]
    assert torch.equal(kept - kept[:, :1], torch.tensor([0, 1, 24, 25]).expand_as(kept))
    assert bool((blocks[blocks[..., 0] < 0] == -1).all())
    assert bool((kept[:, 0] % 24 % 2 == 0).all() and (kept[:, 0] // 24 % 2 == 0).all())


def test_holes_take_free_cells_of_their_frame_without_repeats_while_they_last_and_by_the_seed() -> None:
    (source,) = source_cells(background_of(path(MOVES["zoom out"])), [1.0], SIZE)
    free = free_cells([[BOX] * 4], SIZE, 4)

    def fill(*seeds: int) -> Tensor:
        return filled(source, free, random_pick(*(torch.Generator().manual_seed(seed) for seed in seeds)))

    both = fill(1, 2)
    assert both.shape == (2, 1, 4, 16 * 24)
    assert torch.equal(both[:1], fill(1))
    assert torch.equal(both[1:], fill(2))
    hole = source < 0
    assert int(hole[3].sum()) > 100
    assert torch.equal(both[0, 0][~hole], source[~hole])
    for f in range(4):
        taken = both[0, 0, f][hole[f]]
        assert bool(free[f].flatten()[taken].all())
        assert len(taken.unique()) == len(taken)


@pytest.mark.parametrize("name", MOVES)
def test_a_box_leads_the_move_and_ends_where_it_was_drawn(name: str) -> None:
    maps = homographies(path(MOVES[name]))
    end = boxes_under_way([BOX] * 4, maps, 1.0)
    assert [box.as_tuple() for box in end if box] == [pytest.approx(BOX.as_tuple())] * 4
    start = boxes_under_way([BOX, None, BOX, BOX], maps, 0.0)
    assert start[1] is None
    last = start[3]
    assert last is not None
    corners = torch.tensor([(x, y) for x in (BOX.x1, BOX.x2) for y in (BOX.y1, BOX.y2)], dtype=torch.float64)
    before = mapped(corners, inverse(maps)[3:])[0]
    assert last.as_tuple() == pytest.approx((*before.amin(dim=0).tolist(), *before.amax(dim=0).tolist()))


def test_what_a_cell_shows_is_where_it_will_be_at_the_end() -> None:
    background = background_of(path(MOVES["mixed"]))
    ahead = cells_ahead(background, 0.0, SIZE)
    ends = mapped(cell_centers(SIZE), background.plane)
    row, column = (ends[..., 1] * 16).floor(), (ends[..., 0] * 24).floor()
    inside = ((ends >= 0) & (ends < 1)).all(dim=-1)
    assert torch.equal(ahead, (row * 24 + column).long().where(inside, -1))
    assert torch.equal(cells_ahead(background, 1.0, SIZE)[0], torch.arange(16 * 24))


@pytest.mark.parametrize("turn", [90, 180, 270, 359])
def test_a_camera_that_turns_all_the_way_leaves_holes_and_no_failure(turn: int) -> None:
    """At 90 degrees the first frame's points are infinitely far away, at 180 degrees behind the camera."""
    angles = [math.radians(turn * f / 7) for f in range(8)]
    turned = [((math.cos(a), 0.0, -math.sin(a)), (0.0, 1.0, 0.0), (math.sin(a), 0.0, math.cos(a))) for a in angles]
    centered = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    maps = [centered @ np.array(each) @ np.linalg.inv(centered) for each in turned]
    camera = CameraPath([Offset(0, 0)] * 8, [tuple(map(tuple, each.tolist())) for each in maps])  # type: ignore[misc]
    plans = plan_steps(SETTINGS, 20, SIZE, camera, [[BOX] * 8])
    for plan in plans:
        if plan.warp is not None:
            assert int(plan.warp.source.min()) >= -1
            assert int(plan.warp.source.max()) < 16 * 24
    assert latent_camera(CameraPath(camera.offsets[:5], camera.homographies[:5]), 4).homographies


def test_a_roll_of_half_a_turn_between_two_frames_has_no_mean_and_keeps_the_first() -> None:
    camera = CameraPath([Offset(0, 0)] * 5, [move(), move(), move(), move(degrees=180), move(degrees=180)])
    assert latent_camera(camera, 4).homographies == [move(), move()]


def test_the_plan_warps_instead_of_shifting_and_merges_the_scenery() -> None:
    plans = plan_steps(SETTINGS, 20, SIZE, path(MOVES["roll"]), [[BOX] * 4])
    assert [step for step, plan in enumerate(plans) if plan.free is not None] == list(range(4, 8))
    assert not any(plan.moves or plan.fractions for plan in plans)
    assert [step for step, plan in enumerate(plans) if plan.scenery is not None] == list(range(7, 18))
    moved = [int((plan.warp.source[3] != torch.arange(16 * 24)).sum()) for plan in plans[:8] if plan.warp]
    assert moved[:4] == [0] * 4
    assert min(moved[4:]) > 100


def test_homographies_that_all_are_the_identity_move_nothing() -> None:
    plans = plan_steps(SETTINGS, 20, SIZE, path(move()), [[BOX] * 4])
    assert all(plan.free is None and plan.warp is None and plan.scenery is None for plan in plans)
