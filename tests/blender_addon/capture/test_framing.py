"""Shots whose aspect ratio differs from the model's: everything stays at its position in the rendered frame."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

bpy = pytest.importorskip("bpy", reason="needs the bpy module, which exists for Python 3.11 and 3.13")

from animating import animate, rectangle_on_camera  # noqa: E402
from motionbooth.generation.video import write_clip  # noqa: E402
from motionbooth_addon import compat  # noqa: E402
from motionbooth_addon._protocol.jobs import GenerateSpec  # noqa: E402
from motionbooth_addon._protocol.motion import Box  # noqa: E402
from motionbooth_addon.capture import framing, shots  # noqa: E402
from motionbooth_addon.timeline import clips, image_sequence, strips, takes  # noqa: E402

FRAMES = 8
SIZES = [(1920, 1080), (1440, 1080), (1080, 1080), (2390, 1000), (1080, 1920)]
MODELS = [(96, 64), (256, 256), (576, 320)]


@pytest.fixture
def shot(scene: Any, add_cube: Callable[..., Any], add_subject: Callable[..., Any]) -> Any:
    """A rectangle that moves through the frame while the camera moves."""
    add_subject(scene, rectangle_on_camera(scene, add_cube))
    return scene


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("how", ["FIT", "CROP"])
def test_boxes_and_camera_path_are_mapped_to_the_models_frame(
    shot: Any, size: tuple[int, int], model: tuple[int, int], how: str
) -> None:
    shot.render.resolution_x, shot.render.resolution_y = size
    plain = shots.read_motion(shot, FRAMES)
    shot.motionbooth.framing = how
    motion = shots.read_motion(shot, FRAMES, model)
    for drawn, mapped in zip(plain.projections[0], motion.projections[0], strict=True):
        assert drawn.box is not None
        if mapped.box is None:
            assert how == "CROP"  # cut off
        else:
            back = framing.in_shot(mapped.box, motion.frame)
            assert back.as_tuple() == pytest.approx(drawn.box.as_tuple(), abs=1e-6)
    width, height = framing.size(motion.frame)
    for drawn, mapped in zip(plain.camera.offsets, motion.camera.offsets, strict=True):
        assert (mapped.dx * width, mapped.dy * height) == pytest.approx((drawn.dx, drawn.dy), abs=1e-6)
    assert width * size[0] / (height * size[1]) == pytest.approx(model[0] / model[1], rel=2e-3), "nothing is stretched"
    inside = min(width, height) >= 1 - 1e-9 if how == "FIT" else max(width, height) <= 1 + 1e-9
    assert inside, "the shot is inside the model's frame (fit), or the model's inside the shot's (crop)"


def test_a_keyframed_pan_is_mapped_to_the_models_frame(shot: Any) -> None:
    shot.render.resolution_x, shot.render.resolution_y = 1000, 500
    shot.motionbooth.camera_mode = "KEYFRAMED"
    for frame, pan in ((1, (0, 0)), (24, (0.5, 0.4))):
        shot.motionbooth.pan = pan
        shot.keyframe_insert("motionbooth.pan", frame=frame)
    last = shots.read_motion(shot, FRAMES, (256, 256)).camera.offsets[-1]
    assert (last.dx, last.dy) == pytest.approx((0.5, 0.2), abs=1e-6)


def test_a_shot_with_the_models_aspect_ratio_needs_no_framing(shot: Any) -> None:
    reading = shots.read_shot(shot, FRAMES, (96, 64))
    assert reading.shot.model_frame is None
    assert framing.explanation(framing.WHOLE) is None


def test_a_box_beyond_the_shots_edge_is_kept_if_the_model_shows_it(shot: Any) -> None:
    """With Fit, a square model extends above and below a wide shot; with Crop, it lacks the shot's sides."""
    shot.render.resolution_x, shot.render.resolution_y = 1000, 500
    thing = shot.motionbooth.subjects[0].object
    animate(thing, "location", (0, 4.5, -8), (0, 4.5, -8))
    above = shots.read_motion(shot, FRAMES, (256, 256))
    assert above.projections[0][0].box is not None
    assert framing.in_shot(above.projections[0][0].box, above.frame).y2 < 0
    said = [str(warning.sentence) for warning in shots.find_warnings(shot, above)]
    assert any("is outside the frame from frame 1 to 24" in sentence for sentence in said)
    animate(thing, "location", (3.4, 0, -8), (3.4, 0, -8))
    shot.motionbooth.framing = "CROP"
    assert shots.read_motion(shot, FRAMES, (256, 256)).projections[0][0].box is None
    assert shots.read_motion(shot, FRAMES).projections[0][0].box is not None


