from __future__ import annotations

import math

import torch
from motionbooth.control.homography import cell_centers, homographies, inverse, mapped
from motionbooth.control.plan import plan_steps
from motionbooth.control.scenery import Scenery, merge_scenery, scenery_of
from motionbooth.control.settings import ControlSettings
from motionbooth_protocol.motion import Box, CameraPath, Offset

SIZE = (32, 48)  # of a frame, pixels; cells are of 4 pixels
TRAVEL = tuple((4 * f / 48, -3 * f / 32) for f in range(4))  # whole pixels: 4 to the right and 3 up in each frame
NOBODY = torch.ones(4, 8, 12, dtype=torch.bool)


def panned(seed: int = 0) -> torch.Tensor:
    """A camera's window on a large random texture: (4, 3, 32, 48)."""
    texture = torch.rand(3, 80, 100, generator=torch.Generator().manual_seed(seed))
    return torch.stack([texture[:, 20 - 3 * f : 52 - 3 * f, 10 + 4 * f : 58 + 4 * f] for f in range(4)])


def test_scenery_that_follows_the_camera_stays_as_it_is() -> None:
    frames = panned()
    # Bilinear weights of whole pixels are exact up to float32's rounding of coordinates of up to 48.
    torch.testing.assert_close(merge_scenery(frames, Scenery(TRAVEL, NOBODY)), frames, rtol=0, atol=1e-4)


def test_half_precision_keeps_every_pixel_of_a_wide_frame_in_its_place() -> None:
    texture = torch.rand(1, 8, 1100, generator=torch.Generator().manual_seed(1)).half()
    frames = torch.stack([texture[:, :, 300 * f : 300 * f + 800] for f in range(2)])
    scenery = Scenery(((0.0, 0.0), (300 / 800, 0.0)), torch.ones(2, 1, 100, dtype=torch.bool))
    # Bilinear weights are off by float32's rounding of coordinates up to 800: about 1e-4 of a pixel.
    torch.testing.assert_close(merge_scenery(frames, scenery), frames.float(), rtol=0, atol=1e-3)


def test_what_differs_between_frames_becomes_the_mean_of_all_that_show_it() -> None:
    frames = panned() + torch.tensor([0.0, 1.0, 2.0, 3.0])[:, None, None, None]
    merged = merge_scenery(frames, Scenery(TRAVEL, NOBODY))
    everywhere = (merged - panned())[0, :, :23, 12:]  # of frame 0, what all four frames show
    torch.testing.assert_close(everywhere, torch.full_like(everywhere, 1.5), rtol=0, atol=1e-4)
    alone = (merged - panned())[0, :, 23 + 3 + 3 :, :4]  # what only frame 0 shows
    torch.testing.assert_close(alone, torch.zeros_like(alone), rtol=0, atol=1e-4)


def test_a_subject_is_neither_changed_nor_mixed_into_the_scenery() -> None:
    frames, cells = panned(), NOBODY.clone()
    for f in range(4):  # stands in the middle of the frame while the scenery passes
        frames[f, :, 8:16, 16:28] = 9.0
        cells[f, 1:5, 3:8] = False
    merged = merge_scenery(frames, Scenery(TRAVEL, cells))
    assert torch.equal(merged[:, :, 4:20, 12:32], frames[:, :, 4:20, 12:32])
    outside = merged.clone()
    outside[:, :, 4:20, 12:32] = 0
    assert float(outside.max()) < 1.01


def test_the_cells_next_to_a_box_are_no_scenery() -> None:
    box = Box(0.25, 0.25, 0.5, 0.5)
    scenery = scenery_of(CameraPath.still(1), [[box]], (8, 12))
    assert scenery.cells[0, 1:5, 2:7].sum() == 0  # cells 2..3 by 3..5, and one more on every side
    assert int((~scenery.cells).sum()) == 4 * 5


def test_it_begins_when_the_shift_is_over_and_only_for_a_camera_that_moves() -> None:
    settings = ControlSettings(3.0, 0.5, 0.0, 0.1, merge_until=0.9)
    moving = CameraPath([Offset(0.05 * f, 0) for f in range(4)])
    merged = [plan.scenery is not None for plan in plan_steps(settings, 20, (16, 24), moving)]
    assert merged == [False] + [True] * 17 + [False] * 2
    assert all(plan.scenery is None for plan in plan_steps(settings, 20, (16, 24), CameraPath.still(4)))


def zoomed_and_rolled() -> tuple[torch.Tensor, CameraPath]:
    """Frames (4, 3, 32, 48) of a smooth picture that grows by 10 % and turns by 5 degrees from frame to frame."""
    maps = []
    for f in range(4):
        zoom, angle = 1.1**f, math.radians(5 * f)
        a, b = zoom * math.cos(angle), zoom * math.sin(angle)
        maps.append(((a, -b / 1.5, 0.5 - (a - b / 1.5) / 2), (b * 1.5, a, 0.5 - (b * 1.5 + a) / 2), (0.0, 0.0, 1.0)))
    camera = CameraPath([Offset(0, 0)] * 4, maps)
    first = mapped(cell_centers(SIZE), inverse(homographies(camera)))  # (F, N, 2), points of frame 0
    waves = [torch.sin(first @ torch.tensor(way, dtype=torch.float64)) for way in ((7.0, 2.0), (-3.0, 6.0), (1.0, 9.0))]
    return torch.stack(waves, dim=1).unflatten(-1, SIZE).float(), camera


def test_scenery_that_zooms_and_rolls_is_merged_along_the_move() -> None:
    frames, camera = zoomed_and_rolled()
    flicker = torch.tensor([-0.3, 0.1, 0.4, -0.2])[:, None, None, None]
    scenery = scenery_of(camera, [], (8, 12))
    merged = merge_scenery(frames + flicker, scenery)
    inside = (merged - frames)[0, :, 10:22, 14:34]  # of frame 0, what all frames show
    # Bilinear samples are off by an eighth of the second derivative; at 9 / 32 a pixel: (9 / 32)^2 / 8 = 0.01.
    torch.testing.assert_close(inside, torch.zeros_like(inside), rtol=0, atol=0.012)
    still = merge_scenery(frames + flicker, Scenery(((0.0, 0.0),) * 4, NOBODY))
    assert float((still - frames)[0, :, 10:22, 14:34].abs().max()) > 0.2


def test_a_pan_given_as_homographies_merges_as_the_pan_does() -> None:
    frames = panned() + torch.tensor([0.0, 1.0, 2.0, 3.0])[:, None, None, None]
    maps = [((1.0, 0.0, -dx), (0.0, 1.0, -dy), (0.0, 0.0, 1.0)) for dx, dy in TRAVEL]
    camera = CameraPath([Offset(*d) for d in TRAVEL], maps)
    # Away from the borders, where the last bits of a coordinate decide whether a point is seen.
    one, other = (
        merge_scenery(frames, each)[:, :, 4:-4, 4:-4]
        for each in (scenery_of(camera, [], (8, 12)), Scenery(TRAVEL, NOBODY))
    )
    assert float(((one - other).abs() > 1e-3).float().mean()) < 0.1
