"""Pictures: read in any size, mode and orientation, and fitted into frames of the base model's size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from motionbooth_protocol.errors import InvalidInput
from motionbooth_protocol.text import Text
from numpy.typing import NDArray
from PIL import Image, ImageOps

Rgb = NDArray[np.uint8]  # (H, W, 3)
Mask = NDArray[np.float32]  # (H, W), 0 outside the subject, 1 inside

MAX_PIXELS = 100_000_000
# Pillow reads fifty formats, some with old code, and EPS by running Ghostscript; uploaded pictures are not trusted.
FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "HEIF")
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
GRAY = 127  # padding: the middle of the value range


@dataclass(frozen=True)
class TrainingPicture:
    """A picture at the base's frame size. The mask never includes padding."""

    rgb: Rgb
    mask: Mask
    caption_suffix: str = ""
    """What its caption says about the background ("on the grass"); empty for nothing."""
    caption: str = ""
    """What the caption says before that; empty for the subject's prompt."""


def read_picture(path: Path, label: str | Text) -> Image.Image:
    """The picture upright, in RGB or RGBA. `label` names it in errors ("picture 2"). Raises InvalidInput."""
    try:
        _register_heif(path, label)
        Image.init()  # otherwise Pillow knows its first five formats only
        with Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN]) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise InvalidInput(
                    "Cannot use {picture} ({width} x {height} pixels): at most 100 million pixels are possible.",
                    picture=label,
                    width=opened.width,
                    height=opened.height,
                )
            upright = _with_eight_bits(ImageOps.exif_transpose(opened))
            return upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    except (InvalidInput, MemoryError):
        raise
    except Exception as error:  # a corrupt file makes Pillow raise almost anything: struct.error, RuntimeError
        raise InvalidInput(
            "Cannot read {picture} ({reason}). Send it again as PNG or JPEG.", picture=label, reason=error
        ) from error


def _with_eight_bits(picture: Image.Image) -> Image.Image:
    """Gray pictures of more bits (16-bit, integer, float), which Pillow would clip at 255, scaled to 0..255.

    The file does not say which value is white: it is taken to be the least of 1 (floats), 255 and 65535 that no pixel
    exceeds.
    """
    if picture.mode != "F" and not picture.mode.startswith("I"):
        return picture
    values = np.nan_to_num(np.asarray(picture, dtype=np.float32)).clip(min=0)
    whites = (1, 255, 65535) if picture.mode == "F" else (255, 65535)
    white = next((white for white in whites if values.max() <= white), values.max())
    return Image.fromarray((values * (255 / white)).round().astype(np.uint8))


def _register_heif(path: Path, label: str | Text) -> None:
    """Register Pillow's HEIF plug-in for a file of phones (HEIC). Raises InvalidInput if it is not installed."""
    with path.open("rb") as file:
        start = file.read(12)
    if start[4:8] != b"ftyp" or start[8:12] not in HEIF_BRANDS:
        return
    try:
        import pillow_heif
    except ImportError as error:
        raise InvalidInput(
            "Cannot read {picture}: its format HEIC needs one more library: pip install 'motionbooth[heic]'. "
            "Or send it as PNG or JPEG.",
            code="no_heic",
            picture=label,
        ) from error
    pillow_heif.register_heif_opener()


@dataclass(frozen=True)
class Placement:
    """The position of a picture in its frame."""

    scale: float = 1.0
    """Size, as a share of the largest square that fits."""
    x: float = 0.5
    """Share of the remaining width that is left of the picture, 0..1."""
    y: float = 0.5
    """Share of the remaining height that is above the picture, 0..1."""


CENTERED = Placement()


def fit_picture(
    rgb: Rgb, mask: Mask, width: int, height: int, fit: Literal["square", "contain"], placement: Placement = CENTERED
) -> TrainingPicture:
    """Resize to a square as high as the frame (or as wide, if that is less) on a gray frame of width x height pixels.

    "square" squashes the picture's aspect to fill the square (the authors' way), "contain" keeps it.
    """
    side = placement.scale * min(width, height)
    inner_width, inner_height = side, side
    if fit == "contain":
        inner_height, inner_width = (side * length / max(rgb.shape[:2]) for length in rgb.shape[:2])
    size = max(1, round(inner_width)), max(1, round(inner_height))
    small = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))
    small_mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.BOX))
    frame = np.full((height, width, 3), GRAY, dtype=np.uint8)
    frame_mask = np.zeros((height, width), dtype=np.float32)
    left, top = round((width - size[0]) * placement.x), round((height - size[1]) * placement.y)
    region = slice(top, top + size[1]), slice(left, left + size[0])
    frame[region], frame_mask[region] = small, small_mask >= 0.5
    return TrainingPicture(frame, frame_mask)
