"""Masters give back the decoded frames: exactly, or as closely as their form allows, with their colors stated."""

from __future__ import annotations

import os
import zipfile
from errno import ENOTDIR
from pathlib import Path

import av
import numpy as np
import OpenEXR
import pytest
from motionbooth.generation.masters import check_master, linear, move_master, pack, write_master
from motionbooth.generation.video import spread_evenly
from motionbooth.server.worker import error_for_owner
from motionbooth_lab.bench.masters import read_master
from motionbooth_protocol.errors import InvalidInput, OutOfSpace, from_os_error
from motionbooth_protocol.masters import Master
from motionbooth_protocol.motion import CameraPath, Shot
from refused import refused

SHOT = Shot("shot", 11, 16, 23.976, 256, 128, CameraPath.still(4))  # 6 frames of 4 of the model
MOVIES = [master for master in Master if not master.is_sequence]


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Fine gradients that 8 bits cannot hold: float32 (4, 128, 256, 3)."""
    y, x = np.mgrid[:128, :256].astype(np.float32)
    shown = [np.stack([0.2 + x / 2560, 0.3 + y / 1280 + 0.01 * f, 0.5 + (x + y) / 3840], axis=-1) for f in range(4)]
    return np.stack(shown).astype(np.float32)


def hard(frames: np.ndarray) -> np.ndarray:
    """Noise of all colors, of the same shape."""
    return np.random.default_rng(0).random(frames.shape, np.float32)


@pytest.mark.parametrize("master", [Master.FFV1, Master.PNG])
def test_a_lossless_master_has_every_bit(master: Master, frames: np.ndarray, tmp_path: Path) -> None:
    exact = hard(frames)
    assert write_master(master, tmp_path / "clip.mp4", exact, SHOT) == master.path(tmp_path / "clip.mp4")
    expected = (exact.astype(np.float64) * 65535).round()
    assert np.array_equal(read_master(master, tmp_path / "clip.mp4", SHOT), spread_evenly(expected, 6))


def test_an_exr_is_linear_in_16_bit_floats(frames: np.ndarray, tmp_path: Path) -> None:
    exact = hard(frames)
    write_master(Master.EXR, tmp_path / "clip.mp4", exact, SHOT)
    found = read_master(Master.EXR, tmp_path / "clip.mp4", SHOT)
    assert found.dtype == np.float16
    value = spread_evenly(exact, 6).astype(np.float64)
    expected = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    # Half of the spacing of halves, relative or (subnormal) absolute; and float32's own rounding in the power.
    assert np.allclose(found, expected, rtol=2**-11 + 1e-6, atol=2**-25)
    header = OpenEXR.File(str(tmp_path / "clip" / "clip_0011.exr")).header()
    assert np.allclose(header["chromaticities"], (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.3127, 0.329))


@pytest.mark.parametrize("master", [Master.PRORES, Master.PRORES_4444, Master.DNXHR])
def test_a_compressed_movie_keeps_more_than_8_bits(master: Master, frames: np.ndarray, tmp_path: Path) -> None:
    write_master(master, tmp_path / "clip.mp4", frames, SHOT)
    found = read_master(master, tmp_path / "clip.mp4", SHOT) / 65535
    error = np.square(found - spread_evenly(frames, 6)).mean()
    assert -10 * np.log10(error) > 62, "10 bits in limited range: 876 levels, a third of a level's error"
    red = found[0, :, :, 0].mean(axis=0)  # a ramp over 0.1: 25 levels of 8 bits
    assert len(np.unique(red.round(3))) > 60


@pytest.mark.parametrize("master", MOVIES)
def test_a_movie_states_its_colors_and_has_the_scenes_rate(master: Master, frames: np.ndarray, tmp_path: Path) -> None:
    path = write_master(master, tmp_path / "clip.mp4", frames, SHOT)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate) == pytest.approx(SHOT.fps, abs=1e-3)
        context, frame = stream.codec_context, next(container.decode(stream))
        matrix, extent = (0, 2) if master is Master.FFV1 else (1, 1)
        found = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
        assert found == (1, 1, matrix, extent)
        found = (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range)
        assert found == (1, 1, matrix, extent)


def test_a_png_says_that_it_is_srgb(frames: np.ndarray, tmp_path: Path) -> None:
    write_master(Master.PNG, tmp_path / "clip.mp4", frames, SHOT)
    assert b"sRGB" in (tmp_path / "clip" / "clip_0011.png").read_bytes()[:100]


@pytest.mark.parametrize("master", Master)
def test_the_same_frames_give_the_same_bytes(master: Master, frames: np.ndarray, tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_master(master, tmp_path / name / "clip.mp4", frames, SHOT)
        contents.append(pack(master, tmp_path / name / "clip.mp4", SHOT).read_bytes())
    assert contents[0] == contents[1]


def test_a_sequence_travels_as_a_zip_of_numbered_pictures(frames: np.ndarray, tmp_path: Path) -> None:
    folder = write_master(Master.PNG, tmp_path / "clip.mp4", frames, SHOT)
    first = (folder / "clip_0011.png").read_bytes()
    with zipfile.ZipFile(pack(Master.PNG, tmp_path / "clip.mp4", SHOT)) as packed:
        assert packed.namelist() == [f"00{number}.png" for number in range(11, 17)]
        assert packed.read("0011.png") == first
        assert {info.compress_type for info in packed.infolist()} == {zipfile.ZIP_STORED}
    assert not list(folder.iterdir()), "moved, not copied: the disk holds them once"


@pytest.mark.parametrize("master", [Master.PNG, Master.FFV1])
def test_a_master_moves_with_its_clip(master: Master, frames: np.ndarray, tmp_path: Path) -> None:
    write_master(master, tmp_path / "7.mp4", frames, SHOT)
    move_master(master, tmp_path / "7.mp4", tmp_path / "shot_1.mp4", SHOT)
    assert read_master(master, tmp_path / "shot_1.mp4", SHOT).shape == (6, 128, 256, 3)


def test_what_a_master_cannot_hold_is_refused_before_it_is_generated() -> None:
    with refused(InvalidInput, master="dnxhr", least_width=256, least_height=120, width=96, height=64):
        check_master(Master.DNXHR, (96, 64), 10)
    with refused(InvalidInput, master="prores", width=321, height=200):
        check_master(Master.PRORES, (321, 200), 10)
    with refused(InvalidInput, count=20_000, width=1280, height=720, most=4):
        check_master(Master.EXR, (1280, 720), 20_000)
    for master in Master:
        check_master(master, (1280, 720), 240)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("master", Master)
def test_a_full_disk_is_one_sentence(master: Master, frames: np.ndarray, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    file = master.picture(clip, 11) if master.is_sequence else master.path(clip)
    file.parent.mkdir(exist_ok=True)
    file.symlink_to("/dev/full")
    with pytest.raises(OSError) as caught:  # noqa: PT011
        write_master(master, clip, hard(frames), SHOT)
    assert isinstance(from_os_error(caught.value), OutOfSpace), "on the command line"
    told = error_for_owner(caught.value)
    assert isinstance(told, OutOfSpace)
    assert str(tmp_path) not in str(told), "no path of a backend crosses the wire"


@pytest.mark.parametrize("master", [Master.PRORES, Master.EXR])
def test_a_folder_that_cannot_be_written_is_an_oserror(master: Master, frames: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=os.strerror(ENOTDIR)):
        write_master(master, tmp_path / "file" / "clip.mp4", frames, SHOT)


def test_linear_light_of_the_ends_and_the_middle() -> None:
    assert linear(np.float32([0, 0.5, 1])).tolist() == pytest.approx([0, 0.21404, 1], abs=1e-5)
