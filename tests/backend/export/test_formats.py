"""Each format, read back as its engine's own code or documentation reads it (docs/export.md names the sources)."""

from __future__ import annotations

import io
import json
import math
import shlex
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from motionbooth.cli.app import app
from motionbooth.evaluation.generated_shot import read_spec
from motionbooth.export.engine_shot import engine_shot
from motionbooth.export.formats import FORMATS, Media, export_shot
from motionbooth.generation.script import read_script, script_with_subjects
from motionbooth.generation.video import read_clip, write_clip
from motionbooth_protocol.errors import InvalidInput, NotFound
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.messages import ModelInfo
from motionbooth_protocol.motion import Box, CameraPath, CameraPose, Offset, Parallax, Shot, SubjectTrack
from msgspec.structs import replace
from PIL import Image
from refused import refused, refused_by_command
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

FRAMES = 24
MODEL = ModelInfo("tiny", frames=FRAMES, width=96, height=64, fps=8)
BOXES = [Box(0.1 + 0.02 * f, 0.4, 0.4 + 0.02 * f, 0.8) for f in range(FRAMES)]


def turned(degrees: float) -> np.ndarray:
    """Camera to world (x right, y up) of a level camera that looks along +y, turned to the left."""
    return Rotation.from_euler("xyz", (90, 0, degrees), degrees=True).as_matrix()


POSES = [
    CameraPose(
        tuple(
            map(
                tuple,
                np.column_stack([turned(f) @ np.diag([1, -1, -1]), [0.1 * f, -6, 1.5]]).tolist(),
            )
        ),
        (1.2, 1.8),
    )
    for f in range(FRAMES)
]  # fmt: skip


def spec_of(**changes: Any) -> GenerateSpec:
    """A dog that a 16:9 scene's model frame of 3:2 shows, while the camera pans."""
    path = msgspec.structs.replace(CameraPath.straight(0.4, 0.1, FRAMES), poses=POSES)
    track = SubjectTrack("Rex", "dog", BOXES, token="sks")
    frame = Box(0.0, -0.0926, 1.0, 1.0926)  # contains the finished frame
    shot = Shot("walk", 1, 48, 24, 1920, 1080, path, [track], frame)
    spec = GenerateSpec(shot, "a sks dog walks on the beach", "tiny", background_phrase="beach", seed=7)
    return msgspec.structs.replace(spec, shot=msgspec.structs.replace(shot, **changes))


def exported(
    tmp_path: Path, name: str, media: Media | None = None, size: tuple[int, int] | None = None, **changes: Any
) -> tuple[Path, list[str]]:
    folder = tmp_path / "a folder" / name
    return folder, export_shot(spec_of(**changes), name, folder, media or Media(), size)


