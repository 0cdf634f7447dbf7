"""Clips keep their length, rate and colours."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from motionbooth.generation.video import read_clip, spread_evenly, write_clip
from motionbooth_protocol.errors import InvalidInput
from refused import refused

COLOURS = [(200, 30, 40), (20, 180, 60), (30, 60, 220), (240, 230, 40), (0, 0, 0), (255, 255, 255), (128, 128, 128)]


def flat_clip(height: int = 64, width: int = 96) -> np.ndarray:
    """One frame of each colour."""
    return np.stack([np.full((height, width, 3), colour, dtype=np.uint8) for colour in COLOURS])


def test_colours_come_back_within_two_levels(tmp_path: Path) -> None:
    clip = flat_clip()
    write_clip(tmp_path / "c.mp4", clip, 24)
    frames, fps = read_clip(tmp_path / "c.mp4")
    assert frames.shape == clip.shape
    assert fps == 24
    assert np.abs(frames.astype(int) - clip).max() <= 2


def test_the_tags_say_bt709_in_limited_range(tmp_path: Path) -> None:
    write_clip(tmp_path / "c.mp4", flat_clip(), 24)
    with av.open(str(tmp_path / "c.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert context.pix_fmt == "yuv420p"


def test_moving_detail_survives(tmp_path: Path) -> None:
    y, x = np.mgrid[:64, :96]
    clip = np.stack(
        [
            np.repeat((127 + 90 * np.sin((x + 3 * f) / 5) * np.cos(y / 7))[..., None], 3, axis=2).astype(np.uint8)
            for f in range(10)
        ]
    )
    write_clip(tmp_path / "c.mp4", clip, 24)
    error = np.abs(read_clip(tmp_path / "c.mp4")[0].astype(int) - clip)
    assert error.mean() < 1.5


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", flat_clip(), 24)
    write_clip(tmp_path / "b.mp4", flat_clip(), 24)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.slow
def test_noise_gives_the_same_bytes_2000_times(tmp_path: Path) -> None:
    """With x264's macroblock tree, two of these clips differ on average. The heap changes in between."""
    random = np.random.default_rng(0)
    noise = random.normal(127, 50, (9, 48, 64, 3)).clip(0, 255).astype(np.uint8)
    clips = set()
    for _ in range(2000):
        held = [bytearray(size) for size in random.integers(1, 200_000, random.integers(20))]
        write_clip(tmp_path / "c.mp4", noise, 24, 14)
        clips.add((tmp_path / "c.mp4").read_bytes())
        del held
    assert len(clips) == 1


@pytest.mark.parametrize("fps", [23.976, 24000 / 1001, 25, 30, 12.5, 60, 8])
def test_the_frame_rate_is_the_scenes(tmp_path: Path, fps: float) -> None:
    write_clip(tmp_path / "c.mp4", flat_clip(), fps)
    assert read_clip(tmp_path / "c.mp4")[1] == pytest.approx(fps, rel=1e-6)


@pytest.mark.parametrize(("frames", "count"), [(8, 8), (8, 24), (8, 25), (8, 3), (24, 100), (8, 2), (1, 5), (8, 1)])
def test_a_clip_fills_the_range_exactly_from_first_to_last(frames: int, count: int) -> None:
    clip = np.arange(frames, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    spread = spread_evenly(clip, count)[:, 0, 0, 0].astype(int)
    assert len(spread) == count
    assert spread[0] == 0
    if count > 1:
        ideal = np.arange(count) * (frames - 1) / (count - 1)
        assert np.abs(spread - ideal).max() <= 0.5
        assert spread[-1] == frames - 1


@pytest.mark.parametrize("count", [3, 7, 20])
def test_a_clip_is_written_at_any_length_without_being_copied(tmp_path: Path, count: int) -> None:
    write_clip(tmp_path / "a.mp4", spread_evenly(flat_clip(), count), 24)
    write_clip(tmp_path / "b.mp4", flat_clip(), 24, count)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_what_is_not_a_clip_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "c.mp4").write_bytes(b"no film")
    with refused(InvalidInput, path=str(tmp_path / "c.mp4"), reason="Invalid data found when processing input"):
        read_clip(tmp_path / "c.mp4")


@pytest.mark.parametrize("matrix", [Colorspace.ITU601, Colorspace.ITU709, Colorspace.BT2020])
def test_another_programs_colors_are_read_by_their_tag(tmp_path: Path, matrix: Colorspace) -> None:
    with av.open(str(tmp_path / "c.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, ColorRange.MPEG
        for frame in flat_clip():
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            ranges = {"src_color_range": ColorRange.JPEG, "dst_color_range": ColorRange.MPEG}
            container.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace=matrix, **ranges)))
        container.mux(stream.encode(None))
    assert np.abs(read_clip(tmp_path / "c.mp4")[0].astype(int) - flat_clip()).max() <= 3  # rounded in YUV


def test_a_recording_without_pictures_has_no_frames(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "c.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1600))
    with pytest.raises(InvalidInput) as caught:
        read_clip(tmp_path / "c.wav")
    assert caught.value.text.values == {"path": str(tmp_path / "c.wav")}
