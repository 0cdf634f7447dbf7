"""The motion between latent frames that bench control measures, on drawn clips whose camera is known."""

from dataclasses import replace

import numpy as np
import pytest
from motionbooth.evaluation.report import CameraFrame
from motionbooth.pictures.appearance import Appearance
from motionbooth_lab.bench.cases import base_cases
from motionbooth_lab.bench.motion import Motion, camera_gain, latent_pan, motion_measures, motion_of
from motionbooth_lab.toybox.draw import WANTOY, draw_clip, kind_scene
from motionbooth_protocol.motion import Box, CameraPath, Offset


def seen(frames: np.ndarray | None = None) -> Motion:
    """The motion found in a drawn clip, or in `frames` in its place."""
    clip = draw_clip(kind_scene("ball", "red", "grass"), np.random.default_rng(2), clip_format=WANTOY)
    camera = CameraPath([Offset(float(x) / 96, float(y) / 64) for x, y in clip.camera_px])
    boxes = [Box(*map(float, box)) for box in clip.boxes_xyxy]
    case = replace(next(base_cases(WANTOY)), boxes=boxes, camera=camera)
    appearance = Appearance.from_pictures([clip.frames[0]], [clip.masks[0]])
    assert np.abs(clip.camera_px[-1]).max() > 4
    shown = clip.frames if frames is None else frames[[0] * 9]
    assert len(latent_pan(shown, case, appearance, 4)) == 2
    return motion_of(shown, case, appearance, 4)


def test_a_drawn_clip_moves_as_asked_between_latent_frames_and_between_all() -> None:
    figures = {each.name: each.value for each in motion_measures([seen()], suffix="_on")}
    assert figures["flow_error_on"] < 0.3
    assert figures["flow_error_every_frame_on"] < 0.3
    assert figures["camera_gain_on"] == pytest.approx(1, abs=0.1)


def test_a_clip_that_stands_still_reaches_nothing_of_the_asked_travel() -> None:
    clip = draw_clip(kind_scene("ball", "red", "grass"), np.random.default_rng(2), clip_format=WANTOY)
    still = seen(clip.frames)
    assert camera_gain([still]) == pytest.approx(0, abs=0.05)
    asked = np.mean([np.hypot(*frame.asked_px) for frame in still.pan])
    figures = {each.name: each.value for each in motion_measures([still])}
    assert figures["flow_error"] == pytest.approx(asked, rel=0.1)


def test_the_gain_is_the_asked_part_of_the_travel_found() -> None:
    pan = [CameraFrame((2.0, 0.0), (1.0, 5.0), 5.1), CameraFrame((0.0, 4.0), (0.0, 4.0), 0.0)]
    untextured = [CameraFrame((3.0, 0.0), None, None)]
    assert camera_gain([replace(seen(), pan=pan), replace(seen(), pan=untextured)]) == pytest.approx(18 / 20)