def picture_in(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def requested(frames: int, size: tuple[int, int]) -> np.ndarray:
    """(T, 4): the box in pixels of the engine's frame, from the places in the finished frame."""
    width, height = size
    finished = np.interp(np.linspace(0, FRAMES - 1, frames), range(FRAMES), [box.x1 for box in BOXES])
    top, bottom = (-0.0926 + y * 1.1852 for y in (0.4, 0.8))
    aspect = (width / height) / (16 / 9)  # below 1: the engine's frame is higher than the finished one
    y1, y2 = ((y - 0.5) * aspect + 0.5 for y in (top, bottom))
    return np.stack(
        [finished * width, np.full(frames, y1 * height), (finished + 0.3) * width, np.full(frames, y2 * height)], 1
    )


def test_ati(tmp_path: Path) -> None:
    folder, steps = exported(tmp_path, "ati")
    with np.load(io.BytesIO(torch.load(folder / "tracks.pth"))) as packed:
        tracks = packed["array"] / 8
    assert tracks.shape[1:] == (121, 1, 3)
    corner, opposite = tracks[0, :, 0], tracks[8, :, 0]  # the first and the last of the nine points in the box
    wanted = requested(121, (832, 480))
    found = np.concatenate(
        [corner[:, :2] - (opposite - corner)[:, :2] / 4, opposite[:, :2] + (opposite - corner)[:, :2] / 4], 1
    )
    assert np.abs(found - wanted).max() < 0.05  # float32 of pixels, times 8
    assert (tracks[:9, :60, 0, 2] == 1).all()
    assert set(np.unique(tracks[..., 2])) == {0.0, 1.0}
    (case,) = json.loads((folder / "case.yaml").read_text())  # JSON is YAML
    assert Path(case["track"]) == folder / "tracks.pth"
    assert case["text"] == "a dog walks on the beach"
    assert any("first_frame.png" in step for step in steps)


def test_background_points_follow_the_camera_until_they_leave(tmp_path: Path) -> None:
    folder, _ = exported(tmp_path, "wan-move")
    tracks, visible = np.load(folder / "tracks.npy"), np.load(folder / "visibility.npy")
    assert tracks.shape == (81, visible.shape[1], 2)
    assert visible.dtype == bool
    assert visible[0].all()
    background = tracks[:, 9:]
    travel = (background - background[0])[:, 0]
    # The last frame of 24 has 23/24 of the travel, in shares of the model's frame, as wide as the finished one.
    assert (
        np.abs(travel[-1] - (-0.4 * 23 / 24 * 832, -0.1 * 23 / 24 * 480 * 1.1852 * (832 / 480) / (16 / 9))).max() < 0.05
    )
    inside = ((background >= 0) & (background < (832, 480))).all(axis=-1)
    assert not visible[:, 9:][~inside].any()
    boxes = requested(81, (832, 480))[:, None]
    covered = ((background > boxes[..., :2] + 1) & (background < boxes[..., 2:] - 1)).all(axis=-1)
    assert covered.any()
    assert not visible[:, 9:][covered].any()


def test_comfyui(tmp_path: Path) -> None:
    picture = tmp_path / "still.png"
    Image.new("RGB", (640, 360), (200, 40, 10)).save(picture)
    folder, steps = exported(tmp_path, "comfyui", Media(first_frame=picture))
    nodes = json.loads((folder / "workflow.json").read_text())
    links = [
        (name, value) for name, node in nodes.items() for value in node["inputs"].values() if isinstance(value, list)
    ]
    assert all(nodes.get(source) is not None and isinstance(slot, int) for _, (source, slot) in links)
    motion = nodes["motion"]["inputs"]
    assert nodes["motion"]["class_type"] == "WanTrackToVideo"
    tracks = json.loads(motion["tracks"])
    assert all(set(point) == {"x", "y"} for track in tracks for point in track)
    assert max(len(track) for track in tracks) == 121  # of its fixed length; what is missing is invisible
    assert min(len(track) for track in tracks) >= 1
    assert (motion["width"], motion["height"], motion["length"]) == (832, 480, 81)
    assert nodes["positive"]["inputs"]["text"] == "a dog walks on the beach"
    assert nodes["sampler"]["inputs"]["seed"] == 7
    assert picture_in(folder / "first_frame.png").size == (832, 480)
    assert not any("Add first_frame.png" in step for step in steps)


def test_vace(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (40, 40), (200, 40, 10)).save(pictures / "dog.png")
    mask = Image.new("L", (40, 40), 0)
    mask.paste(255, (10, 10, 30, 30))
    mask.save(pictures / "dog_mask.png")
    depth = tmp_path / "depth.mp4"
    write_clip(depth, np.full((30, 90, 160, 3), 90, np.uint8), 24)
    folder, steps = exported(tmp_path, "vace", Media(pictures=pictures, depth=depth))
    boxes, fps = read_clip(folder / "src_video_boxes.mp4")
    assert boxes.shape == (81, 480, 832, 3)
    assert fps == 16
    for frame, wanted in list(zip(boxes, requested(81, (832, 480)), strict=True))[:60:10]:
        rows, columns = np.nonzero(frame[..., 0] < 128)
        found = (columns.min(), rows.min(), columns.max(), rows.max())
        assert np.abs(np.array(found) - wanted).max() <= 3  # the line is 3 px wide, and H.264 blurs it
        assert np.median(frame) > 250
    assert read_clip(folder / "src_mask.mp4")[0].min() > 250
    assert abs(int(np.median(read_clip(folder / "src_video_depth.mp4")[0])) - 90) <= 2
    reference = np.asarray(picture_in(folder / "src_ref_images" / "1.png"))
    assert (reference[0, 0] == 255).all()
    assert tuple(reference[20, 20]) == (200, 40, 10)
    assert "--src_ref_images src_ref_images/1.png" in steps[0]
    assert "--size 480p --frame_num 81" in steps[0]
    assert "--size 720p" in exported(tmp_path / "large", "vace", size=(720, 1280))[1][0]


def test_ic_lora(tmp_path: Path) -> None:
    frames = np.zeros((24, 100, 150, 3), np.uint8)
    frames[:, 40:80, 15:60] = 255
    guide = tmp_path / "guide.mp4"
    write_clip(guide, frames, 12)
    folder, _ = exported(tmp_path, "ic-lora", Media(guide=guide))
    control, fps = read_clip(folder / "control.mp4")
    assert control.shape == (97, 512, 768, 3)
    assert fps == 24
    rows, columns = np.nonzero(control[40, ..., 0] > 128)
    # The guide shows the model's frame of 3:2, as the engine's is.
    assert (
        np.abs(
            np.array([columns.min(), rows.min(), columns.max(), rows.max()]) / (768, 512, 768, 512)
            - (0.1, 0.4, 0.4, 0.8)
        ).max()
        < 0.01
    )
    folder, steps = exported(tmp_path, "ic-lora", Media(depth=guide))
    assert "depth IC-LoRA" in steps[0]
    assert read_clip(folder / "control.mp4")[0][40, 300, 200].min() > 250
    with refused(InvalidInput, code="no_control"):
        exported(tmp_path / "none", "ic-lora")
    assert not (tmp_path / "none" / "a folder" / "ic-lora").exists()


def test_cameractrl(tmp_path: Path) -> None:
    folder, steps = exported(tmp_path, "cameractrl")
    asked = json.loads((folder / "prompts.json").read_text())
    assert asked == {"prompts": ["a dog walks on the beach"], "negative_prompts": [""], "seeds": [7]}
    assert "--original_pose_width 384 --original_pose_height 256" in steps[0], "or it rescales fx for a video in 16:9"
    lines = (folder / "trajectory.txt").read_text().splitlines()
    entries = [[float(value) for value in line.split(" ")] for line in lines[1:]]
    assert len(entries) == 16
    assert {len(entry) for entry in entries} == {19}
    to_camera = np.stack([np.vstack([np.reshape(entry[7:], (3, 4)), [0, 0, 0, 1]]) for entry in entries])
    point = np.array([0.3, 4.0, 1.0, 1.0])  # in the world, before the camera
    for index, moment in enumerate(np.linspace(0, FRAMES - 1, 16)):
        assert entries[index][0] == pytest.approx(1e6 * index / 8, abs=1)
        x, y, z, _ = to_camera[index] @ point
        seen = np.array([entries[index][1] * x / z + entries[index][3], entries[index][2] * y / z + entries[index][4]])
        right, up, back = turned(moment).T @ (point[:3] - (0.1 * moment, -6, 1.5))
        shown = np.array([1.2 * right / -back + 0.5, 1.8 * -up / -back + 0.5])  # in the model's frame
        finished = shown * (1, 1.1852) + (0, -0.0926)
        engine = (finished - 0.5) * (1, (384 / 256) / (16 / 9)) + 0.5
        assert np.abs(seen - engine).max() < 1e-6


def test_recammaster(tmp_path: Path) -> None:
    folder, _ = exported(tmp_path, "recammaster")
    frames = json.loads((folder / "camera_extrinsics.json").read_text())
    assert list(frames) == [f"frame{index}" for index in range(81)]
    poses = []
    for frame in frames.values():  # as its data set is described: rows ahead, right, up, position in centimeters
        rows = [[float(value) for value in row.split()] for row in frame["cam01"].strip().strip("[]").split("] [")]
        ahead, right, up, position = np.array(rows)[:, :3]
        poses.append(np.vstack([np.column_stack([right, -up, ahead, position / 100]), [0, 0, 0, 1]]))
    relative = np.linalg.inv(poses[0]) @ poses[-1]
    ours = [np.vstack([np.array(pose.to_world), [0, 0, 0, 1]]) for pose in (POSES[0], POSES[-1])]
    assert np.abs(relative - np.linalg.inv(ours[0]) @ ours[1]).max() < 1e-4  # six decimals of centimeters
    assert np.linalg.det(relative) == pytest.approx(1, abs=1e-5)


def test_a_script_is_read_as_the_shot(tmp_path: Path) -> None:
    folder, _ = exported(tmp_path, "motionbooth-script")
    spec = read_script(folder / "script.json", MODEL)
    assert spec.prompt == "a sks dog walks on the beach"
    assert spec.background_phrase == "beach"
    (track,) = spec.shot.subjects
    assert track.phrase == "sks dog"
    found = np.array([box.as_tuple() for box in track.boxes if box is not None])
    assert np.abs(found - [box.as_tuple() for box in BOXES]).max() < 1e-9
    assert spec.shot.camera.offsets[-1].dx == pytest.approx(0.4 * 23 / 24)


@pytest.mark.parametrize("long_shot", ["spread", "windows"])
def test_a_script_has_the_shots_boxes_and_pan_at_the_models_frames(tmp_path: Path, long_shot: str) -> None:
    """Blender exports a shot at all of its frames, and the model has others."""
    shot = spec_of().shot
    spec = replace(spec_of(), model="toybox", long_shot=long_shot)
    export_shot(spec, "motionbooth-script", tmp_path, Media())
    seconds = None if long_shot == "spread" else 2
    found = script_with_subjects(tmp_path / "script.json", "toybox", 0, [], seconds=seconds).shot
    assert found.frames == (8 if long_shot == "spread" else 16)
    at = np.linspace(0, FRAMES - 1, found.frames)
    boxes = np.array([box.as_tuple() for box in found.subjects[0].boxes if box is not None])
    assert np.abs(boxes[:, 0] - np.interp(at, range(FRAMES), [box.x1 for box in BOXES])).max() < 1e-6
    assert found.camera.offsets[-1].dx == pytest.approx(shot.camera.offsets[-1].dx)


def test_a_script_of_a_shot_in_its_own_frame_has_the_models_frame(tmp_path: Path) -> None:
    """As Blender exports a shot: the boxes are in the scene's frame of 16:9, and toybox generates 3:2."""
    spec = replace(spec_of(model_frame=None), model="toybox")
    export_shot(spec, "motionbooth-script", tmp_path, Media())
    found = script_with_subjects(tmp_path / "script.json", "toybox", 0, []).shot
    (first, *_) = found.subjects[0].boxes
    assert first is not None
    assert first.as_tuple() == pytest.approx((0.1, (0.4 + 0.0926) / 1.1852, 0.4, (0.8 + 0.0926) / 1.1852), abs=1e-4)
    assert found.camera.offsets[-1].dy == pytest.approx(0.1 * 23 / 24 / 1.1852, abs=1e-4)


def test_the_command_of_a_script_generates_the_frames_of_a_long_shot(tmp_path: Path) -> None:
    spec = replace(spec_of(), model="toybox", long_shot="windows")  # of two seconds; toybox's own clip has one
    (command, *_) = export_shot(spec, "motionbooth-script", tmp_path, Media())
    assert "--seconds 2 " in command
    again = script_with_subjects(tmp_path / "script.json", "toybox", 0, [], seconds=2)
    assert (again.long_shot, again.shot.scene_frames / again.shot.fps) == ("windows", 2)
    for other in (replace(spec, long_shot="spread"), replace(spec, shot=replace(spec.shot, frame_end=24))):
        assert "--seconds" not in export_shot(other, "motionbooth-script", tmp_path, Media())[0]


def test_a_subject_that_is_never_in_the_frame_is_not_in_the_script(tmp_path: Path) -> None:
    tracks = [SubjectTrack("Rex", "dog", BOXES, token="sks"), SubjectTrack("Max", "cat", [None] * FRAMES)]
    folder, steps = exported(tmp_path, "motionbooth-script", subjects=tracks)
    assert [track.phrase for track in read_script(folder / "script.json", MODEL).shot.subjects] == ["sks dog"]
    assert any(step.startswith("Max is never in the frame") for step in steps)


@pytest.mark.parametrize("name", ["vace", "wan-move"])
def test_the_prompt_in_a_command_is_one_word_of_the_shell(tmp_path: Path, name: str) -> None:
    spec = replace(spec_of(subjects=[]), prompt='a café, "open", for $5')
    (command, *_) = export_shot(spec, name, tmp_path / name, Media())
    assert shlex.split(command)[-1] == spec.prompt


def test_a_camera_that_a_frame_cannot_show_is_refused(tmp_path: Path) -> None:
    turned = [((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (math.tan(a), 0.0, 1.0)) for a in np.linspace(0, 1.4, FRAMES).tolist()]
    camera = CameraPath(CameraPath.still(FRAMES).offsets, turned)
    with refused(InvalidInput, width=480, height=832):
        exported(tmp_path, "wan-move", camera=camera, width=4, height=4000, model_frame=None)


def test_a_subject_that_leaves_and_a_camera_that_a_script_cannot_express(tmp_path: Path) -> None:
    left = SubjectTrack("Rex", "dog", [*BOXES[:-3], None, None, None], token="sks")
    folder, _ = exported(tmp_path, "motionbooth-script", subjects=[left])
    (track,) = read_script(folder / "script.json", MODEL).shot.subjects
    assert track.boxes[-3:] == [None] * 3
    assert track.boxes[-4] is not None
    offsets = [Offset(0.4 * math.sin(index / 5), 0.0) for index in range(FRAMES)]
    with refused(InvalidInput, code="uneven_pan"):
        exported(tmp_path / "bent", "motionbooth-script", camera=CameraPath(offsets))


def test_a_pan_without_poses_is_a_turn_to_what_it_reaches(tmp_path: Path) -> None:
    folder, _ = exported(tmp_path, "cameractrl", camera=CameraPath.straight(0.6, 0.0, FRAMES), model_frame=None)
    lines = (folder / "trajectory.txt").read_text().splitlines()[1:]
    first, last = ([float(value) for value in lines[index].split(" ")] for index in (0, -1))
    to_camera = np.reshape(last[7:], (3, 4))
    x, y, z = to_camera @ np.array([0, 10, 0, 1.0])  # what the middle of the first frame shows
    assert np.reshape(first[7:], (3, 4)) @ np.array([0, 10, 0, 1.0]) == pytest.approx((0, 0, 10))
    assert last[1] * x / z == pytest.approx(-0.6 * 23 / 24)
    assert y / z == pytest.approx(0)
    folder, _ = exported(tmp_path, "cameractrl", camera=CameraPath.straight(0.0, 0.3, FRAMES), model_frame=None)
    last = [float(value) for value in (folder / "trajectory.txt").read_text().splitlines()[-1].split(" ")]
    x, y, z = np.reshape(last[7:], (3, 4)) @ np.array([0, 10, 0, 1.0])
    aspect = (384 / 256) / (16 / 9)  # the engine's frame is higher than the finished one
    assert last[2] * y / z == pytest.approx(-0.3 * 23 / 24 * aspect)


def test_a_zoom_without_poses(tmp_path: Path) -> None:
    zoom = [
        ((s, 0.0, 0.5 - s / 2), (0.0, s, 0.5 - s / 2), (0.0, 0.0, 1.0)) for s in np.linspace(1, 1.4, FRAMES).tolist()
    ]
    for name in ("cameractrl", "recammaster"):
        with refused(InvalidInput, code="no_poses"):
            exported(tmp_path, name, camera=CameraPath(CameraPath.still(FRAMES).offsets, zoom))


def test_a_subject_that_comes_later_is_named(tmp_path: Path) -> None:
    late = SubjectTrack("Rex", "dog", [None, None, *BOXES[2:]], token="sks")
    folder, steps = exported(tmp_path, "wan-move", subjects=[late])
    assert any(step.startswith("Rex is not in the first frame") for step in steps)
    assert np.load(folder / "tracks.npy").shape[1] > 20


def test_a_zoom_moves_the_points_and_the_frame_of_the_shot_is_kept(tmp_path: Path) -> None:
    zoom = [
        ((s, 0.0, 0.5 - s / 2), (0.0, s, 0.5 - s / 2), (0.0, 0.0, 1.0)) for s in np.linspace(1, 1.4, FRAMES).tolist()
    ]
    camera = CameraPath(CameraPath.still(FRAMES).offsets, zoom)
    folder, _ = exported(tmp_path, "wan-move", camera=camera)
    tracks = np.load(folder / "tracks.npy")
    background = tracks[:, 9:] - (416, 240)
    assert np.abs(background[-1] - 1.4 * background[0]).max() < 1e-3  # float32 of hundreds of pixels
    # Interpolated between frames whose scale is 1.7 % apart: off by the square of that at most, at 416 px.
    assert np.abs(background[40] - 1.2 * background[0]).max() < 0.12
    again = read_spec(folder / "shot.json", "toybox").shot
    assert again.frames == 81
    once_more = engine_shot(again, 81, (832, 480))
    found, known = (np.array(each.camera.homographies) for each in (once_more, again))  # equal up to a factor
    assert np.abs(found / found[:, 2:, 2:] - known / known[:, 2:, 2:]).max() < 1e-9
    box, before = once_more.subjects[0].boxes[40], again.subjects[0].boxes[40]
    assert box is not None
    assert before is not None
    assert box.as_tuple() == pytest.approx(before.as_tuple())


def test_scenery_with_depth_moves_by_its_nearness_and_is_the_depth_video(tmp_path: Path) -> None:
    """A camera that tracks to the right: the lower half of the scenery is twice as near, and moves twice as far."""
    still = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    moved = [((1.0, 0.0, -0.01 * f), still[1], still[2]) for f in range(FRAMES)]
    near = np.ones((FRAMES, 16, 24), "<f2")
    near[:, 8:] = 2
    parallax = Parallax([still] * FRAMES, 16, 24, near.tobytes())
    camera = CameraPath(CameraPath.still(FRAMES).offsets, moved, parallax=parallax)
    folder, _ = exported(tmp_path, "wan-move", camera=camera, subjects=[])
    tracks = np.load(folder / "tracks.npy")
    travel, height = (tracks[-1] - tracks[0])[:, 0] / 832, tracks[0, :, 1] / 480
    assert travel[height < 0.45] == pytest.approx(-0.23, abs=1e-4)  # float32 of hundreds of pixels
    assert travel[height > 0.55] == pytest.approx(-0.46, abs=1e-4)
    again = read_spec(folder / "shot.json", "toybox").shot.camera
    assert again.parallax is not None
    assert np.abs(np.array(again.parallax.infinity) - np.eye(3)).max() < 1e-9
    folder, _ = exported(tmp_path, "vace", size=(192, 128), camera=camera)
    depth = read_clip(folder / "src_video_depth.mp4")[0]
    assert abs(int(depth[40, 20, 90, 0]) - 127) <= 2
    assert depth[40, 110, 90, 0] >= 253


@pytest.mark.parametrize("name", FORMATS)
def test_each_export_has_a_preview_and_says_what_to_do(tmp_path: Path, name: str) -> None:
    depth = tmp_path / "depth.mp4"
    write_clip(depth, np.full((24, 60, 90, 3), 90, np.uint8), 24)
    folder, steps = exported(tmp_path, name, Media(depth=depth), (192, 128))
    assert picture_in(folder / "preview.png").width > 1000
    text = (folder / "README.txt").read_text()
    assert all(step in text for step in steps)
    assert "motionbooth import" in text


def test_upright_shots_get_upright_clips_and_sizes_are_checked(tmp_path: Path) -> None:
    folder, _ = exported(tmp_path, "wan-move", width=1080, height=1920, model_frame=None)
    assert np.load(folder / "tracks.npy")[0].max(axis=0)[1] > 700
    file = tmp_path / "shot.json"
    file.write_bytes(msgspec.json.encode({"generate": spec_of()}))
    run = CliRunner()
    vace = ["export", str(file), "--to", "vace", "--out", str(tmp_path / "x"), "--size"]
    refused_by_command([*vace, "830x480"], InvalidInput, step=16, width=830, height=480)
    refused_by_command([*vace, "big"], InvalidInput, size="big")
    refused_by_command(["export", str(file), "--to", "sora", "--out", str(tmp_path / "x")], NotFound, name="sora")
    result = run.invoke(app, ["export", str(file), "--to", "wan-move", "--out", str(tmp_path / "x")])
    assert result.exit_code == 0
    assert "generate.py" in result.output


def test_a_shot_without_subjects_is_a_script_that_is_read(tmp_path: Path) -> None:
    folder, _ = exported(tmp_path, "motionbooth-script", subjects=[])
    spec = read_script(folder / "script.json", MODEL)
    assert spec.shot.subjects == []
    assert spec.shot.camera.offsets[-1].dx == pytest.approx(0.4 * 23 / 24)


def test_a_script_with_a_byte_order_mark_is_exported_as_it_is_generated(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text('{"prompt": "a meadow"}', "utf-8-sig")
    assert read_spec(script, "toybox").prompt == "a meadow"


def test_a_cut_has_no_frame_between_its_two_views(tmp_path: Path) -> None:
    """The mean of two opposite views is no view."""
    still = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    turned = ((-1.0, 0.0, 0.0), (0.0, 1.0, -1.0), (0.0, 0.0, -1.0))  # (x, y, 1) around the middle to (-x, y, -1)
    camera = CameraPath(CameraPath.still(FRAMES).offsets, [still] * 12 + [turned] * 12)
    # Of 47 moments, two for each of the 24 frames, one is in the middle of the cut.
    found = np.array(engine_shot(spec_of(camera=camera, model_frame=None).shot, 47, (832, 468)).camera.homographies)
    assert np.abs(found[:23] - found[0]).max() < 1e-9
    assert np.abs(found[23:] - found[-1]).max() < 1e-9
    assert np.linalg.det(found) == pytest.approx(1)


def test_a_camera_that_mirrors_is_exported_by_what_it_shows(tmp_path: Path) -> None:
    mirrored = [replace(pose, to_world=tuple((-a, b, c, d) for a, b, c, d in pose.to_world)) for pose in POSES]
    camera = CameraPath(CameraPath.straight(0.4, 0.1, FRAMES).offsets, poses=mirrored)
    folder, _ = exported(tmp_path, "cameractrl", camera=camera)
    assert len((folder / "trajectory.txt").read_text().splitlines()) == 17


@pytest.mark.parametrize("size", [(0, 0), (832, -480), (99984, 99984)])
def test_a_size_that_no_clip_has_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    with refused(InvalidInput, width=size[0], height=size[1]):
        exported(tmp_path, "vace", size=size)


def test_the_middle_of_a_small_picture_is_the_middle_of_the_frame(tmp_path: Path) -> None:
    small = np.zeros((8, 12, 3), np.uint8)
    small[3:5, 5:7] = 255
    Image.fromarray(small).save(tmp_path / "small.png")
    folder, _ = exported(tmp_path, "comfyui", Media(first_frame=tmp_path / "small.png"), size=(768, 512))
    rows, columns = np.nonzero(np.asarray(picture_in(folder / "first_frame.png"))[..., 0] > 128)
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx((384, 256), abs=0.6)  # 64 times as large


def test_a_large_picture_is_averaged(tmp_path: Path) -> None:
    columns = np.tile(np.array([255, 0, 0, 255], np.uint8), 832)
    Image.fromarray(np.broadcast_to(columns[None, :, None], (1920, 3328, 3)).copy()).save(tmp_path / "large.png")
    media = Media(first_frame=tmp_path / "large.png")
    folder, _ = exported(tmp_path, "comfyui", media, width=832, height=480, model_frame=None)
    assert np.abs(np.asarray(picture_in(folder / "first_frame.png")).astype(int) - 128).max() <= 1


def test_a_clip_that_cannot_be_read_leaves_no_folder(tmp_path: Path) -> None:
    (tmp_path / "guide.mp4").write_bytes(b"no clip")
    with refused(InvalidInput, path=str(tmp_path / "guide.mp4")):
        exported(tmp_path, "ic-lora", Media(guide=tmp_path / "guide.mp4"))
    assert not (tmp_path / "a folder").exists()


def test_a_shot_is_not_replaced_by_its_export(tmp_path: Path) -> None:
    shot = tmp_path / "shot.json"
    shot.write_bytes(msgspec.json.encode({"generate": spec_of(), "trainings": []}))
    before = shot.read_bytes()
    command = ["export", str(shot), "--to", "wan-move", "--out", str(tmp_path)]
    refused_by_command(command, InvalidInput, shot=str(shot))
    assert shot.read_bytes() == before
