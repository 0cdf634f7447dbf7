"""What a report says of each control's part in a clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from motionbooth.evaluation.contributions import contributions
from motionbooth.evaluation.report import ControlUse
from motionbooth.generation.video import write_clip
from motionbooth.models.base import Base
from motionbooth_protocol.jobs import GenerateSpec, Guide
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from msgspec.structs import replace


@pytest.fixture
def spec(tiny_single: Base) -> GenerateSpec:
    """A subject in the left half, in front of a camera that moves by half the frame."""
    form = tiny_single.settings
    track = SubjectTrack("dog", "dog", [Box(0, 0, 0.5, 1)] * form.frames, token="sks")
    camera = CameraPath.straight(0.5, 0, form.frames)
    shot = Shot("s", 1, form.frames, 24, form.width, form.height, camera, [track])
    return GenerateSpec(shot, "a sks dog running on the grass", num_inference_steps=10)


def used(base: Base, spec: GenerateSpec) -> dict[str, tuple[int, float | None]]:
    form = base.settings
    clip = np.zeros((form.frames, form.height, form.width, 3), np.uint8)
    found = contributions(base, spec, clip, Path)
    assert found.steps == 10
    assert found.guide_difference is None
    return {use.name: (use.steps, use.strength) for use in found.controls}


def test_controls_that_act_are_listed_with_their_steps(tiny_single: Base, spec: GenerateSpec) -> None:
    control = tiny_single.settings.control
    assert used(tiny_single, spec) == {
        "boxes": (10, None),
        "boxes_amplified": (round(10 * control.amplify_until), None),
        "camera": (round(10 * control.shift_until) - round(10 * control.shift_from), None),
    }
    assert used(tiny_single, replace(spec, box_control=False, camera_control=False)) == {}


def test_a_guide_has_its_steps_and_what_was_kept_of_it(tiny_single: Base, spec: GenerateSpec, tmp_path: Path) -> None:
    """A clip that is black on the left, where the subject is, and as the guide on the right."""
    form = tiny_single.settings
    clip = np.full((form.frames, form.height, form.width, 3), 200, np.uint8)
    write_clip(tmp_path / "guide.mp4", clip, 24)
    clip[:, :, : form.width // 2] = 0
    guided = replace(spec, guide=Guide(str(tmp_path / "guide.mp4"), 0.5, 0.0))
    found = contributions(tiny_single, guided, clip, Path)
    levels = tiny_single.noise_levels(10)
    assert found.controls[-1] == ControlUse("guide_subject", sum(level > 0.5 for level in levels), 0.5)
    assert found.guide_difference is not None
    subject, background = found.guide_difference.subject, found.guide_difference.background
    assert subject is not None
    assert background is not None
    # 200 of 255 is L = 80.6 (a, b = 0); the codec may be off by two of 255; the blur mixes both sides at the border.
    assert subject == pytest.approx(80.6, abs=3)
    assert background < 3
