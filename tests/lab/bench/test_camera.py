"""The cameras of bench camera, and what it makes of the clips' reports."""

import cv2
import msgspec
import numpy as np
import pytest
from motionbooth.bench.measures import Measure
from motionbooth.evaluation.report import MotionReport, SubjectReport, motion_report
from motionbooth_lab.bench.camera import (
    LAYERED,
    MOVES,
    OFF,
    SINGLE_PLANE,
    STILL,
    Clip,
    camera_measures,
    cases,
    layer_errors,
    with_camera,
)
from motionbooth_lab.toybox.backgrounds import draw_texture
from motionbooth_protocol.motion import CameraPath, Homography, Offset, Parallax

FRAMES = 8


def shown(name: str, followed: bool = True) -> np.ndarray:
    """A clip (8, 64, 96, 3) of a wall under this move, or standing still."""
    to_px = np.diag([96.0, 64.0, 1.0])
    texture = draw_texture("wall", np.random.default_rng(3))
    start = np.array([[1, 0, -100], [0, 1, -100], [0, 0, 1.0]])  # the first frame's corner on the texture
    frames = []
    for share in np.linspace(0, 1, FRAMES):
        move = np.array(MOVES[name].at(float(share) if followed else 0.0))
        frames.append(cv2.warpPerspective(texture, to_px @ move @ np.linalg.inv(to_px) @ start, (96, 64)))
    return np.stack(frames)


@pytest.mark.parametrize("name", MOVES)
def test_a_wall_under_each_move_is_measured_as_following_it_and_one_that_stands_still_as_not(name: str) -> None:
    camera = MOVES[name].camera(FRAMES)
    assert camera.moves
    moved, still = (motion_report(shown(name, followed), [], camera) for followed in (True, False))
    assert moved.mean_flow_error_px is not None
    assert still.mean_flow_error_px is not None
    # Dense inverse search is off by 0.1 to 0.6 px a frame on drawn clips (camera_adherence.py), a wall by little.
    assert moved.mean_flow_error_px < 0.4
    assert still.mean_flow_error_px > 2 * moved.mean_flow_error_px


def test_every_move_uses_the_same_clips() -> None:
    (one,), (other,) = cases([3]), cases([3])
    assert one == other
    moved = with_camera(one, MOVES["roll by 20"].camera(FRAMES))
    assert moved.boxes == one.boxes
    assert moved.spec.shot.camera == moved.camera
    assert [case.spec.seed for case in cases([0, 1])] == [5000, 5001]


def report(error: float, iou: float) -> MotionReport:
    return MotionReport(96, 64, [SubjectReport("s", iou, None, None, [])], error / 2, [], error)


def test_the_measures_are_means_over_the_moves_of_a_kind_and_the_seeds() -> None:
    cameras = {name: move.camera(FRAMES) for name, move in MOVES.items()} | {
        name: MOVES["pan"].camera(FRAMES) for name in ("crane", LAYERED)
    }
    blank = np.zeros((FRAMES, 64, 96, 3), np.uint8)
    clips = {
        (seed, name): Clip(blank, {name: report(1.0 + seed, 0.8)}, 3.0, (1.0, 1.0))
        for seed in (0, 1)
        for name in cameras
    }
    clips |= {(seed, STILL): Clip(blank, {STILL: report(0.0, 0.9)}, 3.0) for seed in (0, 1)}
    clips |= {(seed, SINGLE_PLANE): Clip(blank, {LAYERED: report(4.0, 0.8)}, 3.0, (3.0, 2.0)) for seed in (0, 1)}
    clips |= {
        (seed, OFF): Clip(blank, {name: report(5.0, 0.1) for name in cameras}, 2.0, (6.0, 6.0)) for seed in (0, 1)
    }
    measures = camera_measures((0, 1), cameras, clips)
    assert msgspec.json.decode(msgspec.json.encode(measures), type=list[Measure]) == measures  # all names are valid
    figures = {each.name: each.value for each in measures}
    for kind in ("pan", "zoom", "roll", "mixed"):
        assert figures[f"{kind}_flow_error"] == pytest.approx(1.5)
        assert figures[f"{kind}_flow_error_off"] == pytest.approx(5.0)
    assert figures["pan_flow_error_median"] == pytest.approx(0.75)
    assert figures["parallax_flow_error"] == pytest.approx(1.5)
    assert figures["parallax_flow_error_single_plane"] == pytest.approx(4.0)
    assert figures["parallax_flow_error_near_single_plane"] == pytest.approx(3.0)
    assert figures["parallax_flow_error_far_single_plane"] == pytest.approx(2.0)
    assert figures["iou_ratio"] == pytest.approx(0.8 / 0.9)
    assert figures["clip_ratio"] == pytest.approx(1.5)


def test_each_layer_is_measured_by_its_own_motion() -> None:
    """A wall that stands still, where the left half is asked to move by 4 pixels a frame and the right half by 2."""
    identity = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    pans: list[Homography] = [((1.0, 0.0, -f * 2 / 96), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)) for f in range(FRAMES)]
    nearness = np.array([[2.0, 1.0]] * FRAMES, "<f2").tobytes()
    depth = Parallax([identity] * FRAMES, 1, 2, nearness)
    camera = CameraPath([Offset(0, 0)] * FRAMES, pans, parallax=depth)
    (case,) = cases([0])
    near, far = layer_errors(shown("pan", followed=False), with_camera(case, camera), camera)
    assert near == pytest.approx(4, abs=0.1)  # dense inverse search finds no motion between equal frames
    assert far == pytest.approx(2, abs=0.1)
