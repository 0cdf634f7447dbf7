"""Clips: frames to H.264 in mp4 and back, with colors that every reader decodes alike."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.wording import in_words
from numpy.typing import NDArray

from motionbooth.progress.reporting import OnProgress, ignore_progress

Frames = NDArray[np.uint8]  # (F, H, W, 3), RGB

# Nearly lossless, with a keyframe every 12 frames and no B-frames: cheap to scrub on a timeline. One thread and no
# macroblock tree, so that the same frames give the same bytes: with the tree, x264 165 and its code for AVX2 or AVX-512
# write about one small clip in 1000 differently.
ENCODER = {"crf": "10", "preset": "medium", "bf": "0", "g": "12", "threads": "1", "mbtree": "0"}

# The matrices of clips that are not in BT.709, as other programs write them, by the tags of their frames (H.273).
_MATRICES = dict(zip((4, 5, 6, 7, 9, 10), (4, 5, 5, 7, 9, 9), strict=True))


def spread_evenly(frames: Frames, count: int) -> Frames:
    """Resample a clip to `count` frames, from its first frame to its last.

    Each is the nearest frame of the clip: blending two would show a moving subject twice.
    """
    return frames[spread(len(frames), count)]


def spread(frames: int, count: int) -> NDArray[np.int64]:
    """The index of the frame shown at each of `count` times."""
    return np.linspace(0, frames - 1, count).round().astype(np.int64)


class FrameSource(Protocol):
    """A clip's frames (F, H, W, 3), RGB, uint8 or 0..1, one at a time: an array, or what makes each when asked."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


def write_clip(
    path: Path, frames: FrameSource, fps: float, count: int | None = None, on_frame: OnProgress = ignore_progress
) -> None:
    """Write frames of even width and height at `fps`, rounded to a fraction with a denominator of at most 1001.

    They are resampled to `count` frames as by `spread_evenly`, without holding the longer clip in memory.
    """
    height, width = frames.shape[1:3]
    if width % 2 or height % 2:
        raise ValueError(f"H.264 in 4:2:0 needs even sizes, got {width} x {height}")
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=ENCODER)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        # The color space of the values below; without these tags readers guess it from the size, and colors shift.
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_range = ColorRange.MPEG
        stream.codec_context.color_primaries = ColorPrimaries.BT709
        stream.codec_context.color_trc = ColorTrc.BT709
        shown = spread(len(frames), len(frames) if count is None else count)
        for done, index in enumerate(shown, start=1):
            container.mux(stream.encode(_to_yuv(_in_eight_bits(frames[index]))))
            on_frame(done, len(shown))
        container.mux(stream.encode(None))


def _in_eight_bits(frame: NDArray[Any]) -> NDArray[np.uint8]:
    return frame if frame.dtype == np.uint8 else (frame * 255).round().astype(np.uint8)


def _to_yuv(frame: NDArray[np.uint8]) -> av.VideoFrame:
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return picture.reformat(
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        src_color_range=ColorRange.JPEG,
        interpolation="BICUBIC",
    )


def read_clip(path: Path) -> tuple[Frames, float]:
    """All frames of a clip, and its frames per second. Raises InvalidInput if it cannot be read as a clip."""
    try:
        with av.open(str(path), format="apng" if path.suffix.lower() == ".png" else None) as container:
            frames = [to_rgb(frame) for frame in container.decode(video=0)] if container.streams.video else []
            rate = container.streams.video[0].average_rate if frames else None
    except av.FFmpegError as error:
        raise InvalidInput(
            "{path} cannot be read as a video clip ({problem}).", path=path, problem=in_words(error)
        ) from error
    if not frames or rate is None:
        raise InvalidInput("The clip {path} has no frames.", path=path)
    return np.stack(frames), float(rate)


def to_rgb(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """(H, W, 3). A frame without a tag is taken to be in BT.709."""
    return frame.reformat(
        format="rgb24",
        src_colorspace=_MATRICES.get(frame.colorspace, Colorspace.ITU709),
        src_color_range=ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation="BICUBIC",
    ).to_ndarray()
