"""A shot at the latent frames of a base that encodes four frames together."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from motionbooth.control.latent_frames import groups, latent_camera, latent_cells, latent_track
from motionbooth.control.plan import plan_steps, windows_in_steps
from motionbooth.control.prompt import PromptTokens
from motionbooth.control.settings import ControlSettings
from motionbooth_protocol.motion import Box, CameraPath, Offset

TOKENS = PromptTokens(length=24, content=range(5), subjects=((1, 2),), padding=18)


def box(x: float) -> Box:
    return Box(x, 0.2, x + 0.3, 0.8)


@given(st.integers(0, 20), st.integers(1, 4))
def test_groups_cover_every_frame_once(later: int, temporal: int) -> None:
    frames = 1 + later * temporal
    found = groups(frames, temporal)
    assert [frame for group in found for frame in group] == list(range(frames))
    assert len(found) == 1 + later


def test_a_base_that_encodes_single_frames_gets_the_shot_as_it_is() -> None:
    camera, track = CameraPath.straight(0.3, -0.1, 7), [box(0.1 * f) if f != 3 else None for f in range(7)]
    assert latent_camera(camera, 1) == camera
    assert latent_track(track, 1) == track


def test_the_camera_is_that_of_the_middle_of_the_group() -> None:
    camera = CameraPath([Offset(f * f / 100, -f / 10) for f in range(9)])
    assert [(o.dx, o.dy) for o in latent_camera(camera, 4).offsets] == [
        pytest.approx((0.0, 0.0)),
        pytest.approx(((0.04 + 0.09) / 2, -0.25)),  # between frames 2 and 3
        pytest.approx(((0.36 + 0.49) / 2, -0.65)),
    ]


def test_the_box_is_the_mean_of_those_in_the_frame() -> None:
    track = [box(0.0), box(0.1), box(0.2), None, None, None, None, None, None]
    first, second, third = latent_track(track, 4)
    assert first == box(0.0)
    assert second is not None
    assert second.as_tuple() == pytest.approx(box(0.15).as_tuple())
    assert third is None


def test_scenery_must_be_visible_in_the_whole_group() -> None:
    cells = torch.ones(9, 2, 2, dtype=torch.bool)
    cells[6, 0, 1] = False
    found = latent_cells(cells, 4)
    assert found.shape == (3, 2, 2)
    assert not found[2, 0, 1]
    assert found.sum() == 11


def test_cells_move_in_whole_patches_and_arrive() -> None:
    settings = ControlSettings(alpha=3, amplify_until=0.5, shift_from=0.2, shift_until=0.6, subcell_shift=True)
    camera = CameraPath.straight(0.45, 0.2, 9)  # latent frames at frames 0, 2.5 and 6.5 of 9
    plans = plan_steps(settings, 10, (16, 24), camera, [[box(0.3)] * 9], TOKENS, patch=2, temporal=4)
    moves = torch.tensor([plan.moves for plan in plans if plan.moves])
    assert moves.shape[1:] == (3, 2)
    assert bool((moves % 2 == 0).all())
    exact = torch.tensor([(0.45 * f / 9 * 24, 0.2 * f / 9 * 16) for f in (0, 2.5, 6.5)])
    (fractions,) = [torch.tensor(plan.fractions) for plan in plans if plan.fractions]
    assert bool((fractions.abs() <= 1).all())
    torch.testing.assert_close(moves.sum(0) + fractions, exact, rtol=0, atol=1e-5)
    assert plans[-1].boxes is not None
    assert len(plans[-1].boxes.boxes[0]) == 3


def test_windows_of_noise_levels_become_steps_of_the_schedule() -> None:
    settings = ControlSettings(
        alpha=3, amplify_until=0.25, shift_from=0.15, shift_until=0.45, merge_until=1.0, windows="noise"
    )
    levels = [1.0, 0.9, 0.8, 0.7, 0.5, 0.3, 0.2, 0.1]
    found = windows_in_steps(settings, levels)
    steps = [round(8 * share) for share in (found.amplify_until, found.shift_from, found.shift_until)]
    assert steps == [3, 2, 4]  # above 0.75, 0.85 and 0.55
    assert found.merge_until == 1.0
    assert found.windows == "steps"
    assert windows_in_steps(found, levels) is found