# A clip in which a white marker stands where it was asked, through the sequencer


def clip_with_marker(path: Path, box: Box, size: tuple[int, int], frames: int) -> Path:
    """Pictures of the model's size, eight times as large so that a marker's sides are not rounded to its pixels."""
    width, height = 8 * size[0], 8 * size[1]
    picture = np.zeros((height, width, 3), np.uint8)
    x1, y1, x2, y2 = np.rint(np.array(box.as_tuple()) * (width, height, width, height)).astype(int)
    picture[max(y1, 0) : y2, max(x1, 0) : x2] = 255
    write_clip(path, np.broadcast_to(picture, (frames, *picture.shape)).copy(), 24)
    return path


def rendered(scene: Any, path: Path) -> np.ndarray:
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True, scene=scene.name)
    image = bpy.data.images.load(str(path))
    width, height = image.size
    return np.array(image.pixels[:]).reshape(height, width, 4)[::-1, :, 0]


def shown_box(picture: np.ndarray) -> np.ndarray:
    """The bounds of the bright area, in shares of the picture."""
    rows, columns = np.nonzero(picture > 0.5)
    height, width = picture.shape
    return np.array(
        [columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height]
    )


@pytest.mark.parametrize("percentage", [100, 50])
@pytest.mark.parametrize(("size", "aspect"), [((480, 270), 1.0), ((270, 480), 1.0), ((480, 320), 1.4)])
@pytest.mark.parametrize("how", ["FIT", "CROP"])
def test_the_rendered_frame_shows_a_box_at_its_position(
    shot: Any, tmp_path: Path, size: tuple[int, int], aspect: float, percentage: int, how: str
) -> None:
    shot.render.resolution_x, shot.render.resolution_y = size
    shot.render.pixel_aspect_x, shot.render.resolution_percentage = aspect, percentage
    shot.motionbooth.framing = how
    thing = shot.motionbooth.subjects[0].object
    animate(thing, "location", (0.4, 0.2, -8), (0.4, 0.2, -8))
    thing.scale = (0.7, 0.7, 1)
    drawn = shots.read_motion(shot, FRAMES).projections[0][0].box
    reading = shots.read_shot(shot, FRAMES, (96, 64))
    asked = reading.shot.subjects[0].boxes[0]
    assert drawn is not None
    assert asked is not None
    clip = clip_with_marker(tmp_path / "clip.mp4", asked, (96, 64), 24)
    takes.place_take(shot, "job", GenerateSpec(shot=reading.shot, prompt="a sks toy", model="toybox", seed=1), clip)
    picture = rendered(shot, tmp_path / "frame.png")
    # Half a pixel of the picture to each side, and as much of the clip, of which a pixel is smaller.
    assert shown_box(picture) == pytest.approx(drawn.as_tuple(), abs=1.0 / min(picture.shape) + 1e-3)
    strip = clips.strip_of(shot, "job")
    assert strips.strip_frame(shot, strip).as_tuple() == pytest.approx(
        (reading.shot.model_frame or framing.WHOLE).as_tuple(), abs=1e-4
    )


