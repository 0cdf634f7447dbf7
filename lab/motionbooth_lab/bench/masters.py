"""`motionbooth bench masters`: how exactly each master gives back the decoded frames, and the mp4 for comparison.

The frames are those of six clips of toybox side by side (DNxHR does not take frames as small as one clip's), and two
hard ones of the same size: squares of saturated colors, 5 pixels wide, and noise of all colors.

master_roundtrip_db_CONTENT_MASTER: the peak signal-to-noise ratio against the decoded frames, in 32-bit floats.
master_roundtrip_differing_...: of the lossless masters, how many values differ from the decoded frames rounded to 16
bits: 0 is exact, and then no ratio is given, which would be infinite.
master_roundtrip_exr_half_steps_...: the largest error of an EXR in steps between two 16-bit floats; rounding has 0.5.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import av.filter
import cv2
import numpy as np
import OpenEXR
import torch
from motionbooth.bench.measures import BenchResult, Measure
from motionbooth.generation.masters import CODECS, ExactFrames, linear, write_master
from motionbooth.generation.sampling import generate_exactly, in_eight_bits
from motionbooth.generation.video import read_clip, write_clip
from motionbooth_protocol.masters import Master
from motionbooth_protocol.motion import CameraPath, Shot
from numpy.typing import NDArray

from motionbooth_lab.bench.bundled import bundled_base
from motionbooth_lab.bench.cases import base_cases

_SQUARE_PX = 5
_LOSSY = [master for master in CODECS if master is not Master.FFV1]


def bench_masters() -> BenchResult:
    """Run the bench: two minutes of one core."""
    toybox = toybox_frames()
    contents = {"toybox": toybox, "saturated": saturated_frames(toybox.shape), "noise": noise_frames(toybox.shape)}
    return BenchResult("masters", [each for name, frames in contents.items() for each in master_measures(name, frames)])


def toybox_frames() -> ExactFrames:
    """(8, 128, 288, 3): six clips, each with its own seed, path and pan."""
    base = bundled_base()
    specs = [case.spec for case in islice(base_cases(), 0, None, 6)]
    clips = [generate_exactly(base, spec, [spec.seed])[0].numpy() for spec in specs]
    return np.concatenate([np.concatenate(clips[row::2], axis=2) for row in range(2)], axis=1)


def saturated_frames(shape: tuple[int, ...]) -> ExactFrames:
    """Squares of the eight corners of the RGB cube, other ones in each frame."""
    frames, height, width, _ = shape
    rng = np.random.default_rng(0)
    across = -(-np.array([height, width]) // _SQUARE_PX)
    squares = rng.integers(0, 2, (frames, *across, 3)).astype(np.float32)
    return squares.repeat(_SQUARE_PX, 1).repeat(_SQUARE_PX, 2)[:, :height, :width]


def noise_frames(shape: tuple[int, ...]) -> ExactFrames:
    return np.random.default_rng(1).random(shape, np.float32)


def master_measures(content: str, frames: ExactFrames) -> Iterator[Measure]:
    """All measures of one content (F, H, W, 3)."""
    count, height, width, _ = frames.shape
    shot = Shot("masters", 1, count, 24.0, width, height, CameraPath.still(count))
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        write_clip(clip, in_eight_bits(torch.from_numpy(frames)).numpy(), shot.fps)
        yield Measure(f"mp4_roundtrip_db_{content}", psnr(read_clip(clip)[0] / 255, frames), "dB")
        found = {}
        for master in Master:
            write_master(master, clip, frames, shot)
            found[master] = read_master(master, clip, shot)
    for master in _LOSSY:
        name = master.value.replace("-", "_")
        yield Measure(f"master_roundtrip_db_{content}_{name}", psnr(found[master] / 65535, frames), "dB")
    for master in (Master.FFV1, Master.PNG):
        differing = (found[master] != (frames.astype(np.float64) * 65535).round()).sum()
        yield Measure(f"master_roundtrip_differing_{content}_{master.value}", float(differing), "values")
    expected = linear(frames).astype(np.float64)
    steps = np.abs(found[Master.EXR] - expected) / np.spacing(expected.astype(np.float16)).astype(np.float64)
    yield Measure(f"master_roundtrip_exr_half_steps_{content}", float(steps.max()), "steps")


def psnr(found: NDArray[np.float64], exact: NDArray[np.float32]) -> float:
    """In dB, of values 0..1. Raises ZeroDivisionError if they are equal."""
    return float(10 * np.log10(1 / float(np.square(found - exact.astype(np.float64)).mean())))


def read_master(master: Master, clip: Path, shot: Shot) -> NDArray[Any]:
    """The values of a clip's master (F, H, W, 3), RGB: 16-bit floats of an EXR, otherwise 16-bit integers."""
    if not master.is_sequence:
        with av.open(str(master.path(clip))) as container:
            return np.stack([_sixteen_bits(frame) for frame in container.decode(video=0)])
    pictures = [str(master.picture(clip, frame)) for frame in range(shot.frame_start, shot.frame_end + 1)]
    if master is Master.EXR:
        return np.stack([OpenEXR.File(picture).channels()["RGB"].pixels for picture in pictures])
    return np.stack([cv2.imread(picture, cv2.IMREAD_UNCHANGED)[..., ::-1] for picture in pictures])


def _sixteen_bits(frame: av.VideoFrame) -> NDArray[np.uint16]:
    """As a careful reader does it: colors between two samples of 4:2:2 are interpolated."""
    graph = av.filter.Graph()
    colors = ":in_color_matrix=bt709:in_range=tv" if frame.format.name.startswith("yuv") else ""
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base),
        graph.add("scale", f"flags=lanczos+accurate_rnd+full_chroma_int{colors}:out_range=pc"),
        graph.add("format", "rgb48le"),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    return graph.pull().to_ndarray()
