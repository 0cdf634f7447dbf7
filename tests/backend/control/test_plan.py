"""The plan of a run: when boxes are amplified, when latents move, where boxes are on the way."""

from __future__ import annotations

import pytest
import torch
from motionbooth.control.plan import StepPlan, plan_steps
from motionbooth.control.prompt import PromptTokens
from motionbooth.control.settings import ControlSettings
from motionbooth_protocol.motion import Box, CameraPath

ZEROSCOPE = ControlSettings(alpha=7.5, amplify_until=0.1, shift_from=0.2, shift_until=0.4)
TOKENS = PromptTokens(77, range(1, 8), ((2, 3),))
BOX = Box(0.25, 0.25, 0.5, 0.5)
LATENTS = (40, 72)


def amplified(plans: list[StepPlan]) -> list[int]:
    return [step for step, plan in enumerate(plans) if plan.boxes and plan.boxes.amplify]


def test_the_papers_windows_on_fifty_steps() -> None:
    plans = plan_steps(ZEROSCOPE, 50, LATENTS, CameraPath.straight(0.5, 0.5, 24), [[BOX] * 24], TOKENS)
    assert amplified(plans) == list(range(5))
    assert [step for step, plan in enumerate(plans) if plan.moves] == list(range(10, 20))
    assert all(plan.boxes is not None for plan in plans)


def test_a_box_that_the_camera_leads_out_of_the_frame_is_amplified_until_the_shift_is_over() -> None:
    camera = CameraPath.straight(1.0, 0, 24)
    plans = plan_steps(ZEROSCOPE, 50, LATENTS, camera, [[BOX] * 24], TOKENS)
    assert amplified(plans) == list(range(20))
    # In the paper's window alone, frames whose box is led wholly out of the frame would never be amplified.
    assert sum(not box.visible for box in plans[4].boxes.boxes[0]) == 6  # type: ignore[union-attr]
    seen = {f for step in amplified(plans) for f, box in enumerate(plans[step].boxes.boxes[0]) if box.visible}  # type: ignore[union-attr]
    assert seen == set(range(24))


@pytest.mark.parametrize(
    ("camera", "box"),
    [
        (CameraPath.still(24), BOX),
        (CameraPath.straight(1.0, 0, 24), Box(-0.95, 0.25, -0.7, 0.5)),  # out of the frame at the end anyway
        (CameraPath.straight(-0.2, 0, 24), BOX),  # a small part of it is led out
    ],
)
def test_elsewhere_the_papers_window_stays(camera: CameraPath, box: Box) -> None:
    assert amplified(plan_steps(ZEROSCOPE, 50, LATENTS, camera, [[box] * 24], TOKENS)) == list(range(5))


def test_a_window_that_reaches_into_the_shift_stays() -> None:
    lavie = ControlSettings(alpha=10, amplify_until=0.3, shift_from=0.2, shift_until=0.4)
    plans = plan_steps(lavie, 50, LATENTS, CameraPath.straight(1.0, 0, 16), [[BOX] * 16], TOKENS)
    assert amplified(plans) == list(range(15))


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 50, 200])
def test_any_number_of_steps_moves_the_whole_way(steps: int) -> None:
    plans = plan_steps(ZEROSCOPE, steps, LATENTS, CameraPath.straight(0.5, -1, 8))
    totals = [
        [sum(axis) for axis in zip(*moves, strict=True)]
        for moves in zip(*(p.moves for p in plans if p.moves), strict=True)
    ]
    assert totals == [[round(0.5 * f / 8 * 72), round(-f / 8 * 40)] for f in range(8)]


@pytest.mark.parametrize("travel", [0.5, 0.51])  # in whole cells, and not
def test_boxes_lead_the_pan_before_the_shift_and_are_screen_boxes_after_it(travel: float) -> None:
    camera = CameraPath.straight(travel, 0, 4)
    plans = plan_steps(ZEROSCOPE, 50, LATENTS, camera, [[BOX] * 4], TOKENS)
    first, last = plans[0].boxes, plans[-1].boxes
    assert first is not None
    assert last is not None
    assert [box.x1 for box in first.boxes[0] if box] == pytest.approx([0.25 + travel * f / 4 for f in range(4)])
    assert list(last.boxes[0]) == [BOX] * 4
    assert plans[19].boxes == last


def test_holes_are_not_filled_from_boxes_where_they_were_before_the_move() -> None:
    camera = CameraPath.straight(0.5, 0, 4)
    plan = plan_steps(ZEROSCOPE, 50, LATENTS, camera, [[BOX] * 4], TOKENS)[10]
    assert plan.free is not None
    taken = (~plan.free[3]).nonzero()
    assert taken.min(dim=0).values.tolist() == [10, 45]
    assert taken.max(dim=0).values.tolist() == [19, 62]


def test_a_still_camera_moves_nothing_and_no_tracks_edit_nothing() -> None:
    plans = plan_steps(ZEROSCOPE, 10, LATENTS, CameraPath.still(4), [[BOX] * 4], TOKENS)
    assert not any(plan.moves for plan in plans)
    plans = plan_steps(ZEROSCOPE, 10, LATENTS, CameraPath.straight(1, 0, 4))
    assert all(plan.boxes is None for plan in plans)
    assert all(plan.free is None or torch.all(plan.free) for plan in plans)
