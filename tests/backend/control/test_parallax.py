"""A background with depth: two walls, one in front of the other, before a camera that moves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from motionbooth.control.homography import (
    background_of,
    cell_centers,
    cells_ahead,
    inverse,
    mapped,
    source_cells,
)
from motionbooth.control.latent_frames import latent_camera
from motionbooth.control.plan import plan_steps
from motionbooth.control.scenery import merge_scenery, scenery_of
from motionbooth.control.settings import ControlSettings
from motionbooth.evaluation.report import motion_report
from motionbooth_protocol.motion import CameraPath, Homography, Offset, Parallax
from msgspec.structs import replace
from torch import Tensor

SIZE, FRAMES = (16, 24), 5
TO_FRAME = np.array([[1.0, 0, 0.5], [0, 1.5, 0.5], [0, 0, 1]])  # camera space (x, y, 1) to shares of the frame, 3 : 2
DEPTHS = (4.0, 12.0)  # of the near wall, whose right edge is at x = 0.3, and of the far one
BACKGROUND, EDGE = 12.0, 0.3
MOVES = {"track": (1.2, 0.0), "track back": (-1.2, 0.0), "dolly": (0.0, 2.0), "dolly back": (0.0, -3.0)}


def positions(name: str) -> np.ndarray:
    x, z = MOVES[name]
    return np.linspace(0, 1, FRAMES)[:, None] * (x, 0.0, z)


def hits(position: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Where lines of sight through points (N, 2) of a frame meet a wall: (N, 3)."""
    rays = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ np.linalg.inv(TO_FRAME).T
    near, far = (position + rays * (depth - position[2]) for depth in DEPTHS)
    return np.where(near[:, :1] < EDGE, near, far)


def path(name: str, with_depth: bool = True) -> CameraPath:
    plane, infinity, nearness = [], [], []
    for position in positions(name):
        toward = np.outer(-position, (0, 0, 1 / BACKGROUND))
        plane.append(TO_FRAME @ (np.eye(3) + toward) @ np.linalg.inv(TO_FRAME))
        infinity.append(np.eye(3))
        nearness.append(BACKGROUND / hits(position, cell_centers(SIZE).numpy())[:, 2])
    grid = np.array(nearness).astype("<f2").tobytes()
    parallax = Parallax([matrix(each) for each in infinity], *SIZE, grid) if with_depth else None
    return CameraPath([Offset(0, 0)] * FRAMES, [matrix(each) for each in plane], parallax=parallax)


def matrix(values: np.ndarray) -> Homography:
    return tuple(map(tuple, values.tolist()))  # type: ignore[return-value]


def texture(world: np.ndarray) -> np.ndarray:
    """Values (N, 3) of points of the walls: other waves on each."""
    x, y, depth = world.T
    waves = [np.sin(x * (2 + number) + depth) * np.cos(y * (3 - number / 2) + number) for number in range(3)]
    return np.stack(waves, axis=1)


def true_clip(name: str, size: tuple[int, int]) -> np.ndarray:
    """(F, 3, H, W): what the camera sees."""
    points = cell_centers(size).numpy()
    return np.stack([texture(hits(position, points)).T.reshape(3, *size) for position in positions(name)])


def followed(camera: CameraPath, steps: int) -> Tensor:
    """(F, h * w): the first frame's cell that each cell holds in the end; -1 for what filled a hole."""
    held = torch.arange(SIZE[0] * SIZE[1]).expand(FRAMES, -1)
    for source in source_cells(background_of(camera), [(step + 1) / steps for step in range(steps)], SIZE):
        held = held.gather(1, source.clamp_min(0)).where(source >= 0, -1)
    return held


@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.parametrize("name", MOVES)
def test_each_wall_moves_by_itself(name: str, steps: int) -> None:
    """What a cell holds was seen by the first frame at a place of the walls that is now in this cell."""
    held = followed(path(name), steps)
    own = cell_centers(SIZE).numpy()
    start = hits(positions(name)[0], own)
    for f, position in enumerate(positions(name)):
        kept = (held[f] >= 0).numpy()
        seen = start[held[f][kept]] - position
        places = (seen / seen[:, 2:]) @ TO_FRAME.T
        off = np.linalg.norm((places[:, :2] - own[kept]) * (24, 16), axis=1)
        growth = np.maximum(start[held[f][kept]][:, 2] / seen[:, 2], 1)
        # Half the diagonal of a cell, or a cell in ten steps, of those that grew or shrank; half a cell of SAME_LAYER.
        assert (off / growth).max(initial=0) <= (math.sqrt(0.5) if steps == 1 else 1 / 0.7) + 0.5
        assert kept.sum() > 0.8 * in_first_view(name, hits(position, own)).sum()


