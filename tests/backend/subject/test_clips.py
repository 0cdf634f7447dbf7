"""Clips from a folder: videos and folders of frames, captions in three forms, errors that name the clip."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from motionbooth.models.registry import Base
from motionbooth.subject.clips import clip_sources, folder_clips, read_frames
from motionbooth.subject.dataset import encode_frames
from motionbooth.video import write_clip
from motionbooth_protocol.errors import InvalidInput
from PIL import Image


def grey_ramp(count: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Frame k is of the grey 10 k."""
    return np.stack([np.full((height, width, 3), 10 * k, np.uint8) for k in range(count)])


def frame_folder(folder: Path, count: int, size: tuple[int, int] = (192, 128)) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", size, (10 * number,) * 3).save(folder / f"{number:03}.png")
    return folder


def greys(frames: np.ndarray) -> list[int]:
    return [round(float(frame.mean()) / 10) for frame in frames]


@pytest.mark.parametrize(("fps", "expected"), [(8, [0, 1, 2, 3]), (24, [0, 3, 6, 9]), (4, [0, 0, 1, 1])])
def test_a_video_is_taken_at_the_bases_rate(tiny_single: Base, tmp_path: Path, fps: int, expected: list[int]) -> None:
    write_clip(tmp_path / "ramp.mp4", grey_ramp(12), fps)
    frames = read_frames(tmp_path / "ramp.mp4", tiny_single)
    assert frames.shape == (4, 128, 192, 3)
    assert greys(frames) == expected


def test_a_folder_of_frames_is_taken_one_by_one(tiny_single: Base, tmp_path: Path) -> None:
    frames = read_frames(frame_folder(tmp_path / "walk", 6), tiny_single)
    assert greys(frames) == [0, 1, 2, 3]


def test_the_middle_is_cut_out_and_never_squashed(tiny_single: Base, tmp_path: Path) -> None:
    folder = tmp_path / "tall"
    folder.mkdir()
    picture = np.zeros((400, 100, 3), np.uint8)
    picture[170:230] = 255  # of the 67 rows that are kept
    for number in range(4):
        Image.fromarray(picture).save(folder / f"{number}.png")
    frame = read_frames(folder, tiny_single)[0]
    assert frame.shape == (128, 192, 3)
    assert (frame[10:118] > 200).all()
    assert (frame[0] < 60).all()


def test_clips_become_latents_with_their_captions(tiny_single: Base, tmp_path: Path) -> None:
    frame_folder(tmp_path / "a", 4)
    write_clip(tmp_path / "b.mp4", grey_ramp(4, 128, 192), 8)
    (tmp_path / "captions.json").write_text('{"a": "a grey wall", "b.mp4": "a grey road"}')
    seen: list[int] = []
    latents, captions = folder_clips(tiny_single, tmp_path, lambda done, count: seen.append(done))
    assert captions == ["a grey wall", "a grey road"]
    assert seen == [1, 2]
    assert latents.shape == (2, 4, 4, 16, 24)
    mean, _ = encode_frames(tiny_single, read_frames(tmp_path / "a", tiny_single))
    assert torch.equal(latents[0], mean.transpose(0, 1))


def test_captions_are_read_from_csv_and_from_text_beside(tmp_path: Path) -> None:
    for name in "abc":
        frame_folder(tmp_path / name, 1, (8, 8))
    (tmp_path / "captions.csv").write_text('name,caption\na,"a cat, asleep"\nb,a dog\n')
    (tmp_path / "c.txt").write_text("a fish\n")
    assert [caption for _, caption in clip_sources(tmp_path)] == ["a cat, asleep", "a dog", "a fish"]


def test_what_cannot_be_used_is_named(tiny_single: Base, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no folder of clips at"):
        clip_sources(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="neither videos"):
        clip_sources(tmp_path)
    frame_folder(tmp_path / "walk", 2)
    with pytest.raises(InvalidInput, match=r"walk has no caption: .*walk\.txt beside it"):
        clip_sources(tmp_path)
    with pytest.raises(InvalidInput, match=r"walk has 2 frames at 8 a second; Tiny needs 4"):
        read_frames(tmp_path / "walk", tiny_single)
    (tmp_path / "captions.json").write_text("[1]")
    with pytest.raises(InvalidInput, match=r"The captions in .*captions\.json cannot be read"):
        clip_sources(tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    with pytest.raises(InvalidInput, match=r"broken\.mp4 is not a video that can be read"):
        read_frames(tmp_path / "broken.mp4", tiny_single)


def test_a_base_with_another_rate_takes_other_frames(tiny_single: Base, tmp_path: Path) -> None:
    tiny_single.settings = msgspec.structs.replace(tiny_single.settings, fps=12, frames=3)
    write_clip(tmp_path / "ramp.mp4", grey_ramp(12), 24)
    assert greys(read_frames(tmp_path / "ramp.mp4", tiny_single)) == [0, 2, 4]
