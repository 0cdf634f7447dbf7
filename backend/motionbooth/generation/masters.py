"""Masters: the decoded frames in more than 8 bits, as movies and sequences of pictures that a studio works on with.

All have the primaries of sRGB (those of BT.709, white D65). The values of PNGs and movies are those of the screen, in
sRGB; movies are tagged like the mp4, as BT.709, and those in YUV have its matrix and limited range. The values of EXRs
are linear, as Blender expects them.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from errno import EDQUOT, EFBIG, EIO, ENOSPC
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.limits import MAX_BLOB_BYTES
from motionbooth_protocol.masters import Master
from motionbooth_protocol.motion import Shot
from numpy.typing import NDArray

from motionbooth.generation.video import FrameSource, spread
from motionbooth.progress.reporting import OnProgress, ignore_progress

ExactFrames = NDArray[np.float32]  # (F, H, W, 3), RGB encoded for display, 0..1


@dataclass(frozen=True)
class Codec:
    """How the frames of a movie are encoded. `smallest`: the least width and height in pixels that the codec takes."""

    name: str
    pixels: str
    options: dict[str, str]
    smallest: tuple[int, int] = (1, 1)


_PRORES = {"vendor": "apl0", "bits_per_mb": "8192"}  # as many bits as the picture needs, not a rate
CODECS = {
    Master.PRORES: Codec("prores_ks", "yuv422p10le", {**_PRORES, "profile": "hq"}),
    Master.PRORES_4444: Codec("prores_ks", "yuv444p10le", {**_PRORES, "profile": "4444xq"}),
    Master.DNXHR: Codec("dnxhd", "yuv422p10le", {"profile": "dnxhr_hqx"}, smallest=(256, 120)),
    Master.FFV1: Codec("ffv1", "gbrp16le", {"level": "3", "slices": "4", "slicecrc": "1"}),
}
_RGB = 0  # the matrix of pictures in RGB
_CHROMATICITIES = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)  # x and y of red, green, blue and white


def check_master(master: Master, size: tuple[int, int], count: int) -> None:
    """Whether `count` frames of this width and height fit a master. Raises InvalidInput, before they are generated."""
    width, height = size
    codec = CODECS.get(master)
    if codec is not None and (width < codec.smallest[0] or height < codec.smallest[1]):
        raise InvalidInput(
            "A {master} master needs frames of at least {least_width} x {least_height} pixels, but this model's have "
            "{width} x {height}. Choose another master.",
            master=master.value,
            least_width=codec.smallest[0],
            least_height=codec.smallest[1],
            width=width,
            height=height,
        )
    if codec is not None and codec.pixels.startswith("yuv422") and width % 2:
        raise InvalidInput(
            "A {master} master needs frames of even width, but these have {width} x {height} pixels. Choose another "
            "master.",
            master=master.value,
            width=width,
            height=height,
        )
    if 8 * width * height * count > MAX_BLOB_BYTES:  # three values of 2 bytes, and a margin: FFV1 of noise takes 7
        raise InvalidInput(
            "A master of {count} frames of {width} x {height} pixels may exceed {most} GiB. Shorten the shot, or "
            "generate it without a master.",
            count=count,
            width=width,
            height=height,
            most=MAX_BLOB_BYTES >> 30,
        )


def write_master(
    master: Master, clip: Path, frames: FrameSource, shot: Shot, on_frame: OnProgress = ignore_progress
) -> Path:
    """Write the master of `clip`, which need not exist: as many frames as the clip, at its rate.

    The frames are repeated as by `spread_evenly`; pictures are numbered by the scene's frames. Returns the movie, or
    the folder of the pictures. Raises InvalidInput as `check_master` does, and OSError, of a full disk, too.
    """
    count = shot.scene_frames
    check_master(master, (frames.shape[2], frames.shape[1]), count)
    path = master.path(clip)
    chosen = (frames[index] for index in _counted(spread(len(frames), count).tolist(), on_frame))
    if master.is_sequence:
        path.mkdir(parents=True, exist_ok=True)
        write = _write_exr if master is Master.EXR else _write_png
        for number, frame in enumerate(chosen, start=shot.frame_start):
            write(master.picture(clip, number), frame)
    else:
        _write_movie(path, CODECS[master], chosen, frames.shape[1:3], shot.fps)
    return path


def pack(master: Master, clip: Path, shot: Shot) -> Path:
    """A clip's master as one file: a sequence is moved into a zip beside its folder, numbered and not compressed."""
    folder = master.path(clip)
    if not master.is_sequence:
        return folder
    path = folder.with_name(f"{folder.name}.zip")
    with zipfile.ZipFile(path, "w") as packed:
        for frame in range(shot.frame_start, shot.frame_end + 1):
            picture = master.picture(clip, frame)
            packed.writestr(zipfile.ZipInfo(master.name_in_zip(frame)), picture.read_bytes())  # always the same date
            picture.unlink()
    return path


