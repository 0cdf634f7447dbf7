"""Another engine's clip of an exported shot becomes a take: in the shot's length and rate, and measured."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from motionbooth.cli.app import app
from motionbooth.evaluation.generated_shot import read_spec
from motionbooth.export.formats import Media, export_shot
from motionbooth.export.import_clip import import_clip
from motionbooth.generation.video import read_clip, write_clip
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.jobs import GenerateSpec
from motionbooth_protocol.motion import Box, CameraPath, Shot, SubjectTrack
from PIL import Image
from refused import refused_by_command
from typer.testing import CliRunner

BLUE, GRASS = (30, 60, 220), (90, 140, 80)


@pytest.fixture
def spec() -> GenerateSpec:
    """A ball that rolls to the right, in a scene of 16:9 whose model frame is 3:2."""
    boxes = [Box(0.1 + 0.05 * f, 0.4, 0.3 + 0.05 * f, 0.7) for f in range(8)]
    track = SubjectTrack("Ball", "ball", list(boxes))
    shot = Shot("roll", 10, 57, 24, 1920, 1080, CameraPath.still(8), [track], Box(0.0, -0.0926, 1.0, 1.0926))
    return GenerateSpec(shot, "a ball on the grass")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture, mask = Image.new("RGB", (40, 40), GRASS), Image.new("L", (40, 40), 0)
    picture.paste(BLUE, (8, 8, 32, 32))
    mask.paste(255, (8, 8, 32, 32))
    picture.save(folder / "ball.png")
    mask.save(folder / "ball_mask.png")
    return folder


def engines_clip(shot_file: Path, clip: Path, size: tuple[int, int]) -> None:
    """What an engine that follows the files would generate: 33 frames in `size`, at 16 fps."""
    shot = read_spec(shot_file, "toybox").shot
    frames = np.full((33, size[1], size[0], 3), GRASS, np.uint8)
    for index, frame in enumerate(frames):
        box = shot.subjects[0].boxes[round(index * (shot.frames - 1) / 32)]
        assert box is not None
        x1, y1, x2, y2 = (round(edge) for edge in np.array(box.as_tuple()) * (*size, *size))
        frame[y1:y2, x1:x2] = BLUE
    write_clip(clip, frames, 16)


def test_a_clip_is_conformed_and_measured(tmp_path: Path, spec: GenerateSpec, pictures: Path) -> None:
    export_shot(spec, "wan-move", tmp_path / "export", Media(), (208, 112))
    clip, out = tmp_path / "engine.mp4", tmp_path / "takes" / "take.mp4"
    engines_clip(tmp_path / "export" / "shot.json", clip, (208, 112))
    arguments = ["import", str(clip), "--shot", str(tmp_path / "export" / "shot.json"), "--out", str(out)]
    result = CliRunner().invoke(app, [*arguments, "--pictures", str(pictures)])
    assert result.exit_code == 0, result.output
    frames, fps = read_clip(out)
    assert (len(frames), fps) == (spec.shot.scene_frames, spec.shot.fps)
    report = json.loads(out.with_suffix(".report.json").read_text())
    assert report["subjects"][0]["iou"] > 0.85  # the box's edges are on whole pixels of a frame of 208
    taken = read_spec(out.with_suffix(".shot.json"), "toybox").shot
    frame = taken.model_frame
    assert frame is not None
    # It contains the finished frame, as its aspect ratio asks.
    assert (frame.x2 - frame.x1) / (frame.y2 - frame.y1) * 16 / 9 == pytest.approx(208 / 112)
    assert (frame.y1, frame.y2) == (0.0, 1.0)
    assert out.with_suffix(".sheet.png").is_file()


def test_the_original_shot_measures_the_same(tmp_path: Path, spec: GenerateSpec, pictures: Path) -> None:
    """Exported or not: a shot says where things are in the finished frame."""
    export_shot(spec, "wan-move", tmp_path / "export", Media(), (208, 112))
    clip = tmp_path / "engine.mp4"
    engines_clip(tmp_path / "export" / "shot.json", clip, (208, 112))
    original = tmp_path / "shot.json"
    original.write_text(msgspec.json.encode({"generate": spec}).decode())
    found = []
    for name, shot in (("a", tmp_path / "export" / "shot.json"), ("b", original)):
        out = tmp_path / f"{name}.mp4"
        arguments = ["import", str(clip), "--shot", str(shot), "--out", str(out), "--pictures", str(pictures)]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        found.append(json.loads(out.with_suffix(".report.json").read_text())["subjects"][0]["iou"])
    assert found[0] == pytest.approx(found[1], abs=0.02)  # interpolated from 8 boxes or from 81


def test_what_is_no_clip(tmp_path: Path, spec: GenerateSpec) -> None:
    export_shot(spec, "wan-move", tmp_path / "export", Media(), (208, 112))
    shot = tmp_path / "export" / "shot.json"
    still = tmp_path / "still.mp4"
    write_clip(still, np.zeros((1, 20, 32, 3), np.uint8), 16)
    place = ["--shot", str(shot), "--out", str(tmp_path / "x.mp4")]
    refused_by_command(["import", str(still), *place], InvalidInput, clip=str(still))
    (tmp_path / "text.mp4").write_text("no clip")
    refused_by_command(["import", str(tmp_path / "text.mp4"), *place], InvalidInput, problem=...)
    engines_clip(shot, tmp_path / "engine.mp4", (208, 112))
    command = ["import", str(tmp_path / "engine.mp4"), *place, "--subject", str(tmp_path / "text.mp4")]
    refused_by_command(command, InvalidInput)
    assert not (tmp_path / "x.mp4").exists()


def test_a_clip_is_not_replaced_by_its_take(tmp_path: Path, spec: GenerateSpec) -> None:
    export_shot(spec, "wan-move", tmp_path / "export", Media(), (208, 112))
    clip, shot = tmp_path / "engine.mp4", tmp_path / "export" / "shot.json"
    engines_clip(shot, clip, (208, 112))
    before = clip.read_bytes()
    refused_by_command(["import", str(clip), "--shot", str(shot), "--out", str(clip)], InvalidInput, clip=str(clip))
    assert clip.read_bytes() == before


def test_an_earlier_take_survives_a_full_disk(tmp_path: Path, spec: GenerateSpec) -> None:
    resource = pytest.importorskip("resource", reason="this system has no limit of a file's size")
    clip, out = tmp_path / "engine.mp4", tmp_path / "take.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (9, 112, 208, 3)).astype(np.uint8)
    write_clip(clip, noise, 16)
    out.write_bytes(b"an earlier take")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            import_clip(clip, spec, {}, [], out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert out.read_bytes() == b"an earlier take"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["engine.mp4", "take.mp4"]
