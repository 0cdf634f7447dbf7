"""Clips from a folder: videos and folders of frames, captions in three forms, errors that name the clip."""

from __future__ import annotations

import struct
from pathlib import Path

import msgspec
import numpy as np
import platformdirs
import pytest
import torch
from motionbooth.finetuning.clip_folder import clip_sources, folder_clips, read_frames
from motionbooth.finetuning.dataset import encode_clips
from motionbooth.generation.video import write_clip
from motionbooth.models.base import Base
from motionbooth_protocol.errors import InvalidInput
from PIL import Image
from refused import refused


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache" / "motionbooth" / "prior_clips"


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


def test_a_telephones_video_on_its_side_is_turned_upright(tiny_single: Base, tmp_path: Path) -> None:
    frames = np.zeros((4, 64, 96, 3), np.uint8)
    frames[:, :, :48] = 255  # the left half
    write_clip(tmp_path / "side.mp4", frames, 8)
    content = bytearray((tmp_path / "side.mp4").read_bytes())
    matrix = content.index(b"tkhd") + 44
    assert struct.unpack_from(">9i", content, matrix) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", content, matrix, 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)  # 90 degrees clockwise
    (tmp_path / "side.mp4").write_bytes(content)
    upright = read_frames(tmp_path / "side.mp4", tiny_single)
    top, bottom = np.array_split(upright, 2, axis=1)
    assert top.mean() > 240
    assert bottom.mean() < 15


def test_a_folder_of_frames_is_taken_one_by_one_in_the_order_of_their_numbers(
    tiny_single: Base, tmp_path: Path
) -> None:
    folder = frame_folder(tmp_path / "walk", 12)
    assert greys(read_frames(folder, tiny_single)) == [0, 1, 2, 3]
    for path in folder.iterdir():
        path.rename(folder / f"frame_{int(path.stem)}.png")
    (folder / "._frame_0.png").write_bytes(b"left behind by a system")
    assert greys(read_frames(folder, tiny_single)) == [0, 1, 2, 3]


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


@pytest.fixture
def two_clips(tmp_path: Path) -> Path:
    frame_folder(tmp_path / "clips" / "a", 4)
    write_clip(tmp_path / "clips" / "b.mp4", grey_ramp(4, 128, 192), 8)
    (tmp_path / "clips" / "captions.json").write_text('{"a": "a grey wall", "b.mp4": "a grey road"}')
    return tmp_path / "clips"


def ignore(done: int, count: int) -> None:
    pass


def test_clips_become_latents_with_their_captions(tiny_single: Base, two_clips: Path) -> None:
    seen: list[int] = []
    latents, captions = folder_clips(tiny_single, two_clips, lambda done, count: seen.append(done))
    assert captions == ["a grey wall", "a grey road"]
    assert seen == [1, 2]
    assert latents.shape == (2, 4, 4, 16, 24)
    mean, _ = encode_clips(tiny_single, read_frames(two_clips / "a", tiny_single)[:, None])
    torch.testing.assert_close(latents[0].float(), mean[:, :, 0].transpose(0, 1), rtol=1e-3, atol=1e-3)


def test_clips_are_encoded_once(tiny_single: Base, two_clips: Path) -> None:
    first, _ = folder_clips(tiny_single, two_clips, ignore)
    encode = tiny_single.vae.encode
    encoded: list[int] = []
    tiny_single.vae.encode = lambda pixels: encoded.append(len(pixels)) or encode(pixels)
    (two_clips / "captions.json").write_text('{"a": "another caption", "b": "a grey road"}')
    again, captions = folder_clips(tiny_single, two_clips, ignore)
    assert torch.equal(again, first)
    assert captions == ["another caption", "a grey road"]
    assert encoded == []
    Image.new("RGB", (192, 128), "white").save(two_clips / "a" / "001.png")
    changed, _ = folder_clips(tiny_single, two_clips, ignore)
    assert len(encoded) == 4
    assert not torch.equal(changed[0], first[0])
    assert torch.equal(changed[1], first[1])
    tiny_single.settings = msgspec.structs.replace(tiny_single.settings, frames=3)
    assert folder_clips(tiny_single, two_clips, ignore)[0].shape[2] == 3


def test_a_damaged_file_of_the_cache_is_made_again(tiny_single: Base, two_clips: Path, own_cache: Path) -> None:
    first, _ = folder_clips(tiny_single, two_clips, ignore)
    for file in own_cache.iterdir():
        file.write_bytes(file.read_bytes()[:50])
    assert torch.equal(folder_clips(tiny_single, two_clips, ignore)[0], first)


def test_captions_are_read_from_csv_and_from_text_beside(tmp_path: Path) -> None:
    for name in "abc":
        frame_folder(tmp_path / name, 1, (8, 8))
    (tmp_path / "captions.csv").write_text('name,caption\na,"a cat, asleep"\nb,a dog\n')
    (tmp_path / "c.txt").write_text("a fish\n")
    assert [caption for _, caption in clip_sources(tmp_path)] == ["a cat, asleep", "a dog", "a fish"]


def test_what_cannot_be_used_is_named(tiny_single: Base, tmp_path: Path) -> None:
    with refused(InvalidInput, folder=str(tmp_path / "nowhere")):
        clip_sources(tmp_path / "nowhere")
    with refused(InvalidInput, folder=str(tmp_path), suffixes=...):
        clip_sources(tmp_path)
    frame_folder(tmp_path / "walk", 2)
    with refused(InvalidInput, path=str(tmp_path / "walk"), caption_file="walk.txt"):
        clip_sources(tmp_path)
    with refused(InvalidInput, found=2, fps=8, model="Tiny", wanted=4):
        read_frames(tmp_path / "walk", tiny_single)
    (tmp_path / "captions.json").write_text("[1]")
    with refused(InvalidInput, sheet=str(tmp_path / "captions.json")):
        clip_sources(tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"no film")
    with refused(InvalidInput, path=str(tmp_path / "broken.mp4"), problem=...):
        read_frames(tmp_path / "broken.mp4", tiny_single)


def test_a_base_with_another_rate_takes_other_frames(tiny_single: Base, tmp_path: Path) -> None:
    tiny_single.settings = msgspec.structs.replace(tiny_single.settings, fps=12, frames=3)
    write_clip(tmp_path / "ramp.mp4", grey_ramp(12), 24)
    assert greys(read_frames(tmp_path / "ramp.mp4", tiny_single)) == [0, 2, 4]


def test_pictures_and_masks_in_the_same_folder_are_no_clips(tmp_path: Path) -> None:
    frame_folder(tmp_path / "masks", 2)
    frame_folder(tmp_path / "walk", 2)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for name, caption in (("walk", "a dog walks"), ("a", "a sks dog")):
        (tmp_path / f"{name}.txt").write_text(caption)
    assert clip_sources(tmp_path) == [(tmp_path / "walk", "a dog walks")]