def move_master(master: Master, clip: Path, new: Path, shot: Shot) -> None:
    """Move a clip's master to where it belongs if the clip is called `new`, in place of an earlier one."""
    if not master.is_sequence:
        master.path(clip).replace(master.path(new))
        return
    master.path(new).mkdir(exist_ok=True)
    for old in master.path(new).iterdir():  # of a shot with other frames
        if re.fullmatch(rf"{re.escape(new.stem)}_-?\d+{re.escape(master.suffix)}", old.name):
            old.unlink()
    for frame in range(shot.frame_start, shot.frame_end + 1):
        master.picture(clip, frame).replace(master.picture(new, frame))


def _counted(chosen: Sequence[int], on_frame: OnProgress) -> Iterator[int]:
    for done, index in enumerate(chosen):
        on_frame(done, len(chosen))
        yield index
    on_frame(len(chosen), len(chosen))


def _write_movie(
    path: Path, codec: Codec, frames: Iterator[NDArray[np.float32]], size: tuple[int, ...], fps: float
) -> None:
    height, width = size
    in_yuv = codec.pixels.startswith("yuv")
    rate = Fraction(fps).limit_denominator(1001)
    to_pixels = _converter(width, height, 1 / rate, codec.pixels)
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream(codec.name, rate=rate, options={**codec.options, "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, codec.pixels
        context = stream.codec_context
        context.colorspace = Colorspace.ITU709 if in_yuv else _RGB
        context.color_range = ColorRange.MPEG if in_yuv else ColorRange.JPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        for number, frame in enumerate(frames):
            picture = _picture(frame, ColorTrc.BT709)
            picture.pts, picture.time_base = number, 1 / rate
            to_pixels.push(picture)
            container.mux(stream.encode(to_pixels.pull()))
        container.mux(stream.encode(None))


def _converter(width: int, height: int, time_base: Fraction, pixels: str) -> av.filter.Graph:
    """Converts pictures to a movie's format, with exact rounding. Without these flags each pixel loses half its color
    where two share one (4:2:2): 41 dB instead of 54 for a clip of toybox.
    """
    graph = av.filter.Graph()
    flags = "lanczos+accurate_rnd+full_chroma_inp+full_chroma_int"
    colors = ":out_color_matrix=bt709:out_range=tv" if pixels.startswith("yuv") else ""
    graph.link_nodes(
        graph.add_buffer(width=width, height=height, format="rgb48le", time_base=time_base),
        graph.add("scale", f"flags={flags}{colors}"),
        graph.add("format", pixels),
        graph.add("buffersink"),
    ).configure()
    return graph


def _picture(frame: NDArray[np.float32], curve: ColorTrc) -> av.VideoFrame:
    """A frame in 16 bits, with the colors stated."""
    sixteen_bits = np.ascontiguousarray((frame.astype(np.float64) * 65535).round().astype(np.uint16))
    picture = av.VideoFrame.from_ndarray(sixteen_bits, format="rgb48le")
    picture.color_primaries, picture.color_trc, picture.color_range = ColorPrimaries.BT709, curve, ColorRange.JPEG
    return picture


def _write_png(path: Path, frame: NDArray[np.float32]) -> None:
    """16 bits, with the chunk that says sRGB."""
    context = av.CodecContext.create("png", "w")
    context.height, context.width = frame.shape[:2]
    context.pix_fmt, context.time_base = "rgb48be", Fraction(1)
    picture = _picture(frame, ColorTrc.IEC61966_2_1)
    big_endian = picture.reformat(format="rgb48be")
    big_endian.color_primaries, big_endian.color_trc = picture.color_primaries, picture.color_trc
    path.write_bytes(b"".join(bytes(packet) for packet in [*context.encode(big_endian), *context.encode(None)]))


def _write_exr(path: Path, frame: NDArray[np.float32]) -> None:
    """Linear values in 16-bit floats."""
    import OpenEXR

    header = {
        "type": OpenEXR.scanlineimage,
        "compression": OpenEXR.ZIP_COMPRESSION,
        "chromaticities": _CHROMATICITIES,
        "colorInteropID": "lin_rec709_scene",
    }
    try:
        with OpenEXR.File(header, {"RGB": linear(frame).astype(np.float16)}) as file:
            file.write(str(path))
    except RuntimeError as error:  # its only one
        code = next((code for code in (ENOSPC, EDQUOT, EFBIG) if os.strerror(code) in str(error)), EIO)
        raise OSError(code, str(error), str(path)) from error


def linear(encoded: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values 0..1 encoded with sRGB's curve, decoded to linear ones."""
    low, high = encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4
    return np.where(encoded <= 0.04045, low, high).astype(np.float32)
