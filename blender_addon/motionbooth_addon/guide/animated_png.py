"""Writes clips without loss, as animated PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..turntable.turntable import Pixels, png_chunk


def write_animated_png(path: Path, frames: Sequence[Pixels], fps: float) -> None:
    """Write frames (H, W) gray or (H, W, 3) RGB. The same frames give the same bytes."""
    height, width = frames[0].shape[:2]
    color = 2 if frames[0].ndim == 3 else 0
    seconds = (1 / Fraction(fps)).limit_denominator(10_000)
    parts = [
        png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)),
        png_chunk(b"acTL", struct.pack(">II", len(frames), 0)),
    ]
    number = 0
    for frame in frames:
        shown = (number, width, height, 0, 0, seconds.numerator, seconds.denominator, 0, 0)
        parts.append(png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", *shown)))
        rows = np.concatenate([np.zeros((height, 1), np.uint8), frame.reshape(height, -1)], axis=1)
        data = zlib.compress(rows.tobytes(), 6)
        if number == 0:
            parts.append(png_chunk(b"IDAT", data))
        else:
            number += 1
            parts.append(png_chunk(b"fdAT", struct.pack(">I", number) + data))
        number += 1
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + png_chunk(b"IEND", b""))
