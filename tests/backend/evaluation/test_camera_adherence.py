"""The scenery's motion, in pixels and with the camera's sign."""

from typing import Any

import numpy as np
import pytest
import torch
from flows import scenery_flow_px
from motionbooth.evaluation.camera_adherence import (
    flow_error_px,
    requested_flow_px,
    requested_flows_px,
    scenery_flows_px,
)
from motionbooth_lab.toybox.backgrounds import draw_texture
from motionbooth_protocol.motion import CameraPath, Parallax
from torch.utils._python_dispatch import TorchDispatchMode


def panned(step_x: int, step_y: int, background: str = "wall") -> np.ndarray:
    """A camera that travels by whole pixels over a background: right and down for positive steps."""
    texture = draw_texture(background, np.random.default_rng(0))
    corners = [(100 + step_x * f, 100 + step_y * f) for f in range(5)]
    return np.stack([texture[y : y + 64, x : x + 96] for x, y in corners])


@pytest.mark.parametrize("step", [(2, 0), (-3, 0), (0, 2), (1, -2), (0, 0)])
def test_a_pan_is_measured_with_the_contracts_sign(step: tuple[int, int]) -> None:
    frames = panned(*step)
    camera = CameraPath.straight(step[0] * 5 / 96, step[1] * 5 / 64, 5)
    asked = requested_flow_px(camera, 96, 64)
    np.testing.assert_allclose(asked, np.tile((-step[0], -step[1]), (4, 1)), atol=1e-9)
    found = scenery_flow_px(frames, [None] * 5)
    assert flow_error_px(found, asked).max() < 0.3


@pytest.mark.parametrize("background", ["wall", "night"])
def test_a_moving_subject_does_not_count_as_scenery(background: str) -> None:
    """In the sky at night only stars have texture: the subject's motion must not spread to them."""
    frames, masks = panned(2, -1, background).copy(), []
    for index, frame in enumerate(frames):
        mask = np.zeros((64, 96), bool)
        mask[10:50, 5 + 8 * index : 55 + 8 * index] = True
        frame[mask] = (240, 200, 20)
        masks.append(mask)
    assert flow_error_px(scenery_flow_px(frames, masks), np.array([-2.0, 1.0])).max() < 0.3


def test_a_single_frame_has_no_flow() -> None:
    assert scenery_flow_px(panned(1, 0)[:1], [None]).shape == (0, 2)


def plain(grey: np.ndarray) -> np.ndarray:
    """Five frames of one picture (64, 96), each with its own noise of a decoder or a codec."""
    noise = np.random.default_rng(0).normal(0, 1, (5, 64, 96, 3))
    return np.clip(grey[None, ..., None] + noise, 0, 255).astype(np.uint8)


ROWS, COLUMNS = np.mgrid[:64, :96]


@pytest.mark.parametrize(
    "grey",
    [
        np.full((64, 96), 120.0),
        90 + 0.7 * COLUMNS + 0.4 * ROWS,  # a sky
        np.where(ROWS // 8 % 2, 60.0, 180.0),  # stripes, along which nothing is seen to move
        np.where((ROWS - 20) ** 2 + (COLUMNS - 20) ** 2 < 4, 250.0, 90.0),  # one star
    ],
    ids=["plain", "sky", "stripes", "star"],
)
def test_where_nothing_can_be_seen_to_move_nothing_is_measured(grey: np.ndarray) -> None:
    frames = plain(grey)
    assert [len(flow) for flow in scenery_flows_px(frames, [None] * 5)] == [0] * 4
    assert np.isnan(scenery_flow_px(frames, [None] * 5)).all()


def test_a_subject_that_fills_the_frame_leaves_no_scenery_to_measure() -> None:
    everywhere = np.ones((64, 96), bool)
    assert [len(flow) for flow in scenery_flows_px(panned(2, 0), [everywhere] * 5)] == [0] * 4


def test_beside_a_plain_sky_the_textured_half_is_measured() -> None:
    frames = panned(3, 0).copy()
    frames[:, :40] = (120, 170, 220)
    asked = requested_flow_px(CameraPath.straight(15 / 96, 0, 5), 96, 64)
    assert flow_error_px(scenery_flow_px(frames, [None] * 5), asked).max() < 0.3


class _Largest(TorchDispatchMode):
    """The numbers in the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


def test_the_flow_asked_for_is_computed_for_two_frames_at_a_time() -> None:
    """Of a long shot with depth, the homographies of each pixel in all frames would take gigabytes."""
    maps = [((1.0, 0.0, -0.001 * f), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)) for f in range(60)]
    near = np.linspace(0.5, 2, 60 * 6, dtype="<f2").reshape(60, 2, 3)
    camera = CameraPath(CameraPath.still(60).offsets, maps, parallax=Parallax([maps[0]] * 60, 2, 3, near.tobytes()))
    points = np.random.default_rng(0).random((100, 2))
    with _Largest() as largest:
        flows = requested_flows_px(camera, [points] * 59, 96, 64)
    assert largest.numbers <= 2 * 100 * 9
    cells = (points * (3, 2)).astype(int)
    for frame, flow in enumerate(flows):
        step = -0.001 * near[frame, cells[:, 1], cells[:, 0]].astype(float) * 96
        assert np.abs(flow - np.stack([step, 0 * step], axis=1)).max() < 1e-6
