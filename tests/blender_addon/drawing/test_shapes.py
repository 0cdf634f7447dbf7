from __future__ import annotations

import numpy as np
import pytest
from motionbooth_addon._protocol.motion import Box
from motionbooth_addon.drawing.shapes import (
    DOT_RADIUS,
    ShapeBuilder,
    box_at,
    frame_trails,
    subject_shapes,
    travel_shapes,
)

ORANGE = (1.0, 0.5, 0.0)
WALK = [Box(0.1 * n, 0.2, 0.1 * n + 0.2, 0.6) for n in range(8)]


def test_the_path_runs_through_the_centers_of_the_boxes() -> None:
    hop = [box.moved(0, -0.02 * number * (7 - number)) for number, box in enumerate(WALK)]
    builder = ShapeBuilder(1.5)
    subject_shapes(builder, hop, [], ORANGE)
    drawn = builder.build()
    assert {box.center for box in hop} <= {tuple(point) for point in drawn.lines.tolist()}
    assert drawn.line_colors.shape == (len(drawn.lines), 4)
    assert len(drawn.triangles) == 0


def test_a_dot_is_not_stretched_and_is_at_its_keyframe() -> None:
    builder = ShapeBuilder(1.5)
    subject_shapes(builder, WALK, [0, 7], ORANGE)
    first = builder.build().triangles[:6]
    assert first.mean(axis=0) == pytest.approx(WALK[0].center)
    assert np.ptp(first, axis=0) * (1.5, 1) == pytest.approx([2 * DOT_RADIUS] * 2)


def test_a_long_path_is_simplified_within_the_tolerance() -> None:
    share = np.linspace(0, 1, 250)
    curve = np.stack([share, 0.3 * np.sin(4 * share)], axis=1)
    builder = ShapeBuilder(1.5)
    builder.path(curve, ORANGE)
    lines = builder.build().lines
    assert len(lines) < 100
    corners = np.concatenate([lines[::2], lines[-1:]])
    assert np.interp(share, corners[:, 0], corners[:, 1]) == pytest.approx(curve[:, 1], abs=2e-3)


def test_the_path_is_interrupted_where_the_subject_is_not_visible() -> None:
    builder = ShapeBuilder(1.5)
    subject_shapes(builder, [WALK[0], None, WALK[2], WALK[3]], [1], ORANGE)
    drawn = builder.build()
    assert np.isfinite(drawn.lines).all()
    assert len(drawn.triangles) == 0
    assert len(drawn.lines) == 3 * 8 + 2, "three ghosts and the one step that is whole"


def test_a_path_without_points_draws_nothing() -> None:
    builder = ShapeBuilder(1.5)
    builder.path(np.empty((0, 2)), (1.0, 1.0, 1.0))
    assert len(builder.build().lines) == 0


def test_the_camera_path_starts_at_the_center_and_its_arrow_points_along_it() -> None:
    offsets = np.linspace([0, 0], [0.4, 0], 10)
    drawn = travel_shapes(np.concatenate([offsets, offsets[-1:], offsets[-1:]]), 1.5)
    assert drawn.lines[0] == pytest.approx([0.5, 0.5])
    tip, left, right = drawn.triangles
    assert tip == pytest.approx([0.9, 0.5])
    assert left[0] == right[0] < 0.9


def test_a_zoom_draws_the_trails_of_the_corners_and_the_last_frame() -> None:
    zooms = [np.array([[z, 0, 0.5 - z / 2], [0, z, 0.5 - z / 2], [0, 0, 1]]) for z in np.linspace(1, 2, 8)]
    drawn = travel_shapes(np.zeros((8, 2)), 1.5, np.array(zooms))
    ends = {tuple(point) for point in np.round(drawn.lines, 6).tolist()}
    corners = {(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)}
    assert ends == corners | {(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)}
    assert (0.5, 0.5) not in ends, "the center stays"


def test_a_corner_that_sees_past_the_horizon_interrupts_its_trail() -> None:
    turned = np.array([[1, 0, 0], [0, 1, 0], [3.0, 0, 1]])
    trails = frame_trails(np.array([np.eye(3), turned]))
    assert np.isfinite(trails[:, 0]).all()
    assert np.isnan(trails[2:4, 1]).all()
    assert np.isfinite(trails[1, 1]).all()
    travel_shapes(np.zeros((2, 2)), 1.5, np.array([np.eye(3), turned]))


def test_a_still_camera_draws_nothing() -> None:
    drawn = travel_shapes(np.zeros((8, 2)), 1.5)
    assert len(drawn.lines) == len(drawn.triangles) == 0


@pytest.mark.parametrize(("position", "left"), [(0, 0.0), (2.5, 0.25), (7, 0.7), (-0.1, None), (7.1, None)])
def test_a_box_between_two_others_is_interpolated(position: float, left: float | None) -> None:
    box = box_at(WALK, position)
    assert (box.x1 if box else None) == (None if left is None else pytest.approx(left))


def test_at_the_edge_of_a_gap_the_nearer_box_is_used() -> None:
    boxes = [WALK[0], None]
    assert box_at(boxes, 0.4) == WALK[0]
    assert box_at(boxes, 0.6) is None
