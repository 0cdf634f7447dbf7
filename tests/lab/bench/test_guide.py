"""The figures of `bench guide` on clips whose answers are known, and a scene of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from motionbooth.models.registry import load_base
from motionbooth.models.sources import source_named
from motionbooth_lab.bench import guide
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack


def known_scene() -> guide.GuidedScene:
    """A red square on textured grey."""
    grain = np.random.default_rng(0).integers(90, 140, (64, 96, 1)).repeat(3, axis=2)
    frames, masks = np.stack([grain] * 8).astype(np.uint8), np.zeros((8, 64, 96), bool)
    masks[:, 16:48, 24:72] = True
    frames[masks] = (200, 30, 30)
    track = SubjectTrack("it", "square", [Box(0.25, 0.25, 0.75, 0.75)] * 8)
    shot = Shot("s", 1, 8, 8, 96, 64, CameraPath.still(8), [track])
    return guide.GuidedScene("a red square", shot, (Path("clip"), Path("masks")), frames, masks)


def test_a_clip_that_is_the_guide_keeps_everything_and_leaves_nothing_free() -> None:
    scene = known_scene()
    figures = {each.name: each.value for each in guide.measured([scene], [np.stack([scene.frames] * 2)], "_off")}
    assert figures["iou_off"] > 0.9
    assert figures["center_error_off"] < 0.02
    for name in ("subject_difference", "background_difference", "background_freedom"):
        assert figures[f"{name}_off"] == 0


def test_another_background_is_free_while_the_subject_is_kept() -> None:
    scene = known_scene()
    other = np.where(scene.masks[..., None], scene.frames, np.uint8(255) - scene.frames)
    takes = np.stack([scene.frames, other])
    figures = {each.name: each.value for each in guide.measured([scene], [takes], "")}
    # The blur of two pixels mixes a rim of them with the background.
    assert figures["background_freedom"] > 5 * figures["subject_difference"] > 0


def test_settings_have_names_that_stay() -> None:
    assert [guide.suffix_of(setting) for setting in guide.SETTINGS[::3]] == ["_off", "_subject_0_7", "_background_0_7"]


def test_the_scenes_are_rendered_with_their_subjects_in_their_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")
    monkeypatch.setattr(guide, "SCENES", guide.SCENES[::2])
    for scene in guide.rendered_scenes(load_base(source_named("toybox")), tmp_path):
        for mask, box in zip(scene.masks, scene.shot.subjects[0].boxes, strict=True):
            assert box is not None
            rows, columns = np.nonzero(mask)
            found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            shown = np.clip(np.array(box.as_tuple()), 0, 1) * (96, 64, 96, 64)
            # Horns and feet are thinner than a pixel at their ends.
            assert np.abs(found - shown).max() <= 3
