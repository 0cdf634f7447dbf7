"""A picture as the guide: the clip starts with it, and goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from motionbooth.evaluation.contributions import lab_difference
from motionbooth.generation.first_frame import is_picture, moved_picture
from motionbooth.generation.sampling import generate_clip
from motionbooth.models.base import Base
from motionbooth.models.registry import load_base
from motionbooth.models.sources import source_named
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec, Guide
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from msgspec.structs import replace
from PIL import Image
from refused import refused


def grain(height: int = 32, width: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3)).astype(np.uint8)


def spec_for(base: Base, picture: Path, **guide: Any) -> GenerateSpec:
    form = base.settings
    track = SubjectTrack("car", "car", [Box(x, 0.4, x + 0.3, 0.8) for x in np.linspace(0.1, 0.5, form.frames)])
    shot = Shot("s", 1, form.frames, form.fps, form.width, form.height, CameraPath.still(form.frames), [track])
    return GenerateSpec(shot, "a blue car on the snow", num_inference_steps=10, guide=Guide(str(picture), **guide))


def test_the_picture_moves_against_the_camera_and_what_it_does_not_show_is_free() -> None:
    picture, boxes = grain(), torch.zeros(3, 32, 48)
    camera = CameraPath.straight(0.5, -0.75, 3)  # 8 pixels to the right and 8 up in each frame
    frames, regions = moved_picture(picture, boxes, camera)
    for frame, right in enumerate((0, 8, 16)):
        assert np.array_equal(frames[frame, right:, : 48 - right], picture[: 32 - right, right:])
        shown = torch.zeros(32, 48)
        shown[right:, : 48 - right] = 1
        assert torch.equal((regions.background + regions.kept)[frame], shown)
    assert not regions.background[0].any(), "the first frame is kept instead"
    assert not regions.kept[1:].any()


def test_a_pan_as_homographies_moves_it_likewise() -> None:
    camera = CameraPath.straight(0.5, -0.75, 3)
    maps = [((1.0, 0.0, -each.dx), (0.0, 1.0, -each.dy), (0.0, 0.0, 1.0)) for each in camera.offsets]
    boxes = torch.zeros(3, 32, 48)
    frames, _ = moved_picture(grain(), boxes, camera)
    others, _ = moved_picture(grain(), boxes, CameraPath(camera.offsets, maps))
    assert np.array_equal(frames, others)


def test_what_was_behind_the_camera_is_free() -> None:
    """A turn by 180 degrees: its homography maps the picture into the frame once more, upside down."""
    still = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    turned = ((-1.0, 0.0, 0.0), (0.0, 1.0, -1.0), (0.0, 0.0, -1.0))  # (x, y, 1) around the middle to (-x, y, -1)
    camera = CameraPath(CameraPath.still(2).offsets, [still, turned])
    _, regions = moved_picture(grain(), torch.zeros(2, 32, 48), camera)
    assert regions.kept[0].all()
    assert not regions.background[1].any()


def test_a_subject_in_the_picture_does_not_stay_where_it_was() -> None:
    picture, boxes = np.full((32, 48, 3), 200, np.uint8), torch.zeros(2, 32, 48)
    picture[10:20, 10:20] = 0
    boxes[0, 9:21, 9:21], boxes[1, 9:21, 30:42] = 1, 1
    frames, regions = moved_picture(picture, boxes, CameraPath.still(2))
    assert np.array_equal(frames[0], picture)
    assert frames[1].min() >= 199
    assert torch.equal(regions.subjects[0], boxes[0])
    assert not regions.subjects[1].any()
    assert not (regions.background[1] * boxes[1]).any(), "the subject forms freely"


def test_a_latent_frame_of_several_frames_is_not_kept() -> None:
    """As of Wan, whose first latent frame has one frame and each other one four."""
    _, regions = moved_picture(grain(), torch.zeros(9, 32, 48), CameraPath.still(9))
    cells = regions.in_cells((4, 6), temporal=4)
    assert cells.kept.amin(dim=(1, 2)).tolist() == cells.kept.amax(dim=(1, 2)).tolist() == [1, 0, 0]
    assert cells.background.amin(dim=(1, 2)).tolist() == [0, 1, 1]


@pytest.mark.parametrize(("format", "animated"), [("PNG", False), ("JPEG", False), ("WEBP", False), ("PNG", True)])
def test_pictures_are_told_from_clips(tmp_path: Path, format: str, animated: bool) -> None:
    first = Image.fromarray(grain())
    more = {"save_all": True, "append_images": [Image.fromarray(255 - grain())]} if animated else {}
    first.save(tmp_path / "file", format, **more)
    assert is_picture(tmp_path / "file") == (not animated)


def test_a_picture_of_another_shape_is_refused(tiny_single: Base, tmp_path: Path) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "square.png")
    with refused(InvalidInput, width=100, height=100):
        generate_clip(tiny_single, spec_for(tiny_single, tmp_path / "square.png", background_strength=0.5))


@pytest.mark.numeric
def test_the_clip_starts_with_the_picture_and_continues_from_it(tmp_path: Path) -> None:
    """Held in the first frame alone, the picture would flash up: toybox makes the others of noise and words."""
    base = load_base(source_named("toybox"))
    painted = np.empty((64, 96, 3), np.uint8)
    painted[:] = np.linspace((60, 90, 30), (120, 150, 70), 64)[:, None]
    Image.fromarray(painted).save(tmp_path / "painted.png")
    spec = spec_for(base, tmp_path / "painted.png", background_strength=0.7)
    above = np.zeros((1, 64, 96), bool)
    above[:, :20] = True

    def from_first(strength: float) -> tuple[float, float]:
        """How far the first frame is from the picture, and the second from the first."""
        assert spec.guide is not None
        clip = generate_clip(base, replace(spec, guide=replace(spec.guide, background_strength=strength))).numpy()
        pairs = (clip[:1], painted[None]), (clip[1:2], clip[:1])
        start, jump = (lab_difference(one, other, above) for one, other in pairs)
        return start, jump

    held_start, held_jump = from_first(1e-6)
    start, jump = from_first(0.7)
    # toybox's autoencoder alone changes this green by 1.5, and bright pictures by up to 10.
    assert max(start, held_start) < 3
    assert jump < held_jump / 3
