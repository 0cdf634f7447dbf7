from __future__ import annotations

import numpy as np
import pytest
from motionbooth_addon.capture.projection import (
    Travel,
    View,
    accumulate,
    background_homographies,
    camera_path,
    measure_steps,
    screen_box,
    unusable,
)

ASPECT = 1.5
FOCAL = 35 / 36  # focal length in widths of the frame
SQUARE = np.array([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]], dtype=float)
SQUARE_EDGES = np.array([(0, 1), (1, 2), (2, 3), (3, 0)])


def moved(where: list[float]) -> np.ndarray:
    """A square with a side of 2 units that faces the camera, moved."""
    return SQUARE + np.array(where)


def rotation(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Camera to world for a camera that looks along +y, turned left by yaw, up by pitch, then rolled (radians)."""
    level = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=float)

    def turn(axis: int, angle: float) -> np.ndarray:
        a, b = [i for i in range(3) if i != axis]
        matrix = np.eye(3)
        matrix[a, a] = matrix[b, b] = np.cos(angle)
        matrix[b, a] = np.sin(angle) * (1 if axis != 1 else -1)
        matrix[a, b] = -matrix[b, a]
        return matrix

    return turn(2, yaw) @ level @ turn(0, pitch) @ turn(2, roll)


def view(
    position: tuple[float, float, float] = (0, 0, 0),
    turned: np.ndarray | None = None,
    focal: float = FOCAL,
    shift: tuple[float, float] = (0, 0),
    near: float = 0.1,
    ortho: float | None = None,
) -> View:
    """A textbook View; `shift` in frame widths, `ortho` the width of an orthographic frame in units."""
    world = np.eye(4)
    world[:3, :3] = rotation() if turned is None else turned
    world[:3, 3] = position
    far = 1000.0
    projection = np.zeros((4, 4))
    if ortho is None:
        projection[0] = [2 * focal, 0, 2 * shift[0], 0]
        projection[1] = [0, 2 * focal * ASPECT, 2 * shift[1] * ASPECT, 0]
        projection[2] = [0, 0, -(far + near) / (far - near), -2 * far * near / (far - near)]
        projection[3] = [0, 0, -1, 0]
    else:
        projection[0] = [2 / ortho, 0, 0, -2 * shift[0]]
        projection[1] = [0, 2 * ASPECT / ortho, 0, -2 * shift[1] * ASPECT]
        projection[2] = [0, 0, -2 / (far - near), -(far + near) / (far - near)]
        projection[3] = [0, 0, 0, 1]
    return View(np.linalg.inv(world), projection)


def travel(views: list[View], distance: float) -> Travel:
    return accumulate([measure_steps(views, distance)])


def box_of(points: np.ndarray, seen_by: View, edges: np.ndarray = SQUARE_EDGES) -> tuple[float, ...] | None:
    box = screen_box(points, edges, seen_by)
    return box.as_tuple() if box else None


def test_a_square_ahead_has_the_box_that_similar_triangles_give() -> None:
    half = FOCAL / 10
    expected = (0.5 - half, 0.5 - half * ASPECT, 0.5 + half, 0.5 + half * ASPECT)
    assert box_of(moved([0, 10, 0]), view()) == pytest.approx(expected)


def test_up_in_the_world_is_up_on_screen_where_y_is_small() -> None:
    above = screen_box(moved([0, 10, 2]), SQUARE_EDGES, view())
    assert above is not None
    assert above.center[1] < 0.5


def test_an_orthographic_camera_ignores_distance() -> None:
    assert box_of(moved([0, 3, 0]), view(ortho=8)) == pytest.approx(box_of(moved([0, 300, 0]), view(ortho=8)))
    assert box_of(moved([0, 3, 0]), view(ortho=8)) == pytest.approx((0.375, 0.3125, 0.625, 0.6875))


@pytest.mark.parametrize("where", [[0, -10, 0], [30, 10, 0], [-30, 10, 0], [0, 10, 20], [0, 10, -20]])
def test_nothing_behind_the_camera_or_outside_the_frame_has_a_box(where: list[float]) -> None:
    assert screen_box(moved(where), SQUARE_EDGES, view()) is None


def test_a_box_may_reach_outside_the_frame() -> None:
    box = screen_box(moved([5, 10, 0]), SQUARE_EDGES, view())
    assert box is not None
    assert box.x2 > 1 > box.x1


def test_a_floor_below_the_camera_is_clipped_at_the_near_plane() -> None:
    """Its far edge is at its projection; its near part fills the frame's lower edge instead of flipping to the top."""
    floor = np.array([[-2, -5, -1], [2, -5, -1], [2, 20, -1], [-2, 20, -1]], dtype=float)
    box = screen_box(floor, SQUARE_EDGES, view())
    assert box is not None
    assert box.y1 == pytest.approx(0.5 + FOCAL * ASPECT / 20)
    assert box.y2 == pytest.approx(0.5 + FOCAL * ASPECT / 0.1)
    assert box.x1 == pytest.approx(0.5 - FOCAL * 2 / 0.1)


def test_clipping_agrees_with_points_sampled_densely_in_front_of_the_camera() -> None:
    triangle = np.array([[-1.0, -2.0, -0.5], [3.0, 6.0, 1.0], [-2.0, 4.0, 2.0]])
    weights = np.random.default_rng(1).dirichlet([0.3, 0.3, 0.3], size=400_000)
    inside = weights @ triangle
    inside = inside[inside[:, 1] > 0.5]
    exact = box_of(triangle, view(near=0.5), np.array([(0, 1), (1, 2), (2, 0)]))
    sampled = box_of(inside, view(near=0.5), SQUARE_EDGES[:0])
    assert exact is not None
    assert sampled == pytest.approx(exact, abs=0.02)
    assert exact[0] <= sampled[0]
    assert exact[3] >= sampled[3]


def test_a_shape_seen_edge_on_has_a_box_with_an_area() -> None:
    line = np.array([[0, 5, -1], [0, 9, -1], [0, 9, 1], [0, 5, 1]], dtype=float)
    box = screen_box(line, SQUARE_EDGES, view())
    assert box is not None
    assert box.x1 < 0.5 < box.x2


def test_a_still_camera_does_not_travel() -> None:
    path = camera_path(travel([view()] * 5, 10.0).offsets)
    assert all((offset.dx, offset.dy) == (0, 0) for offset in path.offsets)


@pytest.mark.parametrize("ortho", [None, 8.0])
def test_tracking_right_and_down_is_positive_and_scales_with_the_distance(ortho: float | None) -> None:
    views = [view((0.25 * f, 0, -0.1 * f), ortho=ortho) for f in range(9)]
    last = travel(views, 10.0).offsets[-1]
    scale = FOCAL / 10 if ortho is None else 1 / ortho
    assert last == pytest.approx((2.0 * scale, 0.8 * scale * ASPECT))


def test_panning_right_and_tilting_down_are_positive() -> None:
    right = travel([view(turned=rotation(yaw=-0.01 * f)) for f in range(11)], 10.0).offsets
    down = travel([view(turned=rotation(pitch=-0.01 * f)) for f in range(11)], 10.0).offsets
    assert right[-1] == pytest.approx((0.1 * FOCAL, 0), abs=1e-5)
    assert down[-1] == pytest.approx((0, 0.1 * FOCAL * ASPECT), abs=1e-5)


def test_an_even_rotation_gives_an_even_path_past_90_degrees() -> None:
    """Summed from view to view: a point fixed at the first view would go to infinity at 90 degrees."""
    views = [view(turned=rotation(yaw=-np.radians(2) * f)) for f in range(101)]
    steps = np.diff(travel(views, 10.0).offsets[:, 0])
    assert steps == pytest.approx(np.full(100, FOCAL * np.tan(np.radians(2))))


def test_a_rotation_there_and_back_ends_at_zero() -> None:
    angles = np.radians(20) * np.sin(np.linspace(0, np.pi, 49))
    offsets = travel([view(turned=rotation(yaw=-a, pitch=a / 2)) for a in angles], 10.0).offsets
    assert offsets[-1] == pytest.approx((0, 0), abs=2e-3)
    assert offsets[24, 0] == pytest.approx(FOCAL * np.radians(20), rel=0.02)


@pytest.mark.parametrize("ortho", [None, 8.0])
def test_shifting_the_lens_right_and_up_moves_the_view_right_and_up(ortho: float | None) -> None:
    views = [view(shift=(0.05 * f, 0.02 * f), ortho=ortho) for f in range(5)]
    assert travel(views, 10.0).offsets[-1] == pytest.approx((0.2, -0.08 * ASPECT))


def test_rotation_and_tracking_add_up() -> None:
    turning = travel([view(turned=rotation(yaw=-0.002 * f)) for f in range(50)], 10.0).offsets[-1, 0]
    tracking = travel([view((0.01 * f, 0, 0)) for f in range(50)], 10.0).offsets[-1, 0]
    both = travel([view((0.01 * f, 0, 0), rotation(yaw=-0.002 * f)) for f in range(50)], 10.0).offsets[-1, 0]
    assert both == pytest.approx(turning + tracking, rel=0.01)


def test_a_roll_adds_no_travel() -> None:
    rolled = travel([view(turned=rotation(roll=np.radians(f))) for f in range(11)], 10.0)
    assert rolled.offsets[-1] == pytest.approx((0, 0), abs=1e-9)


def test_a_zoom_is_growth_by_the_lens() -> None:
    zoomed = travel([view(focal=FOCAL * 2 ** (f / 10)) for f in range(11)], 10.0)
    assert zoomed.zoom[-1] == pytest.approx(2)
    assert zoomed.lens[-1] == pytest.approx(2)


def test_moving_towards_the_background_is_growth_without_the_lens() -> None:
    closer = travel([view((0, 0.1 * f, 0)) for f in range(21)], 10.0)
    assert closer.zoom[-1] > 1.2
    assert closer.lens == pytest.approx(1)


def test_a_background_seen_edge_on_or_from_behind_is_unusable() -> None:
    views = [view(), view((5, 0, 0)), view((0, 10, 0), rotation(yaw=np.pi / 2)), view((0, 20, 0), rotation(yaw=np.pi))]
    assert unusable(background_homographies(views, 10.0)) == [2, 3]


def test_a_jump_to_the_opposite_side_is_a_cut() -> None:
    views = [view(), view(), view(turned=rotation(yaw=np.pi)), view(turned=rotation(yaw=np.pi))]
    measured = travel(views, 10.0)
    assert measured.cuts == [2]
    assert np.isfinite(measured.offsets).all()