def test_a_clip_without_a_model_frame_fills_the_scenes_frame(shot: Any, tmp_path: Path) -> None:
    shot.render.resolution_x, shot.render.resolution_y = 640, 360
    reading = shots.read_shot(shot, FRAMES)
    assert reading.shot.model_frame is None
    clip = clip_with_marker(tmp_path / "clip.mp4", Box(0.2, 0.2, 0.6, 0.8), (96, 64), 24)
    takes.place_take(shot, "job", GenerateSpec(shot=reading.shot, prompt="a sks toy", model="toybox", seed=1), clip)
    where = takes.clip_frame(shot, "job", reading.shot)
    across = 1.5 / (640 / 360)
    assert where.as_tuple() == pytest.approx((0.5 - across / 2, 0, 0.5 + across / 2, 1), abs=1e-4)
    seen = shown_box(rendered(shot, tmp_path / "frame.png"))
    assert seen == pytest.approx(framing.in_shot(Box(0.2, 0.2, 0.6, 0.8), where).as_tuple(), abs=1 / 360 + 1e-3)


def explained(frame: Box) -> dict[str, object]:
    text = framing.explanation(frame)
    assert text is not None
    return {name: round(value, 2) if isinstance(value, float) else str(value) for name, value in text.values.items()}


def test_the_framing_is_explained_in_numbers() -> None:
    fitted = framing.model_frame(16 / 9, 1.5, "FIT")
    assert fitted.y2 - fitted.y1 == pytest.approx(16 / 9 / 1.5)
    assert explained(fitted) == {"hidden": 0.16, "side": "height"}
    cropped = framing.model_frame(16 / 9, 1.5, "CROP")
    assert explained(cropped) == {"empty": 0.16, "side": "width"}
    assert math.isclose(cropped.x2 - cropped.x1, 1.5 / (16 / 9))
    tall = framing.model_frame(9 / 16, 1.5, "FIT")
    assert explained(tall) == {"hidden": 0.62, "side": "width"}


def placed(shot: Any, tmp_path: Path, how: str) -> Any:
    """A take of a wide shot for a model of 3:2; its spec."""
    shot.render.resolution_x, shot.render.resolution_y = 480, 270
    shot.motionbooth.framing = how
    sent = shots.read_shot(shot, FRAMES, (96, 64)).shot
    spec = GenerateSpec(shot=sent, prompt="a sks toy", model="toybox", seed=1)
    takes.place_take(shot, "job", spec, clip_with_marker(tmp_path / "clip.mp4", Box(0.2, 0.2, 0.6, 0.8), (96, 64), 24))
    return spec


@pytest.mark.parametrize("how", ["FIT", "CROP"])
def test_an_image_sequence_covers_the_same_area_as_its_clip(shot: Any, tmp_path: Path, how: str) -> None:
    frame = placed(shot, tmp_path, how).shot.model_frame
    for _ in image_sequence.write_images(shot, 0):
        pass
    (pictures,) = [strip for strip in compat.strips(shot.sequence_editor) if strip.type == "IMAGE"]
    assert strips.strip_frame(shot, pictures).as_tuple() == pytest.approx(frame.as_tuple(), abs=1e-4)
    shot.frame_set(12)
    seen = shown_box(rendered(shot, tmp_path / "frame.png"))
    expected = np.clip(framing.in_shot(Box(0.2, 0.2, 0.6, 0.8), frame).as_tuple(), 0, 1)
    assert seen == pytest.approx(expected, abs=1 / 270 + 1e-3)


@pytest.mark.parametrize(("how", "method"), [("FIT", "CROP"), ("CROP", "FIT")])
def test_a_camera_background_covers_the_same_area_as_the_strip(
    shot: Any, tmp_path: Path, how: str, method: str
) -> None:
    """Blender's frame methods describe the image in the camera's frame: CROP fills the frame and extends beyond it."""
    placed(shot, tmp_path, how)
    takes.show_in_camera(shot, shot.motionbooth.takes[0])
    assert [picture.frame_method for picture in shot.camera.data.background_images] == [method]


def test_a_deleted_strip_is_placed_again_in_the_same_area(shot: Any, tmp_path: Path) -> None:
    frame = placed(shot, tmp_path, "FIT").shot.model_frame
    compat.strips(shot.sequence_editor).remove(clips.strip_of(shot, "job"))
    assert takes.clip_frame(shot, "job", takes.spec_of(shot.motionbooth.takes[0]).shot) == frame
    takes.activate(shot, 0)
    assert strips.strip_frame(shot, clips.strip_of(shot, "job")).as_tuple() == pytest.approx(frame.as_tuple(), abs=1e-4)