def in_first_view(name: str, world: np.ndarray) -> np.ndarray:
    """(N,): whether the first frame shows points (N, 3) of the walls."""
    seen = world - positions(name)[0]
    places = ((seen / seen[:, 2:]) @ TO_FRAME.T)[:, :2]
    first = hits(positions(name)[0], places)
    return ((places > 0) & (places < 1)).all(axis=1) & (first[:, 2] == world[:, 2])


def test_a_wall_that_comes_into_sight_is_a_hole() -> None:
    """The camera moves to the right: the far wall appears beside the near one's edge."""
    camera = path("track")
    background, held = background_of(camera), followed(camera, 1)[-1].view(SIZE)
    near = background.nearness
    assert near is not None
    edge = int((near[-1, 8] > 2).sum())  # columns of the near wall in the last frame
    assert (held[:, edge] < 0).all()
    assert (held[:, :edge] >= 0).all()


def test_without_depth_one_wall_moves_wrongly() -> None:
    flat, deep = (followed(path("track", with_depth), 1)[-1].view(SIZE) for with_depth in (False, True))
    assert (flat[:, :4] != deep[:, :4]).all()


@pytest.mark.parametrize("name", MOVES)
def test_merging_leaves_what_follows_the_walls_and_only_blurs_what_does_not(name: str) -> None:
    size = (64, 96)
    clip = torch.from_numpy(true_clip(name, size)).float()
    deep, flat = (
        (merge_scenery(clip, scenery_of(path(name, with_depth), [], SIZE)) - clip)[..., 8:-8, 8:-8].abs()
        for with_depth in (True, False)
    )
    # Bilinear sampling of waves of at least 8 pixels, and cells of 4 pixels at the walls' edge.
    assert float(deep.mean()) < 0.05
    assert float(flat.mean()) > 3 * float(deep.mean())


def test_the_guide_waits_where_its_content_comes_from() -> None:
    background = background_of(path("track"))
    own = cell_centers(SIZE)
    assert torch.equal(cells_ahead(background, 1.0, SIZE)[0], torch.arange(16 * 24))
    ahead = cells_ahead(background, 0.0, SIZE)[-1].view(SIZE)
    # By 1.2 units to the right: 0.3 of the frame at depth 4, 0.1 at depth 12.
    assert ahead[8, 9] == 8 * 24 + 9 - 7
    assert ahead[8, 22] == 8 * 24 + 22 - 2
    assert own.shape == (16 * 24, 2)


@pytest.mark.parametrize("name", MOVES)
def test_the_motion_report_asks_each_wall_for_its_own_motion(name: str) -> None:
    frames = ((true_clip(name, (128, 192)) + 1) * 127).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    deep, flat = (motion_report(frames, [], path(name, with_depth)).mean_flow_error_px for with_depth in (True, False))
    assert deep is not None
    assert flat is not None
    assert deep < 0.5 * flat


def test_a_plane_that_stands_still_moves_if_there_is_depth() -> None:
    """A dolly zoom: the background keeps its size."""
    camera = path("dolly")
    assert camera.parallax is not None
    still = CameraPath([Offset(0, 0)] * FRAMES, [camera.homographies[0]] * FRAMES)
    zoomed = Parallax(camera.homographies, *SIZE, camera.parallax.nearness)
    zoom = CameraPath(still.offsets, still.homographies, parallax=zoomed)
    assert zoom.moves
    assert not still.moves
    plans = plan_steps(ControlSettings(3.0, 0.5, 0.0, 0.4), 10, SIZE, zoom)
    assert any(plan.warp is not None for plan in plans)


def test_latent_frames_have_the_depth_of_a_frame_in_their_middle() -> None:
    camera = path("track")
    latent = latent_camera(camera, 4)
    assert latent.parallax is not None
    assert camera.parallax is not None
    size = 2 * SIZE[0] * SIZE[1]
    assert latent.parallax.nearness == camera.parallax.nearness[:size] + camera.parallax.nearness[2 * size : 3 * size]
    maps = background_of(latent)
    inside = mapped(cell_centers(SIZE), inverse(maps.maps(maps.shown_nearness(cell_centers(SIZE)))))
    assert inside.shape == (2, 16 * 24, 2)


def test_a_latent_frame_without_a_mean_has_the_depth_of_one_frame() -> None:
    """A cut within it, and homographies with a factor, which does not matter."""
    camera, half_turn = path("track"), ((-1.0, 0.0, 1.0), (0.0, -1.0, 1.0), (0.0, 0.0, 1.0))
    still = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    thrice = tuple(tuple(3 * value for value in row) for row in still)
    maps = [still, still, thrice, half_turn, half_turn]
    assert camera.parallax is not None
    parallax = replace(camera.parallax, infinity=maps)
    latent = background_of(latent_camera(CameraPath(CameraPath.still(5).offsets, maps, parallax=parallax), 4))
    assert latent.infinity is not None
    assert torch.equal(latent.infinity, latent.plane)
